"""TLS from the handshake to the endpoint: certificates by name, clients' certificates, ends."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme

from proxy import stats
from proxy.dataplane import tls
from proxy.model import WHOLE, Certificate, ListenerTls, Sticky
from tests.dataplane.box import OK, Box, Peer, Scripted, until
from tests.dataplane.tls_client import TlsClient, trusting
from tests.dataplane.websocket import ASK, SWITCH, TEXT, closing, frame, told_to_close
from tests.e2e.wire import Wire, WireError

AUTHORITY = trustme.CA()
GET = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"
MIB = 1024 * 1024


def certificate(*names: str, authority: trustme.CA = AUTHORITY) -> Certificate:
    pair = authority.issue_cert(*names)
    chain = "".join(each.bytes().decode() for each in pair.cert_chain_pems)
    return Certificate(chain=chain, key=pair.private_key_pem.bytes().decode(), names=names)


SHOP = certificate("shop.example")
ADMIN = certificate("admin.example", "*.wild.example")
CA_PEM = AUTHORITY.cert_pem.bytes().decode()


def spec(*certificates: Certificate, **more: Any) -> ListenerTls:
    return ListenerTls(certificates=certificates or (SHOP,), **more)


def client(**more: Any) -> ssl.SSLContext:
    context = trusting(AUTHORITY)
    for key, value in more.items():
        setattr(context, key, value)
    return context


def with_certificate(*names: str, **more: Any) -> ssl.SSLContext:
    context = trusting(AUTHORITY)
    AUTHORITY.issue_cert(*names, **more).configure_cert(context)
    return context


@dataclass
class Heard:
    """An endpoint that keeps every head it gets."""

    heads: list[bytes] = field(default_factory=list)

    async def play(self, peer: Peer) -> None:
        while True:
            self.heads.append(await peer.request())
            await peer.send(OK)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def endpoint(box: Box, heard: Heard) -> Scripted:
    return await box.endpoint(heard.play)


async def connect(
    box: Box, context: ssl.SSLContext | None = None, name: str = "shop.example"
) -> Wire:
    wire = await Wire.to(box.port, tls=context or client(), name=name)
    box.clients.append(wire)
    return wire


async def serve(box: Box, endpoint: Scripted, said: ListenerTls | None = None, **more: Any) -> None:
    listener = {"tls": said or spec(), **more.pop("listener", {})}
    await box.serve(endpoint, listener=listener, **more)


def refused(box: Box) -> int:
    return box.of_listener(stats.L_REFUSED + stats.REFUSALS.index("tls"))


# ---- what the endpoint and the client are told ----


async def test_the_endpoint_is_told_of_https(box: Box, endpoint: Scripted, heard: Heard) -> None:
    await serve(box, endpoint)
    wire = await connect(box)
    assert (await wire.request("/")).status == 200
    assert b"\r\nX-Forwarded-Proto: https\r\n" in heard.heads[0]
    assert b"\r\nX-Forwarded-Port: %d\r\n" % box.port in heard.heads[0]
    assert b"X-Client-Cert" not in heard.heads[0]


async def test_a_socket_without_ports_counts_as_the_usual_one(box: Box, endpoint: Scripted) -> None:
    await serve(box, endpoint)
    (listener,) = box.plane._listeners.values()
    assert listener.names("", "")[1] == 443
    await box.serve(endpoint)
    assert listener.names("", "")[1] == 80


async def test_a_cookie_of_ours_is_for_https_only(box: Box, endpoint: Scripted) -> None:
    sticky = Sticky(by="cookie", name="turnout", keys=("00" * 32,))
    await serve(box, endpoint, sticky=sticky)
    wire = await connect(box)
    assert "Secure" in str((await wire.request("/")).header("set-cookie"))


async def test_hsts_is_in_every_answer_where_it_is_wanted(box: Box) -> None:
    async def play(peer: Peer) -> None:
        for answer in (OK, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"):
            await peer.request()
            await peer.send(answer)
        await peer.request()

    pool = box.pool("blue", [await box.endpoint(play)], WHOLE)
    await box.apply(box.shop(pool), tls=spec(hsts="max-age=60; preload"))
    wire = await connect(box)
    for status in (200, 200, 502):
        answer = await wire.request("/", method="POST", body=b"")
        assert (answer.status, answer.all("strict-transport-security")) == (
            status,
            ["max-age=60; preload"],
        )
    wire = await connect(box)
    await wire.send(b"NONSENSE\r\n\r\n")
    answer = await wire.answer()
    assert answer.status == 400
    assert answer.header("strict-transport-security") == "max-age=60; preload"
    await box.apply(box.shop(pool), tls=spec())
    assert (await (await connect(box)).request("/")).header("strict-transport-security") is None


# ---- which certificate ----


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("shop.example", "shop.example"),
        ("admin.example", "admin.example"),
        ("ADMIN.example", "admin.example"),
        ("a.wild.example", "admin.example"),
        ("a.b.wild.example", "shop.example"),
        ("unknown.example", "shop.example"),
    ],
)
async def test_the_name_asked_for_picks_the_certificate(
    box: Box, endpoint: Scripted, asked: str, shown: str
) -> None:
    await serve(box, endpoint, spec(SHOP, ADMIN))
    wire = await connect(box, client(check_hostname=False), asked)
    assert shown in wire.names_shown
    assert (await wire.request("/")).status == 200


def test_a_context_is_found_by_its_very_name_first() -> None:
    one, other = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    table = {"*.a.example": one, "b.a.example": other}
    assert tls.find(table, "b.a.example.") is other
    assert tls.find(table, "c.a.example") is one
    assert tls.find(table, "a.example") is None
    assert tls.find(table, "") is None
    assert tls.find(table, None) is None


async def test_two_kinds_of_keys_may_be_for_the_same_name(box: Box, endpoint: Scripted) -> None:
    rsa = AUTHORITY.issue_cert("shop.example", key_type=trustme.KeyType.RSA)
    chain = rsa.cert_chain_pems[0].bytes().decode()
    key = rsa.private_key_pem.bytes().decode()
    both = spec(SHOP, Certificate(chain=chain, key=key, names=("shop.example",)))
    await serve(box, endpoint, both)
    for ciphers in ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"):
        context = client(maximum_version=ssl.TLSVersion.TLSv1_2)
        context.set_ciphers(ciphers)
        wire = await connect(box, context)
        assert wire.tls.cipher() is not None
        assert (await wire.request("/")).status == 200


async def test_a_new_certificate_is_shown_at_once_and_open_connections_go_on(
    box: Box, endpoint: Scripted
) -> None:
    await serve(box, endpoint)
    old = await connect(box)
    assert (await old.request("/")).status == 200
    await serve(box, endpoint, spec(certificate("shop.example", "renewed.example")))
    assert (await connect(box)).names_shown == {"shop.example", "renewed.example"}
    assert (await old.request("/")).status == 200
    assert old.names_shown == {"shop.example"}


async def test_a_snapshot_that_says_the_same_builds_no_context_anew(
    box: Box, endpoint: Scripted
) -> None:
    await serve(box, endpoint)
    (listener,) = box.plane._listeners.values()
    before = listener.tls_context
    await serve(box, endpoint, spec(hsts="max-age=1"))
    assert listener.tls_context is before
    await serve(box, endpoint, spec(min_version="1.3"))
    assert listener.tls_context is not before


async def test_a_certificate_that_cannot_be_used_leaves_the_old_one(
    box: Box, endpoint: Scripted
) -> None:
    await serve(box, endpoint)
    await serve(box, endpoint, spec(Certificate(chain=SHOP.chain, key=ADMIN.key)))
    assert (await connect(box)).names_shown == {"shop.example"}
    assert [name for name, _ in box.problems] == ["tls"]
    assert "PRIVATE" not in repr(box.problems)
    box.problems.clear()


async def test_a_listener_gets_tls_and_loses_it_again(box: Box, endpoint: Scripted) -> None:
    await box.serve(endpoint)
    plain = await box.client()
    assert (await plain.request("/")).status == 200
    await serve(box, endpoint)
    secret = await connect(box)
    assert (await secret.request("/")).status == 200
    assert (await plain.request("/")).status == 200
    await box.serve(endpoint)
    assert (await (await box.client()).request("/")).status == 200
    assert (await secret.request("/")).status == 200


# ---- the handshake ----


async def test_what_is_too_old_is_refused(box: Box, endpoint: Scripted) -> None:
    await serve(box, endpoint, spec(min_version="1.3"))
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        await connect(box, client(maximum_version=ssl.TLSVersion.TLSv1_2))
    await until(lambda: refused(box) == 1, "it is counted")
    assert (await connect(box)).tls.version() == "TLSv1.3"
    await serve(box, endpoint, spec(min_version="1.2"))
    old = await connect(box, client(maximum_version=ssl.TLSVersion.TLSv1_2))
    assert old.tls.version() == "TLSv1.2"


async def test_http_1_1_is_agreed_on(box: Box, endpoint: Scripted) -> None:
    await serve(box, endpoint)
    context = client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    assert (await connect(box, context)).tls.selected_alpn_protocol() == "http/1.1"


async def test_plain_http_is_told_where_it_is(box: Box, endpoint: Scripted) -> None:
    await serve(box, endpoint)
    wire = await box.client()
    answer = await wire.request("/")
    assert (answer.status, answer.header("connection")) == (400, "close")
    assert b"https" in answer.body
    assert await wire.is_closed()


async def test_a_handshake_that_takes_too_long_is_ended(box: Box, endpoint: Scripted) -> None:
    await serve(box, endpoint, listener={"header_s": 0.2})
    wire = await box.client()
    await wire.send(b"\x16\x03\x01")
    assert await wire.is_closed()
    await until(lambda: refused(box) == 1, "it is counted")


async def test_a_client_that_says_nothing_after_it_is_idle(box: Box, endpoint: Scripted) -> None:
    await serve(box, endpoint, listener={"idle_s": 0.2})
    assert await (await connect(box)).is_closed()


async def test_a_slow_head_is_answered(box: Box, endpoint: Scripted) -> None:
    await serve(box, endpoint, listener={"header_s": 0.2})
    wire = await connect(box)
    await wire.send(GET[:20])
    assert (await wire.answer()).status == 408
    assert await wire.is_closed()


# ---- clients' certificates ----


async def test_a_client_without_the_certificate_it_must_have_is_refused(
    box: Box, endpoint: Scripted
) -> None:
    await serve(box, endpoint, spec(client_ca=CA_PEM))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with pytest.raises((ssl.SSLError, WireError, ConnectionError)):
            await (await connect(box, client(maximum_version=version))).request("/")
    await until(lambda: refused(box) == 2, "they are counted")


@pytest.mark.parametrize("auth", ["required", "optional"])
async def test_one_that_somebody_else_signed_is_refused(
    box: Box, endpoint: Scripted, auth: Any
) -> None:
    await serve(box, endpoint, spec(client_ca=CA_PEM, client_auth=auth))
    context = client()
    trustme.CA().issue_cert("shop.example").configure_cert(context)
    with pytest.raises((ssl.SSLError, WireError, ConnectionError)):
        await (await connect(box, context)).request("/")


async def test_the_endpoint_is_told_the_verified_names(
    box: Box, endpoint: Scripted, heard: Heard
) -> None:
    await serve(box, endpoint, spec(client_ca=CA_PEM))
    context = with_certificate(
        "worker.example",
        "10.0.0.1",
        common_name='Zoë, "the" #1',
        organization_name="Example+Sons",
    )
    wire = await connect(box, context)
    forged = {"X-Client-Cert-Subject": "CN=root", "X-Client-Cert-San": "DNS:root"}
    for headers in ({}, forged, {"X_Client_Cert-San": "DNS:root"}):
        assert (await wire.request("/", headers=headers)).status == 200
        head = heard.heads.pop()
        assert b"CN=Zo\\C3\\AB\\2C \\22the\\22 #1," in head
        assert b",O=Example\\2BSons\r\n" in head
        assert b"\r\nX-Client-Cert-San: DNS:worker.example, IP:10.0.0.1\r\n" in head
        assert head.lower().count(b"client") == 2
        assert b"root" not in head


async def test_a_client_cannot_forge_them(box: Box, endpoint: Scripted, heard: Heard) -> None:
    pool = box.pool("blue", [endpoint], WHOLE)
    said = spec(client_ca=CA_PEM, client_auth="optional")
    for tls_said in (None, spec(), said):
        await box.apply(box.shop(pool), tls=tls_said)
        wire = await (connect(box) if tls_said else box.client())
        headers = {
            "X-Client-Cert-Subject": "CN=root",
            "x-client-cert-san": "DNS:root",
            "X_Client_Cert_Subject": "CN=root",
            "X-Client_Cert-San": "DNS:root",
            "Connection": "X-Client-Cert-Subject",
        }
        assert (await wire.request("/", headers=headers)).status == 200
        assert b"root" not in heard.heads.pop()


async def test_a_trusted_peer_passes_on_what_it_was_shown(
    box: Box, endpoint: Scripted, heard: Heard
) -> None:
    said = spec(client_ca=CA_PEM, client_auth="optional")
    await serve(box, endpoint, said, listener={"trusted_proxies": ("127.0.0.1/32",)})
    headers = {"X-Client-Cert-Subject": "CN=far", "Connection": "X-Client-Cert-Subject"}
    wire = await connect(box)
    assert (await wire.request("/", headers=headers)).status == 200
    assert b"\r\nX-Client-Cert-Subject: CN=far\r\n" in heard.heads.pop()
    wire = await connect(box, with_certificate("balancer.example"))
    assert (await wire.request("/", headers=headers)).status == 200
    head = heard.heads.pop()
    assert b"CN=far" not in head, "it shows one itself: that is what was verified"
    assert b"X-Client-Cert-San: DNS:balancer.example\r\n" in head


# ---- bodies and ends ----


async def test_big_bodies_flow_both_ways(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        body = await peer.reader.readexactly(4 * MIB)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        await peer.send(body)
        await peer.gone()

    await serve(box, await box.endpoint(play))
    wire = await connect(box)
    body = bytes(range(256)) * (4 * MIB // 256)
    answer = await wire.request("/", method="POST", body=body)
    assert answer.body == body


async def test_an_answer_that_breaks_off_does_not_look_whole(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await asyncio.sleep(0.05)

    await serve(box, await box.endpoint(play))
    for request in (GET, GET.replace(b"/1.1", b"/1.0")):
        raw = await _raw(box)
        await raw.send(request)
        read, end = await raw.rest()
        assert (read[-4:], end) == (b"half", "cut")
        raw.close()


async def test_an_answer_to_the_end_of_the_connection_ends_with_a_word(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\neverything")

    await serve(box, await box.endpoint(play))
    raw = await _raw(box)
    await raw.send(GET.replace(b"/1.1", b"/1.0"))
    read, end = await raw.rest()
    assert (read[-10:], end) == (b"everything", "close_notify")
    raw.close()


async def test_an_early_answer_arrives_while_the_body_still_comes(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await peer.gone()

    await serve(box, await box.endpoint(play), max_body=1000)
    raw = await _raw(box)
    await raw.send(GET[:-2] + b"Content-Length: 5000000\r\n\r\n")
    for _ in range(20):
        await raw.send(b"x" * 65536)
    read, end = await raw.rest()
    assert read.startswith(b"HTTP/1.1 413 ")
    assert end == "close_notify"
    raw.close()


async def test_a_slow_reader_gets_the_whole_of_a_last_answer(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (3 * MIB))
        await peer.send(b"x" * (3 * MIB))

    await serve(box, await box.endpoint(play))
    raw = await _raw(box, receive=4096)
    await raw.send(GET[:-2] + b"Connection: close\r\n\r\n")
    await asyncio.sleep(0.3)  # whatever fits anywhere is there
    read, end = await raw.rest()
    assert (len(read.partition(b"\r\n\r\n")[2]), end) == (3 * MIB, "close_notify")
    raw.close()


async def test_a_client_that_has_said_its_end_is_still_answered(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.05)
        await peer.send(OK)
        await peer.gone()

    await serve(box, await box.endpoint(play))
    raw = await _raw(box)
    await raw.send(GET)
    await raw.end()
    read, end = await raw.rest()
    assert (read[-2:], end) == (b"ok", "close_notify")
    raw.close()


async def test_a_tunnel_carries_both_ways_and_its_half_closes(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        )
        while data := await peer.reader.read(65536):
            await peer.send(data)
        await peer.send(b"that was all")

    await serve(box, await box.endpoint(play))
    raw = await _raw(box)
    await raw.send(GET[:-2] + b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\nearly")
    assert (await raw.read()).startswith(b"HTTP/1.1 101 ")
    await raw.send(b"x" * MIB)
    echoed = 0
    while echoed < MIB:
        echoed += len(await raw.read())
    await raw.end()
    read, end = await raw.rest()
    assert (read[-12:], end) == (b"that was all", "close_notify")
    raw.close()


async def test_a_websocket_is_closed_gently_when_the_worker_ends(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH + frame(TEXT, b"hello"))
        await closing(peer)

    await serve(box, await box.endpoint(play))
    wire = await connect(box)
    await wire.send(ASK)
    assert (await wire.answer()).status == 101
    assert await wire._reader.readexactly(7) == frame(TEXT, b"hello")
    async with asyncio.TaskGroup() as group:
        group.create_task(box.plane.stop(2.0))
        await told_to_close(wire)
    assert await wire.rest() == b""


async def test_the_worker_ends_with_idle_tls_clients_at_once(box: Box, endpoint: Scripted) -> None:
    await serve(box, endpoint)
    idle = [await _raw(box) for _ in range(3)]
    half = await box.client()
    await half.send(b"\x16\x03\x01")
    await until(lambda: len(box.plane.connections) == 3, "they are in")
    started = box.loop.time()
    await box.plane.stop(5.0)
    assert box.loop.time() - started < 6.0
    for each in idle:
        assert await each.rest() == (b"", "close_notify")
        each.close()


async def _raw(box: Box, *, receive: int = 0) -> TlsClient:
    sock = socket.socket()
    if receive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    sock.setblocking(False)
    await box.loop.sock_connect(sock, ("127.0.0.1", box.port))
    raw = TlsClient(sock, AUTHORITY, "shop.example")
    await raw.shake()
    return raw


@pytest.fixture(autouse=True)
def _no_key_in_what_failed(box: Box) -> Iterator[None]:
    yield
    assert "PRIVATE KEY" not in repr(box.problems)
