"""What endpoints are told: by strangers nothing, by trusted peers the chain."""

from __future__ import annotations

import re

from proxy.dataplane.forwarding import Origin, RequestIds
from proxy.http1.message import RequestHead
from proxy.policy.trust import TrustedPeers

CLAIMS = {
    b"x-forwarded-for": b"203.0.113.9, 10.0.0.2",
    b"x-forwarded-proto": b"https",
    b"x-forwarded-port": b"443",
    b"x-forwarded-host": b"www.example.com",
    b"x-request-id": b"theirs",
    b"forwarded": b"for=203.0.113.9",
    b"traceparent": b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
}


def origin(peer: str, *trusted: str) -> Origin:
    return Origin(peer, 8080, b"http", TrustedPeers(trusted))


def head(special: dict[bytes, bytes] | None = None) -> RequestHead:
    made = RequestHead(b"GET", b"/", [])
    made.host = b"shop.example.com"
    made.special = special
    return made


def lines(told: Origin, special: dict[bytes, bytes] | None = None) -> dict[str, str]:
    text, request_id = told.lines(head(special), RequestIds(1))
    pairs = [line.partition(": ")[::2] for line in text.decode().split("\r\n")[:-1]]
    found = dict(pairs)
    assert len(found) == len(pairs), "a header twice"
    assert found["X-Request-ID"] == request_id.decode()
    return found


def test_a_stranger_is_described_and_not_believed() -> None:
    for special in (None, {}, CLAIMS):
        found = lines(origin("192.0.2.7"), special)
        assert found["X-Forwarded-For"] == "192.0.2.7"
        assert found["X-Forwarded-Proto"] == "http"
        assert found["X-Forwarded-Port"] == "8080"
        assert found["X-Forwarded-Host"] == "shop.example.com"
        assert re.fullmatch("[0-9a-f]{32}", found["X-Request-ID"])
        assert "Forwarded" not in found
    assert origin("192.0.2.7").client(head(CLAIMS)) == "192.0.2.7"


def test_a_trusted_peers_word_is_passed_on_and_the_peer_added() -> None:
    peer = origin("10.0.0.1", "10.0.0.0/8")
    found = lines(peer, CLAIMS)
    assert found["X-Forwarded-For"] == "203.0.113.9, 10.0.0.2, 10.0.0.1"
    assert found["X-Forwarded-Proto"] == "https"
    assert found["X-Forwarded-Port"] == "443"
    assert found["X-Forwarded-Host"] == "www.example.com"
    assert found["X-Request-ID"] == "theirs"
    assert found["Forwarded"] == "for=203.0.113.9"
    assert peer.client(head(CLAIMS)) == "203.0.113.9"
    assert peer.client(head()) == "10.0.0.1"


def test_a_trace_is_passed_on_and_made_where_there_is_none() -> None:
    assert lines(origin("192.0.2.7"), CLAIMS)["traceparent"] == CLAIMS[b"traceparent"].decode()
    made = lines(origin("192.0.2.7"))
    match = re.fullmatch("00-([0-9a-f]{32})-[0-9a-f]{16}-01", made["traceparent"])
    assert match
    assert match[1] == made["X-Request-ID"]


def test_a_peer_without_an_address_is_unknown() -> None:
    assert lines(origin(""))["X-Forwarded-For"] == "unknown"


def test_ids_do_not_repeat_and_none_is_all_zeros() -> None:
    ids = RequestIds(0)
    made = [ids.next() for _ in range(10_000)]
    assert len({request_id for request_id, _ in made}) == 10_000
    for request_id, span in made:
        assert len(request_id) == 32
        assert request_id.endswith(span)
        assert span != b"0" * 16
        assert request_id[:16] != b"0" * 16
