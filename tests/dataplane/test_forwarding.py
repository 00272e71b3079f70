"""What endpoints are told: by strangers nothing, by trusted peers the chain."""

from __future__ import annotations

import re

import pytest

from proxy.dataplane.forwarding import Origin, RequestIds
from proxy.http1 import headers
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
    b"x-real-ip": b"6.6.6.6",
    **dict.fromkeys(headers.CLAIMS, b"claimed"),
}
MADE = "00-[0-9a-f]{32}-[0-9a-f]{16}-01"


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
        assert found["X-Real-IP"] == "192.0.2.7"
        assert "Forwarded" not in found
        assert not {name.lower() for name in found} & {name.decode() for name in headers.CLAIMS}
    assert origin("192.0.2.7").client(head(CLAIMS)) == "192.0.2.7"


def test_a_trusted_peers_word_is_passed_on_and_the_peer_added() -> None:
    peer = origin("10.0.0.1", "10.0.0.0/8")
    found = lines(peer, CLAIMS)
    assert found["X-Forwarded-For"] == "203.0.113.9, 10.0.0.2, 10.0.0.1"
    assert found["X-Forwarded-Proto"] == "https"
    assert found["X-Forwarded-Port"] == "443"
    assert found["X-Forwarded-Host"] == "www.example.com"
    assert found["X-Request-ID"] == "theirs"
    assert found["Forwarded"] == "for=203.0.113.9, for=10.0.0.1;host=shop.example.com;proto=http"
    assert found["X-Real-IP"] == "203.0.113.9"
    for name in headers.CLAIMS:
        assert found[name.decode()] == "claimed"
    assert peer.client(head(CLAIMS)) == "203.0.113.9"
    assert peer.client(head()) == "10.0.0.1"


def test_a_trace_is_passed_on_and_made_where_there_is_none() -> None:
    assert lines(origin("192.0.2.7"), CLAIMS)["traceparent"] == CLAIMS[b"traceparent"].decode()
    made = lines(origin("192.0.2.7"))
    match = re.fullmatch("00-([0-9a-f]{32})-[0-9a-f]{16}-01", made["traceparent"])
    assert match
    assert match[1] == made["X-Request-ID"]


def trace(value: bytes, state: bytes | None = b"a=1") -> dict[str, str]:
    special = {b"traceparent": value}
    if state is not None:
        special[b"tracestate"] = state
    return lines(origin("192.0.2.7"), special)


@pytest.mark.parametrize(
    "value",
    [
        b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00",
        b"00-" + b"0" * 31 + b"1-" + b"0" * 15 + b"1-ff",
        b"01-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
        b"fe-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-what-comes-later",
    ],
)
def test_a_valid_trace_is_kept_with_its_state(value: bytes) -> None:
    found = trace(value)
    assert found["traceparent"] == value.decode()
    assert found["tracestate"] == "a=1"
    assert "tracestate" not in trace(value, None)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00-" + b"A" * 32 + b"-" + b"b" * 16 + b"-01",
        b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01",
        b"00-" + b"a" * 32 + b"-" + b"0" * 16 + b"-01",
        b"00-" + b"a" * 31 + b"-" + b"b" * 16 + b"-01",
        b"00-" + b"a" * 32 + b"-" + b"b" * 17 + b"-01",
        b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-1",
        b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-more",
        b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01, 00-x",
        b"ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
        b"01-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01x",
        b"01-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-" + b"x" * 300,
        b"0-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
        b"00_" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
    ],
)
def test_a_trace_that_is_none_is_made_anew_and_its_state_dropped(value: bytes) -> None:
    found = trace(value)
    assert re.fullmatch(MADE, found["traceparent"])
    assert "tracestate" not in found


def test_a_state_without_a_trace_is_dropped() -> None:
    found = lines(origin("192.0.2.7"), {b"tracestate": b"a=1"})
    assert re.fullmatch(MADE, found["traceparent"])
    assert "tracestate" not in found


@pytest.mark.parametrize(
    "value", [b"", b"a b", b'a"b', b"a, b", b"\xff", b"a\tb", b"x" * 129, b"<b>"]
)
def test_a_request_id_that_is_no_id_is_made_anew_even_for_trusted_peers(value: bytes) -> None:
    found = lines(origin("10.0.0.1", "10.0.0.0/8"), {b"x-request-id": value})
    assert re.fullmatch("[0-9a-f]{32}", found["X-Request-ID"])


@pytest.mark.parametrize("value", ["Root=1-67891233-abcdef", "a" * 128, "req/7:b.c_d~"])
def test_a_request_id_of_a_trusted_peer_is_kept(value: str) -> None:
    found = lines(origin("10.0.0.1", "10.0.0.0/8"), {b"x-request-id": value.encode()})
    assert found["X-Request-ID"] == value


def test_a_trusted_peer_that_says_nothing_is_described_like_anybody() -> None:
    for special in (None, {}, dict.fromkeys(CLAIMS, b"")):
        found = lines(origin("10.0.0.1", "10.0.0.0/8"), special)
        assert found["X-Forwarded-For"] == found["X-Real-IP"] == "10.0.0.1"
        assert found["X-Forwarded-Proto"] == "http"
        assert found["X-Forwarded-Port"] == "8080"
        assert found["X-Forwarded-Host"] == "shop.example.com"
        assert "Forwarded" not in found


def test_forwarded_of_a_trusted_peer_tells_what_the_other_headers_do_not() -> None:
    peer = origin("2001:db8::1", "2001:db8::/32")
    special = {b"forwarded": b'for="[2001:db9::7]", for=2001;by=x, proto=https;host="b:81";for=_a'}
    found = lines(peer, special)
    assert found["X-Forwarded-For"] == "2001:db9::7, 2001, _a, 2001:db8::1"
    assert found["X-Forwarded-Proto"] == "https"
    assert found["X-Forwarded-Host"] == "b:81"
    assert found["X-Real-IP"] == "2001:db8::1"
    own = 'for="[2001:db8::1]";host=shop.example.com;proto=http'
    assert found["Forwarded"] == special[b"forwarded"].decode() + ", " + own
    named = head({b"forwarded": b'for="[2001:db9::7]:4711"'})
    assert peer.client(named) == "2001:db9::7"
    both = head({b"forwarded": b"for=192.0.2.1", b"x-forwarded-for": b"192.0.2.2"})
    assert peer.client(both) == "192.0.2.2"


def test_the_real_address_is_who_the_trusted_chain_says_and_no_claim() -> None:
    peer = origin("10.0.0.1", "10.0.0.0/8")
    found = lines(
        peer, {b"x-real-ip": b"6.6.6.6", b"x-forwarded-for": b"7.7.7.7, 8.8.8.8, 10.9.9.9"}
    )
    assert found["X-Real-IP"] == "8.8.8.8"
    assert lines(peer, {b"x-real-ip": b"6.6.6.6"})["X-Real-IP"] == "10.0.0.1"


def test_a_peer_without_an_address_is_unknown() -> None:
    found = lines(origin(""))
    assert found["X-Forwarded-For"] == "unknown"
    assert "X-Real-IP" not in found


def test_ids_do_not_repeat_and_none_is_all_zeros() -> None:
    ids = RequestIds(0)
    made = [ids.next() for _ in range(10_000)]
    assert len({request_id for request_id, _ in made}) == 10_000
    for request_id, span in made:
        assert len(request_id) == 32
        assert request_id.endswith(span)
        assert span != b"0" * 16
        assert request_id[:16] != b"0" * 16
