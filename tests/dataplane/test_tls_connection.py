"""What TLS makes different on a connection: ends, resets, backpressure, tunnels, strange records."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.dataplane import tls_layer
from proxy.model import WHOLE, PoolTls, Timeouts
from tests.authority import Authority
from tests.dataplane.box import OK, Box, Peer, Play, Scripted, always_ok, until
from tests.dataplane.masked import Masked
from tests.dataplane.test_exchange import request_while_it_dies
from tests.e2e.wire import TruncatedError, Wire
from tests.ports import free_port

HOST = "127.0.0.1"
MIB = 1024 * 1024
ASK = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
TO_THE_END = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall there is"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def server(authority: Authority) -> ssl.SSLContext:
    return authority.issue(HOST).server()


@pytest.fixture
def trusting(authority: Authority) -> PoolTls:
    return PoolTls(ca=authority.pem)


Act = Callable[[Masked], Awaitable[None]]


@pytest.fixture
def by_hand(server: ssl.SSLContext) -> Callable[[Act], Play]:
    """Scripts that speak TLS by hand."""

    def made(act: Act) -> Play:
        async def play(peer: Peer) -> None:
            await act(await Masked.shake(peer, server))

        return play

    return made


async def serve(box: Box, tls: PoolTls, *members: Scripted, **service: Any) -> None:
    await box.apply(box.shop(box.pool("blue", members, WHOLE, tls=tls), **service))


# ---- ends ----


async def test_an_answer_to_the_end_is_whole_when_the_end_is_said(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play]
) -> None:
    async def act(masked: Masked) -> None:
        await masked.head()
        await masked.send(TO_THE_END)
        await masked.say_end()

    await serve(box, trusting, await box.endpoint(by_hand(act)))
    answer = await (await box.client()).request("/")
    assert answer.body == b"all there is"
    assert box.failures("truncated") == 0


async def test_an_answer_to_the_end_is_half_when_the_end_is_not_said(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play]
) -> None:
    async def act(masked: Masked) -> None:
        await masked.head()
        await masked.send(TO_THE_END)
        masked.peer.writer.close()

    await serve(box, trusting, await box.endpoint(by_hand(act)))
    with pytest.raises(TruncatedError):
        await (await box.client()).request("/")
    assert box.failures("truncated") == 1


@pytest.mark.parametrize("says_end", [True, False])
async def test_an_answer_shorter_than_it_said_is_broken_off_either_way(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play], *, says_end: bool
) -> None:
    async def act(masked: Masked) -> None:
        await masked.head()
        await masked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        if says_end:
            await masked.say_end()

    await serve(box, trusting, await box.endpoint(by_hand(act)))
    with pytest.raises(TruncatedError):
        await (await box.client()).request("/")
    assert box.failures("truncated") == 1


async def test_bytes_that_are_no_record_break_the_answer_off(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play]
) -> None:
    async def act(masked: Masked) -> None:
        await masked.head()
        await masked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await masked.peer.send(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        await masked.peer.gone()

    await serve(box, trusting, await box.endpoint(by_hand(act)))
    with pytest.raises(TruncatedError):
        await (await box.client()).request("/")


async def test_bytes_that_are_no_record_instead_of_an_answer_are_told_as_such(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play]
) -> None:
    async def act(masked: Masked) -> None:
        await masked.head()
        await masked.peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await masked.peer.gone()

    await serve(box, trusting, await box.endpoint(by_hand(act)))
    answer = await (await box.client()).request("/", method="POST")
    assert answer.header("proxy-status") == "turnout; error=tls_protocol_error"
    assert box.failures("connect") == 1


async def test_a_connection_that_ends_before_the_answer_is_closed_early(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play]
) -> None:
    async def act(masked: Masked) -> None:
        await masked.head()

    await serve(box, trusting, await box.endpoint(by_hand(act)))
    answer = await (await box.client()).request("/", method="POST")
    assert answer.header("proxy-status") == "turnout; error=connection_terminated"


@pytest.mark.parametrize("says_end", [True, False])
async def test_an_idle_connection_that_ended_is_not_used_again(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play], *, says_end: bool
) -> None:
    async def act(masked: Masked) -> None:
        await masked.head()
        await masked.send(OK)
        if says_end:
            await masked.say_end()
            await masked.peer.gone()

    endpoint = await box.endpoint(by_hand(act))
    await serve(box, trusting, endpoint)
    wire = await box.client()
    for _ in range(3):
        assert (await wire.request("/", method="POST", body=b"x")).status == 200
        await until(lambda: not box.live(endpoint).open, "its end was noticed")
    assert not any(box.failures(kind) for kind in ("reset", "truncated", "connect"))


async def test_a_request_meets_a_connection_that_died_and_is_sent_once_more(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play]
) -> None:
    peers: list[Peer] = []

    async def act(masked: Masked) -> None:
        peers.append(masked.peer)
        await masked.head()
        await masked.send(OK)
        await masked.peer.gone()

    endpoint = await box.endpoint(by_hand(act))
    await serve(box, trusting, endpoint)
    wire = await box.client()
    assert (await wire.request("/")).status == 200
    assert (await request_while_it_dies(peers, wire, "/")).status == 200
    assert endpoint.connections == 2
    assert box.failures("reset") == 0


async def test_a_request_that_was_taken_before_the_end_has_failed(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play]
) -> None:
    async def act(masked: Masked) -> None:
        await masked.head()
        await masked.send(OK)
        await masked.head()
        masked.peer.abort()

    endpoint = await box.endpoint(by_hand(act))
    await serve(box, trusting, endpoint)
    wire = await box.client()
    assert [(await wire.request("/")).status for _ in range(2)] == [200, 502]
    assert box.failures("reset") == 1


async def test_closing_says_so_and_waits_for_nobody(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play]
) -> None:
    said: list[bytes] = []

    async def act(masked: Masked) -> None:
        await masked.head()
        await masked.send(OK)
        said.append(await masked.read())  # empty: a close_notify, to which it says nothing
        await asyncio.sleep(3600)

    endpoint = await box.endpoint(by_hand(act))
    await serve(box, trusting, endpoint)
    assert (await (await box.client()).request("/")).status == 200
    live = box.live(endpoint)
    await until(lambda: live.idle, "it is kept")
    began = time.monotonic()
    live.close_idle()
    await until(lambda: not live.open and said, "it is closed, and the endpoint knows")
    assert said == [b""]
    assert time.monotonic() - began < 0.5


async def test_a_refusal_is_heard_though_the_rest_of_the_upload_meets_a_reset(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play]
) -> None:
    """The endpoint answers and hangs up, with bytes unread, before we look; then we write."""
    refused = asyncio.Event()

    async def act(masked: Masked) -> None:
        await masked.head()
        while len(masked.peer.reader._buffer) < 5_000:  # type: ignore[attr-defined] # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await masked.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await masked.say_end()
        masked.peer.abort()
        refused.set()

    await serve(box, trusting, await box.endpoint(by_hand(act)))
    for _ in range(5):
        wire = await box.client()
        await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n")
        refused.clear()
        sending = box.loop.create_task(_send_until_refused(wire))
        assert (await wire.answer()).status == 403
        sending.cancel()
    assert not any(box.failures(kind) for kind in ("reset", "truncated"))


async def _send_until_refused(wire: Wire) -> None:
    for _ in range(200):
        await wire.send(b"x" * 4_000)
        await asyncio.sleep(0)


# ---- records ----


async def test_an_answer_may_come_byte_by_byte_or_in_many_records_at_once(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play]
) -> None:
    async def act(masked: Masked) -> None:
        await masked.head()
        masked.tls.write(OK)
        for byte in masked.outgoing.read():  # one byte of a record at a time
            await masked.peer.send(bytes((byte,)))
            await asyncio.sleep(0)
        await masked.head()
        for byte in OK:  # a record for each byte, in one write
            masked.tls.write(bytes((byte,)))
        await masked._flush()
        await masked.peer.gone()

    endpoint = await box.endpoint(by_hand(act))
    await serve(box, trusting, endpoint)
    wire = await box.client()
    for _ in range(2):
        answer = await wire.request("/")
        assert (answer.status, answer.body) == (200, b"ok")
    assert endpoint.connections == 1


async def test_an_answer_nobody_asked_for_closes_the_connection(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play]
) -> None:
    async def act(masked: Masked) -> None:
        await masked.head()
        await masked.send(OK + OK)
        await masked.peer.gone()

    endpoint = await box.endpoint(by_hand(act))
    await serve(box, trusting, endpoint)
    assert (await (await box.client()).request("/")).body == b"ok"
    await until(lambda: not box.live(endpoint).open, "it is closed")


class OpenSsl:
    """An endpoint played by `openssl s_server`, which can ask for new keys."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, port: int, authority: Authority, folder: Path, version: str) -> OpenSsl:
        cert, key = authority.issue(HOST).write(folder, "endpoint")
        serve = f"openssl s_server -accept {HOST}:{port} -cert {cert} -key {key} {version}"
        command = f"stdbuf -oL {serve}"  # it is to say at once what it does
        made = cls(
            await asyncio.create_subprocess_exec(
                *command.split(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        )
        await made.told(b"ACCEPT\n")
        return made

    async def told(self, text: bytes) -> None:
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            await self._process.stdout.readuntil(text)

    def type(self, text: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)

    async def end(self) -> None:
        self._process.kill()
        await self._process.communicate()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("is_bounded", [False, True])
async def test_new_keys_are_agreed_on_and_a_new_handshake_is_not(
    box: Box,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_bounded: bool,
) -> None:
    """What it says unasked to a TLS 1.2 endpoint that wants to shake hands over and over is bounded."""
    if is_bounded:
        monkeypatch.setattr(tls_layer, "MOST_UNREAD", -1)
    port = free_port()
    version, key = ("-tls1_2", b"r\n") if is_bounded else ("-tls1_3", b"K\n")
    endpoint = await OpenSsl.start(port, authority, tmp_path, version)
    try:
        tls = PoolTls(ca=authority.pem)
        await box.apply(box.shop(box.pool("blue", [f"{HOST}:{port}"], WHOLE, tls=tls)))
        wire = await box.client()
        await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        await endpoint.told(b"hi")
        endpoint.type(key)
        await endpoint.told(b"SSL_do_handshake -> 1\n")
        if not is_bounded:
            endpoint.type(OK)
        answer = await wire.answer()
    finally:
        await endpoint.end()
    assert answer.status == (502 if is_bounded else 200)
    assert [note for note in box.notes if "reads nothing" in note] == box.notes
    assert len(box.notes) == is_bounded


# ---- bodies ----


async def test_a_download_is_held_back_while_the_client_does_not_read(
    box: Box, server: ssl.SSLContext, trusting: PoolTls
) -> None:
    body = bytes(range(256)) * 4 * 32 * 1024  # 32 MiB
    sent = 0

    async def play(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for begin in range(0, len(body), 65536):
            await peer.send(body[begin : begin + 65536])
            sent = begin + 65536

    await serve(box, trusting, await box.endpoint(play, context=server))
    wire = await box.client(receive=16384)
    await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: sent, "it flows")
    while (before := sent) != len(body):
        await asyncio.sleep(0.2)
        if before == sent:
            break
    assert sent < len(body), "it stands still"
    answer = await wire.answer()
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()


async def test_an_upload_is_held_back_while_the_endpoint_does_not_read(
    box: Box, server: ssl.SSLContext, trusting: PoolTls
) -> None:
    may_read = asyncio.Event()
    received = hashlib.sha256()

    async def play(peer: Peer) -> None:
        await peer.head()
        await may_read.wait()
        left = len(body)
        while left:
            data = await peer.reader.read(65536)
            received.update(data)
            left -= len(data)
        await peer.send(OK)

    body = bytes(range(255)) * 64 * 1024  # 16 MiB, of no power of two
    endpoint = await box.endpoint(play, context=server)
    await serve(box, trusting, endpoint)
    wire = await box.client()
    sending = box.loop.create_task(
        wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    )
    await until(lambda: endpoint.connections, "it is there")
    await asyncio.sleep(0.3)
    assert not sending.done(), "it stands still"
    (connection,) = box.live(endpoint).open
    assert connection.transport.get_write_buffer_size() < MIB
    may_read.set()
    await sending
    assert (await wire.answer()).status == 200
    assert received.digest() == hashlib.sha256(body).digest()


async def test_a_chunked_body_flows_both_ways(
    box: Box, server: ssl.SSLContext, trusting: PoolTls
) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (data := await peer.reader.readuntil(b"\r\n")) != b"0\r\n":
            await peer.send(data + await peer.reader.readuntil(b"\r\n"))
        await peer.send(b"0\r\nX-Sum: 7\r\n\r\n")

    await serve(box, trusting, await box.endpoint(play, context=server))
    wire = await box.client()
    await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    await wire.send(b"3\r\nabc\r\n")
    assert (await wire.head()).status == 200
    assert await wire.chunk() == b"abc"
    await wire.send(b"2\r\nde\r\n0\r\n\r\n")
    assert await wire.chunk() == b"de"
    assert await wire.chunk() == b""


# ---- tunnels ----


async def echo(peer: Peer) -> None:
    await peer.head()
    await peer.send(SWITCH)
    while data := await peer.reader.read(65536):
        await peer.send(data)


async def tunnel(box: Box, tls: PoolTls, endpoint: Scripted, **service: Any) -> Wire:
    await serve(box, tls, endpoint, **service)
    wire = await box.client()
    await wire.send(ASK + b"early ")
    assert (await wire.answer()).status == 101
    return wire


async def test_a_tunnel_carries_much_both_ways(
    box: Box, server: ssl.SSLContext, trusting: PoolTls
) -> None:
    wire = await tunnel(box, trusting, await box.endpoint(echo, context=server))
    data = bytes(range(253)) * 32 * 1024
    sending = box.loop.create_task(wire.send(data))
    assert await wire._reader.readexactly(6) == b"early "
    assert await wire._reader.readexactly(len(data)) == data
    await sending


async def test_a_client_that_ends_its_side_of_a_tunnel_still_hears_the_endpoint(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play]
) -> None:
    async def act(masked: Masked) -> None:
        await masked.head()
        await masked.send(SWITCH)
        heard = b""
        while data := await masked.read():
            heard += data
        await masked.send(b"heard " + heard)
        await masked.say_end()

    wire = await tunnel(box, trusting, await box.endpoint(by_hand(act)))
    await wire.send(b"last")
    wire.finish()
    assert await wire.rest() == b"heard early last"


@pytest.mark.parametrize("says_end", [True, False])
async def test_an_endpoint_that_ends_a_tunnel_ends_it_for_the_client(
    box: Box, trusting: PoolTls, by_hand: Callable[[Act], Play], *, says_end: bool
) -> None:
    async def act(masked: Masked) -> None:
        await masked.head()
        await masked.send(SWITCH + b"bye")
        if says_end:
            await masked.say_end()

    wire = await tunnel(box, trusting, await box.endpoint(by_hand(act)))
    assert await wire.rest() == b"bye"


async def test_an_idle_tunnel_is_cut(box: Box, server: ssl.SSLContext, trusting: PoolTls) -> None:
    endpoint = await box.endpoint(echo, context=server)
    wire = await tunnel(box, trusting, endpoint, timeouts=Timeouts(tunnel_idle_s=0.2))
    assert await wire._reader.readexactly(6) == b"early "
    assert await wire.is_closed()
    await until(endpoint.peers[0].reader.at_eof, "the endpoint's side as well")


async def test_a_tunnel_is_held_back_while_the_client_does_not_read(
    box: Box, server: ssl.SSLContext, trusting: PoolTls
) -> None:
    sent = 0

    async def flood(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        await peer.send(SWITCH)
        while sent < 16 * MIB:
            await peer.send(b"x" * 65536)
            sent += 65536

    await serve(box, trusting, await box.endpoint(flood, context=server))
    wire = await box.client(receive=16384)
    await wire.send(ASK)
    assert (await wire.answer()).status == 101
    await until(lambda: sent, "it flows")
    while (before := sent) < 16 * MIB:
        await asyncio.sleep(0.2)
        if before == sent:
            break
    assert sent < 16 * MIB, "it stands still"
    assert len(await wire.rest()) == 16 * MIB


# ---- the box's own end finds what leaks ----


async def test_a_client_that_leaves_in_the_handshake_leaves_nothing_behind(
    box: Box, server: ssl.SSLContext, trusting: PoolTls
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
    await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: endpoint.connections, "it connects")
    wire.close()
    await until(lambda: not box.plane.connections, "it has left")
    may_shake.set()
    await until(lambda: box.live(endpoint).idle, "the connection is kept for others")
    assert (await (await box.client()).request("/")).status == 200
    assert endpoint.connections == 1


async def test_a_worker_ends_while_connections_are_open_and_idle(
    box: Box, server: ssl.SSLContext, trusting: PoolTls
) -> None:
    endpoint = await box.endpoint(always_ok, context=server)
    await serve(box, trusting, endpoint)
    assert (await (await box.client()).request("/")).status == 200
    began = time.monotonic()
    await box.plane.stop(20.0)
    await until(lambda: not box.live(endpoint).open, "all are closed")
    assert time.monotonic() - began < 10
