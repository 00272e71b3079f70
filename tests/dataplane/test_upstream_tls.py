"""TLS to the endpoints: whom it trusts, what a failure is called, what a change of it changes."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from proxy import stats
from proxy.model import WHOLE, PoolTls, Timeouts
from tests.authority import Authority
from tests.dataplane.box import OK, Box, Peer, Scripted, always_ok, until
from tests.dataplane.masked import Masked

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def server(authority: Authority) -> ssl.SSLContext:
    return authority.issue(HOST, "app.test").server()


@pytest.fixture
def trusting(authority: Authority) -> PoolTls:
    return PoolTls(ca=authority.pem)


async def serve(box: Box, tls: PoolTls | None, *members: Scripted | str, **service: Any) -> None:
    await box.apply(box.shop(box.pool("blue", members, WHOLE, tls=tls), **service))


def seen_by(endpoint: Scripted, index: int = -1) -> ssl.SSLObject:
    """The endpoint's side of a connection."""
    found = endpoint.peers[index].writer.get_extra_info("ssl_object")
    assert isinstance(found, ssl.SSLObject)
    return found


# ---- what works ----


async def test_requests_share_a_connection_that_is_as_the_pool_says(
    box: Box, server: ssl.SSLContext, trusting: PoolTls
) -> None:
    heads: list[bytes] = []

    async def play(peer: Peer) -> None:
        while True:
            heads.append(await peer.request())
            await peer.send(OK)

    endpoint = await box.endpoint(play, context=server)
    await serve(box, trusting, endpoint)
    wire = await box.client()
    for _ in range(3):
        answer = await wire.request("/", headers={"Host": "shop.example"})
        assert (answer.status, answer.body) == (200, b"ok")
    assert endpoint.connections == 1
    assert all(b"\r\nHost: shop.example\r\n" in head for head in heads)
    assert seen_by(endpoint).version() == "TLSv1.3"
    assert seen_by(endpoint).selected_alpn_protocol() == "http/1.1"
    assert box.answers(2) == 3


@pytest.mark.parametrize(
    ("server_name", "asked"), [("", None), ("app.test", "app.test"), ("app.test.", "app.test")]
)
async def test_the_name_that_is_asked_for_is_the_configured_one_and_never_an_address(
    box: Box, authority: Authority, server_name: str, asked: str | None
) -> None:
    names: list[str | None] = []
    context = authority.issue(HOST, "app.test").server()
    context.sni_callback = lambda _, name, __: names.append(name)
    endpoint = await box.endpoint(context=context)
    await serve(box, PoolTls(ca=authority.pem, server_name=server_name), endpoint)
    assert (await (await box.client()).request("/")).status == 200
    assert names == [asked]


async def test_an_endpoint_named_by_a_name_is_asked_for_it(box: Box, authority: Authority) -> None:
    names: list[str | None] = []
    context = authority.issue("localhost").server()
    context.sni_callback = lambda _, name, __: names.append(name)
    endpoint = await box.endpoint(context=context)
    port = endpoint.address.rpartition(":")[2]
    await serve(box, PoolTls(ca=authority.pem), f"localhost:{port}")
    assert (await (await box.client()).request("/")).status == 200
    assert names == ["localhost"]


async def test_a_unix_socket_may_speak_tls_too(
    box: Box, server: ssl.SSLContext, authority: Authority, tmp_path: Path
) -> None:
    endpoint = await box.endpoint(host=f"unix:{tmp_path}/app.sock", context=server)
    await serve(box, PoolTls(ca=authority.pem, server_name="app.test"), endpoint)
    assert (await (await box.client()).request("/")).status == 200


async def test_an_endpoint_of_tls_1_2_is_served(
    box: Box, authority: Authority, trusting: PoolTls
) -> None:
    context = authority.issue(HOST).server()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    endpoint = await box.endpoint(context=context)
    await serve(box, trusting, endpoint)
    assert (await (await box.client()).request("/")).status == 200
    assert seen_by(endpoint).version() == "TLSv1.2"


async def test_whoever_wants_no_verification_gets_none(box: Box) -> None:
    endpoint = await box.endpoint(context=Authority().issue("other.test").server())
    await serve(box, PoolTls(verify=False), endpoint)
    assert (await (await box.client()).request("/")).status == 200


async def test_an_intermediate_authority_may_be_the_one_that_is_trusted(
    box: Box, authority: Authority
) -> None:
    intermediate = Authority()
    intermediate.own = authority.own.create_child_ca()
    endpoint = await box.endpoint(context=intermediate.issue(HOST).server())
    comment = "# Zwischenstelle für Prüfungen\n"
    await serve(box, PoolTls(ca=comment + intermediate.pem), endpoint)
    assert (await (await box.client()).request("/")).status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_endpoint_that_wants_a_certificate_gets_ours(
    box: Box, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = authority.issue(HOST).server(clients=authority)
    context.maximum_version = version
    endpoint = await box.endpoint(context=context)
    ours = authority.issue("turnout.test").certificate
    await serve(box, PoolTls(ca=authority.pem, certificate=ours), endpoint)
    assert (await (await box.client()).request("/")).status == 200
    shown = seen_by(endpoint).getpeercert()
    assert shown is not None
    assert shown["subjectAltName"] == (("DNS", "turnout.test"),)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_second_connection_takes_the_session_of_the_first_up(
    box: Box, authority: Authority, trusting: PoolTls, version: ssl.TLSVersion
) -> None:
    context = authority.issue(HOST).server()
    context.maximum_version = version
    reused: list[bool | None] = []

    async def play(peer: Peer) -> None:
        reused.append(peer.writer.get_extra_info("ssl_object").session_reused)
        await always_ok(peer)

    endpoint = await box.endpoint(play, context=context)
    await serve(box, trusting, endpoint)
    wire = await box.client()
    for _ in range(2):
        assert (await wire.request("/")).status == 200
        await until(lambda: box.live(endpoint).idle, "the connection was given back")
        box.live(endpoint).close_idle()
    assert reused == [False, True]


async def test_connections_are_opened_ahead_with_their_handshake(
    box: Box, server: ssl.SSLContext, trusting: PoolTls
) -> None:
    endpoint = await box.endpoint(context=server)
    await serve(box, trusting, endpoint, warm_connections=2)
    assert await box.plane.warm("shop", "blue", 5.0) == 2
    await until(lambda: endpoint.connections == 2, "both are there")
    assert (await (await box.client()).request("/")).status == 200
    assert endpoint.connections == 2


# ---- what fails, and what that is called ----


async def refusal(box: Box, error: str, method: str = "GET") -> str:
    """Ask once: the answer names this error and no more; what the operators are told."""
    answer = await (await box.client()).request("/", method=method)
    assert answer.status == 502
    assert answer.header("proxy-status") == f"turnout; error={error}"
    (note,) = box.notes
    assert note.startswith(f"{error}: ")
    detail = note.removeprefix(f"{error}: ")
    assert detail.encode() not in answer.body
    assert b"certificate" not in answer.body
    return detail


async def test_a_certificate_of_another_name_is_refused(
    box: Box, authority: Authority, trusting: PoolTls
) -> None:
    endpoint = await box.endpoint(context=authority.issue("other.test").server())
    await serve(box, trusting, endpoint)
    detail = await refusal(box, "tls_certificate_error")
    assert detail.startswith("certificate: IP address mismatch")
    assert box.failures("connect") == 1
    assert box.of_endpoint(endpoint, stats.E_FAILURES) == 1
    assert box.of_endpoint(endpoint, stats.E_BAD) == 1


async def test_a_certificate_of_another_authority_is_refused_whoever_is_configured(
    box: Box, server: ssl.SSLContext
) -> None:
    endpoint = await box.endpoint(context=server)
    await serve(box, PoolTls(ca=Authority().pem), endpoint)
    detail = await refusal(box, "tls_certificate_error", "POST")
    assert detail == "certificate: unable to get local issuer certificate"


async def test_without_an_authority_the_systems_are_trusted_and_ours_is_none_of_them(
    box: Box, server: ssl.SSLContext
) -> None:
    endpoint = await box.endpoint(context=server)
    await serve(box, PoolTls(), endpoint)
    assert (await refusal(box, "tls_certificate_error")).startswith("certificate: ")


async def test_an_endpoint_that_speaks_no_tls_is_told_so(box: Box, trusting: PoolTls) -> None:
    async def plain(peer: Peer) -> None:
        await peer.reader.read(100)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await peer.gone()

    endpoint = await box.endpoint(plain)
    await serve(box, trusting, endpoint)
    assert "does it speak TLS?" in await refusal(box, "tls_protocol_error")


async def test_an_endpoint_that_hangs_up_in_the_handshake_is_a_protocol_error(
    box: Box, trusting: PoolTls
) -> None:
    async def hang_up(peer: Peer) -> None:
        await peer.reader.read(100)

    endpoint = await box.endpoint(hang_up)
    await serve(box, trusting, endpoint)
    assert await refusal(box, "tls_protocol_error") == "TLS: closed during the handshake"


async def test_an_alert_is_told_as_what_it_is_though_a_reset_follows_it(
    box: Box, trusting: PoolTls
) -> None:
    alert = bytes.fromhex("15030100020228")  # fatal, handshake_failure

    async def play(peer: Peer) -> None:
        await peer.reader.read(10)  # the rest of the hello stays unread: closing resets
        await peer.send(alert)
        peer.abort()

    endpoint = await box.endpoint(play)
    await serve(box, trusting, endpoint)
    detail = await refusal(box, "tls_alert_received")
    assert detail.startswith("TLS: ")
    assert "alert handshake failure" in detail


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_endpoint_that_misses_our_certificate_says_so_by_an_alert(
    box: Box, authority: Authority, trusting: PoolTls, version: ssl.TLSVersion
) -> None:
    context = authority.issue(HOST).server(clients=authority)
    context.maximum_version = version

    async def play(peer: Peer) -> None:
        await Masked.shake(peer, context)

    endpoint = await box.endpoint(play)
    await serve(box, trusting, endpoint)
    detail = await refusal(box, "tls_alert_received")
    assert "alert" in detail
    assert box.failures("connect") == 1
    assert box.of_endpoint(endpoint, stats.E_BAD) == 1


async def test_a_silent_handshake_takes_no_longer_than_connecting_may(
    box: Box, trusting: PoolTls
) -> None:
    async def silent(peer: Peer) -> None:
        await peer.gone()

    endpoint = await box.endpoint(silent)
    await serve(box, trusting, endpoint, timeouts=Timeouts(connect_s=0.3))
    answer = await (await box.client()).request("/")
    assert answer.status == 504
    assert "connection_timeout" in str(answer.header("proxy-status"))
    await until(endpoint.peers[0].reader.at_eof, "the half-made one is cut")


async def test_a_unix_socket_without_a_name_to_expect_is_not_trusted(
    box: Box, server: ssl.SSLContext, trusting: PoolTls, tmp_path: Path
) -> None:
    endpoint = await box.endpoint(host=f"unix:{tmp_path}/app.sock", context=server)
    await serve(box, trusting, endpoint)
    assert "server_name" in await refusal(box, "tls_protocol_error")


async def test_a_context_that_cannot_be_made_fails_its_own_pool_only(
    box: Box, server: ssl.SSLContext, trusting: PoolTls
) -> None:
    good = await box.endpoint(context=server)
    broken = PoolTls(ca="no certificate at all")
    await box.apply(
        box.shop(
            box.pool("blue", [good.address], 0, tls=broken),
            box.pool("green", [good], WHOLE, tls=trusting),
            active="green",
        )
    )
    assert (await (await box.client()).request("/")).status == 200
    await serve(box, broken, good)
    assert await refusal(box, "tls_protocol_error")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_another_endpoint_has_the_request_when_the_handshake_fails(
    box: Box, authority: Authority, server: ssl.SSLContext, trusting: PoolTls, method: str
) -> None:
    bad = await box.endpoint(context=authority.issue("other.test").server())
    good = await box.endpoint(context=server)
    await serve(box, trusting, bad, good, balance="round_robin")
    wire = await box.client()
    for _ in range(4):
        answer = await wire.request("/", method=method, body=b"x" if method == "POST" else None)
        assert answer.status == 200
    assert box.failures("connect") == 1, "it is then passed over for a second"


async def test_a_pool_that_fails_its_handshake_is_counted_for_each_attempt(
    box: Box, authority: Authority, trusting: PoolTls
) -> None:
    wrong = authority.issue("other.test").server()
    bad = [await box.endpoint(context=wrong) for _ in range(2)]
    await serve(box, trusting, *bad)
    assert (await (await box.client()).request("/")).status == 502
    assert box.failures("connect") == 2
    assert len(box.notes) == 2


async def test_the_next_address_of_a_name_is_tried_when_a_handshake_fails(
    authority: Authority, trusting: PoolTls
) -> None:
    async def resolve(_: str, __: int) -> list[str]:
        return ["127.0.0.1", "127.0.0.2"]

    box = Box(resolve=resolve)
    bad = await box.endpoint(context=authority.issue("other.test").server())
    port = int(bad.address.rpartition(":")[2])
    right = authority.issue("app.test").server()
    good = await box.endpoint(host="127.0.0.2", port=port, context=right)
    await serve(box, trusting, f"app.test:{port}")
    for _ in range(3):
        wire = await box.client()
        assert (await wire.request("/", method="POST", body=b"x")).status == 200
        box.live(f"app.test:{port}").close_idle()
    assert good.connections == 3
    assert box.failures("connect") == 0, "the endpoint as a whole could be reached"
    await box.end()


# ---- changes ----


async def test_after_a_change_new_requests_go_over_new_connections_and_old_ones_finish(
    box: Box, server: ssl.SSLContext, authority: Authority, trusting: PoolTls
) -> None:
    may_answer = asyncio.Event()

    async def play(peer: Peer) -> None:
        while True:
            head = await peer.request()
            if b"/slow" in head:
                await may_answer.wait()
            await peer.send(OK)

    endpoint = await box.endpoint(play, context=server)
    await serve(box, trusting, endpoint)
    slow, quick = await box.client(), await box.client()
    asking = box.loop.create_task(slow.request("/slow"))
    await until(lambda: endpoint.connections == 1, "it is under way")
    await quick.request("/")
    live = box.live(endpoint)
    await until(lambda: (len(live.open), len(live.idle)) == (2, 1), "one is kept")
    await serve(box, PoolTls(ca=authority.pem + "# renewed\n"), endpoint)
    await until(lambda: len(live.open) == 1, "the idle one is closed at once")
    assert (await quick.request("/")).status == 200
    assert endpoint.connections == 3
    may_answer.set()
    assert (await asking).status == 200
    await until(lambda: len(live.open) == 1, "it is not kept")


async def test_a_snapshot_that_says_the_same_keeps_the_connections(
    box: Box, server: ssl.SSLContext, authority: Authority
) -> None:
    endpoint = await box.endpoint(context=server)
    await serve(box, PoolTls(ca=authority.pem), endpoint)
    wire = await box.client()
    for _ in range(3):
        await serve(box, PoolTls(ca=authority.pem), endpoint)
        assert (await wire.request("/")).status == 200
    assert endpoint.connections == 1


async def test_a_pool_may_get_tls_and_lose_it(
    box: Box, server: ssl.SSLContext, trusting: PoolTls
) -> None:
    async def either(peer: Peer) -> None:
        first = await peer.reader.readexactly(1)
        peer.reader._buffer[:0] = first  # type: ignore[attr-defined] # it has no way to look ahead
        if first == b"\x16":
            masked = await Masked.shake(peer, server)
            while await masked.head():
                await masked.send(OK)
        await always_ok(peer)

    endpoint = await box.endpoint(either)
    for tls in (None, trusting, None):
        await serve(box, tls, endpoint)
        assert (await (await box.client()).request("/")).status == 200
    assert endpoint.connections == 3


async def test_what_was_connecting_during_a_change_is_not_kept(
    box: Box, server: ssl.SSLContext, authority: Authority, trusting: PoolTls
) -> None:
    may_shake = asyncio.Event()

    async def play(peer: Peer) -> None:
        await may_shake.wait()
        masked = await Masked.shake(peer, server)
        while await masked.head():
            await masked.send(OK)

    endpoint = await box.endpoint(play)
    await serve(box, trusting, endpoint)
    wire = await box.client()
    asking = box.loop.create_task(wire.request("/"))
    await until(lambda: endpoint.connections == 1, "it connects")
    await serve(box, PoolTls(ca=authority.pem, server_name="app.test"), endpoint)
    may_shake.set()
    assert (await asking).status == 200
    await until(lambda: not box.live(endpoint).open, "it is closed behind its request")
    assert box.live(endpoint).session is None, "nor is its session"
