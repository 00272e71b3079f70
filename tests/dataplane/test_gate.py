"""The gate: who may come in, after which header or handshake, in which time and number."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from proxy import stats
from proxy.dataplane import gate
from proxy.dataplane.listener import ListenerLive
from proxy.model import WHOLE, AccessLog, Certificate, ListenerTls, Snapshot
from proxy.tasks import spawn
from tests.dataplane.box import OK, Box, Peer, Scripted, until
from tests.e2e.wire import Wire

V1 = b"PROXY TCP4 203.0.113.9 198.51.100.1 40000 443\r\n"
V1_IPV6 = b"PROXY TCP6 2001:db8::9 2001:db8::1 40000 8443\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
FORGED = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.66\r\n\r\n"
BEHIND = {"proxy_protocol": True, "trusted_proxies": ("127.0.0.1/32",)}


def v2(body: bytes, *, command: int = 0x21, family: int = 0x11) -> bytes:
    head = b"\r\n\r\n\x00\r\nQUIT\n" + bytes([command, family])
    return head + len(body).to_bytes(2) + body


IPV4 = bytes([203, 0, 113, 9, 198, 51, 100, 1]) + struct.pack("!HH", 40_000, 443)
V2 = v2(IPV4)
V2_LOCAL = v2(b"", command=0x20, family=0)
V2_UNKNOWN = v2(b"", family=0)
V2_TLS = v2(IPV4 + b"\x20\x00\x05\x01\x00\x00\x00\x00")
NAMES = {V1: "v1", V2: "v2", V1_IPV6: "v1 of IPv6", V2_LOCAL: "local", V2_UNKNOWN: "unknown"}


def listener_of(box: Box) -> ListenerLive:
    (found,) = box.plane._listeners.values()
    return found


def refused(box: Box, reason: str) -> int:
    return box.of_listener(stats.L_REFUSED + stats.REFUSALS.index(reason))


class Recorder:
    """A script that answers, and keeps the heads it gets."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.endpoint: Scripted

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.heads.append(await peer.request())
            await peer.send(OK)

    async def seen(self, wire: Wire) -> bytes:
        """The head that the endpoint got for the request that was sent on `wire`."""
        assert (await wire.answer()).status == 200
        return self.heads[-1]


@pytest.fixture
async def recorder(box: Box) -> Recorder:
    made = Recorder()
    made.endpoint = await box.endpoint(made)
    return made


# ---- PROXY protocol ----


@pytest.mark.parametrize(
    ("header", "address", "port"),
    [
        (V1, b"203.0.113.9", b"443"),
        (V2, b"203.0.113.9", b"443"),
        (V1_IPV6, b"2001:db8::9", b"8443"),
    ],
    ids=NAMES.get,
)
async def test_the_source_said_by_a_trusted_peer_is_the_client(
    box: Box, recorder: Recorder, header: bytes, address: bytes, port: bytes
) -> None:
    await box.serve(recorder.endpoint, listener=BEHIND)
    for step in (1, 7, 10_000):
        wire = await box.client()
        whole = header + GET
        for start in range(0, len(whole), step):
            await wire.send(whole[start : start + step])
            await asyncio.sleep(0)
        head = await recorder.seen(wire)
        assert b"\r\nX-Forwarded-For: %b\r\n" % address in head
        assert b"\r\nX-Forwarded-Port: %b\r\n" % port in head
        assert b"\r\nX-Forwarded-Proto: http\r\n" in head
        assert b"PROXY" not in head
        await wire.send(GET)
        assert b"\r\nX-Forwarded-For: %b\r\n" % address in await recorder.seen(wire)
        (connection,) = [each for each in box.plane.connections if each.transport]
        assert connection.origin.address == address.decode()
        wire.close()
        await until(lambda: not box.plane.connections, "it is forgotten")


async def test_a_client_that_came_by_tls_to_the_balancer_came_by_tls(
    box: Box, recorder: Recorder
) -> None:
    await box.serve(recorder.endpoint, listener=BEHIND)
    wire = await box.client()
    await wire.send(V2_TLS + GET)
    assert b"\r\nX-Forwarded-Proto: https\r\n" in await recorder.seen(wire)


async def test_the_source_is_trusted_only_if_it_is_listed_itself(
    box: Box, recorder: Recorder
) -> None:
    await box.serve(recorder.endpoint, listener=BEHIND)
    wire = await box.client()
    await wire.send(V1 + FORGED)
    assert b"\r\nX-Forwarded-For: 203.0.113.9\r\n" in await recorder.seen(wire)
    chain = {**BEHIND, "trusted_proxies": ("127.0.0.1/32", "203.0.113.0/24")}
    await box.serve(recorder.endpoint, listener=chain)
    wire = await box.client()
    await wire.send(V1 + FORGED)
    assert b"\r\nX-Forwarded-For: 192.0.2.66, 203.0.113.9\r\n" in await recorder.seen(wire)


async def test_a_balancer_that_speaks_for_itself_is_the_client(
    box: Box, recorder: Recorder
) -> None:
    await box.serve(recorder.endpoint, listener=BEHIND)
    wire = await box.client()
    await wire.send(V2_LOCAL + FORGED)
    assert b"\r\nX-Forwarded-For: 192.0.2.66, 127.0.0.1\r\n" in await recorder.seen(wire)


@pytest.mark.parametrize("header", [V2_UNKNOWN, b"PROXY UNKNOWN\r\n"], ids=["v2", "v1"])
async def test_somebody_unknown_behind_the_balancer_is_not_believed(
    box: Box, recorder: Recorder, header: bytes
) -> None:
    await box.serve(recorder.endpoint, listener=BEHIND)
    wire = await box.client()
    await wire.send(header + FORGED)
    assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in await recorder.seen(wire)


async def test_others_than_trusted_peers_are_ordinary_clients(box: Box, recorder: Recorder) -> None:
    listener = {"proxy_protocol": True, "trusted_proxies": ("192.0.2.0/24",)}
    await box.serve(recorder.endpoint, listener=listener)
    wire = await box.client()
    await wire.send(FORGED)
    assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in await recorder.seen(wire)
    for header in (V1, V2):
        wire = await box.client()
        await wire.send(header + GET)
        assert (await wire.answer()).status == 400
    assert len(recorder.heads) == 1


@pytest.mark.parametrize(
    "said",
    [GET, b"PROXY TCP4 1.2.3.4\r\n" + GET, V2[:-1] + b"\x00" + b"\x16\x03", V1[:-2] + b"\n" + GET],
    ids=["none", "a short one", "one byte behind it", "a bare LF"],
)
async def test_without_a_valid_header_a_trusted_peer_gets_no_answer(
    box: Box, recorder: Recorder, said: bytes
) -> None:
    is_valid = said.startswith(V2[:-1])
    await box.serve(recorder.endpoint, listener=BEHIND)
    wire = await box.client()
    await wire.send(said)
    if is_valid:  # what follows a valid header is judged as HTTP
        assert (await wire.answer()).status == 400
        return
    assert await ending(wire) == b""
    assert refused(box, "proxy_protocol") == 1
    assert box.of_listener(stats.L_ACCEPTED) == 0
    assert recorder.heads == []


@pytest.mark.parametrize("said", [b"", V1[:-1], V2[:3], V2[:-1]])
async def test_a_header_that_is_late_or_cut_off_is_not_waited_for(box: Box, said: bytes) -> None:
    await box.serve(await box.endpoint(), listener={**BEHIND, "header_s": 0.3})
    late, cut = await box.client(), await box.client()
    await late.send(said)
    await cut.send(said)
    cut.finish()
    assert await ending(cut) == b""
    assert await ending(late) == b""
    assert refused(box, "proxy_protocol") == 2
    assert listener_of(box).open == 0


async def test_a_header_in_pieces_is_waited_for_without_spinning(
    box: Box, recorder: Recorder
) -> None:
    await box.serve(recorder.endpoint, listener=BEHIND)
    wire = await box.client()
    await wire.send(V1[:20])
    await until(lambda: listener_of(box).entering, "it is in the gate")
    began_s = time.process_time()
    await asyncio.sleep(0.3)
    assert time.process_time() - began_s < 0.15
    await wire.send(V1[20:] + GET)
    await recorder.seen(wire)


async def test_the_access_log_names_the_source(
    box: Box, recorder: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    shop = box.shop(box.pool("blue", [recorder.endpoint], WHOLE))
    await box.apply(shop, access_log=AccessLog(path=str(path)), **BEHIND)
    wire = await box.client()
    await wire.send(V1 + GET)
    await recorder.seen(wire)
    await until(lambda: "203.0.113.9" in path.read_text(), "the line is written")


async def is_reset(box: Box) -> None:
    """Connect, say nothing, and wait to be reset."""
    with socket.create_connection(("127.0.0.1", box.port)) as sock:
        sock.setblocking(False)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(box.loop.sock_recv(sock, 100), 20)


async def ending(wire: Wire) -> bytes:
    """What still comes before the connection ends; being reset is an end too."""
    try:
        return await wire.rest()
    except ConnectionResetError:
        return b""


# ---- how many, how long ----


async def test_one_that_stands_in_the_way_leaves_for_one_that_comes(
    box: Box, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MOST_ENTERING", 2)
    monkeypatch.setattr(gate, "SLOW_S", 0.3)
    await box.serve(recorder.endpoint, listener=BEHIND)
    first, second = await box.client(), await box.client()
    await until(lambda: listener_of(box).entering == 2, "both are in the gate")
    third = await box.client()
    await third.send(V1 + GET)
    await recorder.seen(third)
    assert await ending(first) == b"", "the oldest had to go"
    assert refused(box, "gate") == 1
    await second.send(V1 + GET)
    await recorder.seen(second)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """As if all were in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in os.scandir("/proc/self/fd"))
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        while True:
            try:
                held.append(os.dup(0))
            except OSError:
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in held:
            os.close(each)


async def test_without_a_descriptor_nothing_is_accepted_and_nothing_spins(
    box: Box, recorder: Recorder
) -> None:
    await box.serve(recorder.endpoint, listener=BEHIND)
    sock = socket.socket()
    sock.setblocking(False)
    with no_descriptors():
        await box.loop.sock_connect(sock, ("127.0.0.1", box.port))
        await until(lambda: box.of_listener(stats.L_PAUSES), "the pause is counted")
        await asyncio.sleep(0.25)
        assert box.of_listener(stats.L_PAUSES) < 6
    wire = Wire(*await asyncio.open_connection(sock=sock))
    box.clients.append(wire)
    await wire.send(V1 + GET)
    await recorder.seen(wire)


async def test_over_the_limit_a_connection_is_reset_before_a_byte_is_read(
    box: Box, recorder: Recorder
) -> None:
    await box.serve(recorder.endpoint, listener={**BEHIND, "max_connections": 1})
    first = await box.client()
    await first.send(V1 + GET)
    await recorder.seen(first)
    await is_reset(box)
    assert refused(box, "limit") == 1
    first.close()
    await until(lambda: not listener_of(box).open, "there is room again")
    third = await box.client()
    await third.send(V1 + GET)
    await recorder.seen(third)


async def test_a_client_behind_the_balancer_has_its_own_limit(box: Box, recorder: Recorder) -> None:
    await box.serve(recorder.endpoint, listener={**BEHIND, "max_per_client": 1})
    first, second, other = [await box.client() for _ in range(3)]
    await first.send(V1 + GET)
    await recorder.seen(first)
    await second.send(V2 + GET)
    assert (await second.answer()).status == 429
    assert refused(box, "client_limit") == 1
    await other.send(V1_IPV6 + GET)
    await recorder.seen(other)
    for _ in range(3):  # the balancer stands for many
        itself = await box.client()
        await itself.send(V2_LOCAL + GET)
        await recorder.seen(itself)
    first.close()
    await until(lambda: listener_of(box).open == 4, "there is room again")
    again = await box.client()
    await again.send(V2 + GET)
    await recorder.seen(again)
    assert refused(box, "proxy_protocol") == 0


# ---- changes, and the end ----


async def test_a_listener_can_begin_and_cease_to_ask_for_headers(
    box: Box, recorder: Recorder
) -> None:
    await box.serve(recorder.endpoint)
    plain = await box.client()
    await plain.send(GET)
    await recorder.seen(plain)
    await box.serve(recorder.endpoint, listener=BEHIND)
    behind = await box.client()
    await behind.send(V1 + GET)
    assert b"203.0.113.9" in await recorder.seen(behind)
    await box.serve(recorder.endpoint)
    for wire in (plain, behind, await box.client()):
        await wire.send(GET)
        await recorder.seen(wire)


async def test_who_is_queued_when_the_way_of_accepting_changes_is_served(
    box: Box, recorder: Recorder
) -> None:
    await box.serve(recorder.endpoint, listener=BEHIND)
    sock = socket.create_connection(("127.0.0.1", box.port))  # the loop has no turn to accept it
    sock.sendall(GET)
    await box.serve(recorder.endpoint)
    sock.setblocking(False)
    wire = Wire(*await asyncio.open_connection(sock=sock))
    box.clients.append(wire)
    await recorder.seen(wire)


async def test_who_is_queued_or_entering_when_a_listener_goes_is_served(
    box: Box, recorder: Recorder
) -> None:
    await box.serve(recorder.endpoint, listener=BEHIND)
    entering = await box.client()
    await entering.send(V1[:5])
    await until(lambda: listener_of(box).entering, "it is in the gate")
    sock = socket.create_connection(("127.0.0.1", box.port))
    sock.sendall(V2 + GET)
    shop = box.shop(box.pool("blue", [recorder.endpoint], WHOLE))
    await box.plane.apply(Snapshot(revision=100, services=(shop,)), {})
    sock.setblocking(False)
    queued = Wire(*await asyncio.open_connection(sock=sock))
    await entering.send(V1[5:] + GET)
    for wire in (queued, entering):
        answer = await wire.answer()
        assert answer.status == 200
        assert answer.closes
        wire.close()
    await until(lambda: not box.plane.connections, "they are forgotten")


async def test_the_end_waits_for_those_who_are_entering_as_for_requests(
    box: Box, recorder: Recorder
) -> None:
    await box.serve(recorder.endpoint, listener={**BEHIND, "header_s": 1.0})
    talking, silent, idle = [await box.client() for _ in range(3)]
    await until(lambda: listener_of(box).entering == 3, "they are in the gate")
    stopping = spawn(box.plane.stop(20.0), name="stop", report=lambda *_: None)
    await until(lambda: not box.plane._listeners, "the listener is closed")
    await idle.send(V1)
    await talking.send(V1 + GET)
    assert b"203.0.113.9" in await recorder.seen(talking)
    assert await ending(silent) == b""
    assert (await idle.answer()).status == 408
    idle.close()
    async with asyncio.timeout(20):
        await stopping


async def test_at_once_means_at_once_for_those_who_are_entering(box: Box) -> None:
    await box.serve(await box.endpoint(), listener=BEHIND)
    wire = await box.client()
    await until(lambda: listener_of(box).entering, "it is in the gate")
    await box.plane.stop(0)
    assert await ending(wire) == b""


# ---- TLS ----


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def serve_tls(box: Box, endpoint: Scripted, authority: trustme.CA, **listener: Any) -> None:
    issued = authority.issue_cert("a", "127.0.0.1")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems).decode()
    key = issued.private_key_pem.bytes().decode()
    tls = ListenerTls(certificates=(Certificate(chain=chain, key=key),))
    await box.serve(endpoint, listener={"tls": tls, **listener})
    if listener_of(box).tls_context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        listener_of(box).tls_context = context


async def tls_client(box: Box, authority: trustme.CA, header: bytes = b"") -> Wire:
    """A client that speaks TLS after `header`."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    sock = socket.create_connection(("127.0.0.1", box.port))
    sock.sendall(header)
    sock.setblocking(False)
    wire = Wire(*await asyncio.open_connection(sock=sock, ssl=context, server_hostname="a"))
    box.clients.append(wire)
    return wire


async def test_tls_begins_after_the_proxy_header(
    box: Box, recorder: Recorder, authority: trustme.CA
) -> None:
    await serve_tls(box, recorder.endpoint, authority, **BEHIND)
    wire = await tls_client(box, authority, V2)
    await wire.send(GET)
    head = await recorder.seen(wire)
    assert b"\r\nX-Forwarded-For: 203.0.113.9\r\n" in head
    assert b"\r\nX-Forwarded-Proto: https\r\n" in head


@pytest.mark.parametrize(
    "said", [b"", b"\x16\x03\x01", b"SSH-2.0-"], ids=["silence", "a part", "SSH"]
)
async def test_a_handshake_that_fails_or_is_late_ends_the_connection(
    box: Box, authority: trustme.CA, said: bytes
) -> None:
    await serve_tls(box, await box.endpoint(), authority, header_s=0.3)
    wire = await box.client()
    await wire.send(said)
    await ending(wire)
    await until(lambda: refused(box, "tls") == 1, "it is counted")
    await until(lambda: not listener_of(box).open, "it is forgotten")
    assert box.of_listener(stats.L_ACCEPTED) == 0


async def test_a_client_over_its_limit_costs_no_handshake(
    box: Box, recorder: Recorder, authority: trustme.CA
) -> None:
    await serve_tls(box, recorder.endpoint, authority, max_per_client=1)
    first = await tls_client(box, authority)
    await first.send(GET)
    await recorder.seen(first)
    with pytest.raises(OSError, match=r"reset|SSL|EOF"):
        await tls_client(box, authority)
    assert refused(box, "client_limit") == 1
    assert refused(box, "tls") == 0
    assert listener_of(box).open == 1


async def test_nothing_is_served_in_clear_where_tls_is_not_to_be_had(
    box: Box, recorder: Recorder, authority: trustme.CA
) -> None:
    await serve_tls(box, recorder.endpoint, authority)
    listener_of(box).tls_context = None
    await is_reset(box)
    assert box.of_listener(stats.L_ACCEPTED) == 0
