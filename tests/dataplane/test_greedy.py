"""Greedy clients and endpoints: what they can have us keep is bounded, and their neighbours are served."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct
from contextlib import suppress
from typing import Any

import pytest

from proxy import stats
from proxy.dataplane.downstream import MAX_PIPELINED, Downstream
from proxy.model import WHOLE, Route, Timeouts
from tests.dataplane.box import OK, Box, Peer, always_ok, until
from tests.e2e.wire import Answer, Wire, WireError, request_bytes

KIB = 1024
MIB = 1024 * KIB
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
KEPT_MOST = MIB
"""What one connection may have us keep, in a read and what is written of it, with room to spare."""


async def flood(wire: Wire, piece: bytes, *, most: int = 64 * MIB) -> None:
    """Send until we are no longer read, or the connection is broken off."""
    with suppress(TimeoutError, WireError, OSError):
        for _ in range(0, most, len(piece)):
            async with asyncio.timeout(0.5):
                await wire.send(piece)


async def refusal(wire: Wire) -> Answer:
    """The answer to what was sent until it was refused."""
    answer = await wire.answer()
    assert answer.closes
    return answer


def only(box: Box) -> Downstream:
    (connection,) = box.plane.connections
    return connection


def kept(connection: Downstream) -> int:
    """Bytes that are kept for this client: unread, unsent either way, and waiting."""
    waiting = connection._waiting or ()
    exchanges = [e for e in (connection.current, connection._parsing, *waiting) if e is not None]
    size = connection.transport.get_write_buffer_size() + len(connection._early)
    for exchange in set(exchanges):
        size += sum(len(piece) + 50 for piece in (*exchange._out, *exchange._reply))
        if exchange.upstream is not None:
            size += exchange.upstream.transport.get_write_buffer_size()
    return size


async def served(box: Box) -> bool:
    """Whether a client that behaves is answered."""
    wire = await box.client()
    good = (await wire.request("/", headers={"Host": "here"})).status == 200
    wire.close()
    return good


async def here(box: Box, **listener: Any) -> None:
    """A service for the host `here`, and no other."""
    endpoint = await box.endpoint()
    service = box.shop(box.pool("blue", [endpoint], WHOLE), routes=(Route(host="here"),))
    await box.apply(service, **listener)


# ---- those who ask and do not read ----


@pytest.mark.parametrize("host", ["nowhere", "here"])
async def test_a_client_that_pipelines_and_never_reads_gets_no_more_answers_than_it_takes(
    box: Box, host: str
) -> None:
    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    await here(box)
    wire = await box.client(receive=4096)
    await flood(wire, request_bytes("/", headers={"Host": host}) * 1000)
    await until(lambda: only(box).is_paused, "its answers wait")
    assert kept(only(box)) < KEPT_MOST
    assert await served(box)


async def test_what_waited_for_a_client_to_read_is_answered_when_it_does(box: Box) -> None:
    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    await here(box)
    wire = await box.client(receive=4096)
    sending = asyncio.ensure_future(wire.send(request_bytes("/") * 5000))  # noqa: TID251 - a test's
    await until(lambda: any(c.is_paused for c in box.plane.connections), "it does not read")
    for _ in range(5000):
        assert (await wire.answer()).status == 404
    await sending
    assert (await wire.request("/", headers={"Host": "here"})).status == 200


async def test_a_client_that_pipelines_and_never_reads_is_given_up(box: Box) -> None:
    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    await here(box, idle_s=0.4)
    wire = await box.client(receive=4096)
    await flood(wire, request_bytes("/") * 1000)
    await until(lambda: not box.plane.connections, "it is given up")


@pytest.mark.parametrize("finishes", [True, False])
async def test_thousands_of_requests_in_one_write_are_all_answered(
    box: Box,
    finishes: bool,  # noqa: FBT001
) -> None:
    await here(box)
    wire = await box.client()
    hosts = ["nowhere" if number % 7 == 0 else "here" for number in range(40 * MAX_PIPELINED)]
    await wire.send(b"".join(request_bytes("/", headers={"Host": host}) for host in hosts))
    if finishes:
        wire.finish()
    for host in hosts:
        assert (await wire.answer()).status == (200 if host == "here" else 404)
    if finishes:
        assert await wire.is_closed()


# ---- heads ----


async def test_a_connection_that_never_says_anything_has_the_time_of_a_head(box: Box) -> None:
    await here(box, header_s=0.2, idle_s=60.0)
    wire = await box.client()
    assert await wire.is_closed()


async def test_between_two_requests_a_connection_rests_longer_than_a_head_may_take(
    box: Box,
) -> None:
    await here(box, header_s=1.0, idle_s=60.0)
    wire = await box.client()
    assert (await wire.request("/")).status == 404
    assert await wire.stays_open(1.6)


@pytest.mark.parametrize("before", [b"", b"\r\n"])
@pytest.mark.parametrize("drop", [b"\r\n", b"\n", b"x"])
async def test_whatever_is_dripped_a_head_has_its_time(
    box: Box, before: bytes, drop: bytes
) -> None:
    await here(box, header_s=1.0)
    wire = await box.client()
    assert (await wire.request("/", headers={"Host": "here"})).status == 200  # it is its second
    await wire.send(before + (b"" if drop == b"\r\n" else b"GET /"))
    while not any(connection.linger_until for connection in box.plane.connections):
        await wire.send(drop)
        await asyncio.sleep(0.05)
    assert (await refusal(wire)).status == (400 if drop == b"\n" else 408)
    assert await wire.is_closed()


async def test_a_slow_head_behind_pipelined_requests_is_refused_after_their_answers(
    box: Box,
) -> None:
    await here(box, header_s=1.0)
    wire = await box.client()
    await wire.send(request_bytes("/", headers={"Host": "here"}) * 3 + b"GET / HT")
    for _ in range(3):
        assert (await wire.answer()).status == 200
    assert (await refusal(wire)).status == 408


async def test_a_head_is_not_slow_while_we_do_not_read_it(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(1.6)  # longer than a head may take
        await peer.send(OK)
        await always_ok(peer)

    service = box.shop(box.pool("blue", [await box.endpoint(play)], WHOLE))
    await box.apply(service, header_s=1.0)
    wire = await box.client()
    await wire.send(request_bytes("/") * 2 + b"GET / HTTP/1.1\r\nHost:")
    await until(lambda: any(c.is_unread for c in box.plane.connections), "the second waits")
    await wire.send(b" a\r\n\r\n")
    for _ in range(3):
        assert (await wire.answer()).status == 200


async def test_one_empty_line_behind_a_request_does_not_begin_a_head(box: Box) -> None:
    await here(box, header_s=0.7)
    wire = await box.client()
    for _ in range(2):
        assert (await wire.request("/", headers={"Host": "here"})).status == 200
        await wire.send(b"\r\n")
        assert await wire.stays_open(1.0)


@pytest.mark.parametrize(
    ("begins", "goes_on", "status"),
    [
        (b"", b"\r\n" * 32 * KIB, 400),
        (b"GET /", b"x" * 64 * KIB, 414),
        (HEAD + b"X: ", b"x" * 64 * KIB, 431),
        (HEAD, b"x: y\r\n" * 8 * KIB, 431),
        (UPLOAD + b"1;", b"x" * 64 * KIB, 400),
        (UPLOAD, b"1;" + b"x" * 200 + b"\r\na\r\n", 400),
        (UPLOAD + b"0\r\n", b"x: y\r\n" * 8 * KIB, 431),
    ],
    ids=["empty lines", "target", "header", "headers", "extension", "extensions", "trailers"],
)
async def test_what_has_no_end_is_refused_soon(
    box: Box, begins: bytes, goes_on: bytes, status: int
) -> None:
    async def play(peer: Peer) -> None:
        await peer.gone()

    service = box.shop(box.pool("blue", [await box.endpoint(play)], WHOLE))
    await box.apply(
        service,
        box.shop(
            box.pool("other", [await box.endpoint()], WHOLE), name="b", routes=(Route(host="here"),)
        ),
    )
    wire = await box.client()
    await wire.send(begins)
    sending = asyncio.ensure_future(flood(wire, goes_on))  # noqa: TID251 - a test's own task
    try:
        assert (await refusal(wire)).status == status
        assert await served(box)
    finally:
        sending.cancel()


async def test_headers_are_counted_before_the_head_has_ended(box: Box) -> None:
    await here(box)
    wire = await box.client()
    await wire.send(HEAD + b"x: y\r\n" * 110)  # a tenth of what its bytes may be
    assert (await refusal(wire)).status == 431


# ---- bodies ----


async def test_chunks_of_a_byte_cost_no_more_than_their_bytes(box: Box) -> None:
    """They wait for their turn: whatever one read has brought is kept."""

    async def play(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.send(OK)
        await peer.head()
        got = b""
        while not got.endswith(b"\r\n0\r\n\r\n"):
            got += await peer.reader.read(65536)
        await peer.send(OK.replace(b"ok", b"%02d" % (got.count(b"a") // 1000)))

    go = asyncio.Event()
    await box.serve(await box.endpoint(play))
    wire = await box.client()
    await wire.send(request_bytes("/") + UPLOAD + b"1\r\na\r\n" * 30_000 + b"0\r\n\r\n")
    await until(lambda: any(c.is_unread for c in box.plane.connections), "the upload waits")
    assert kept(only(box)) < 300 * KIB
    go.set()
    assert (await wire.answer()).body == b"ok"
    assert (await wire.answer()).body == b"30"


async def test_an_endpoint_that_reads_nothing_of_an_upload_ends_it(box: Box) -> None:
    async def play(peer: Peer) -> None:
        peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await over.wait()

    over = asyncio.Event()
    endpoint = await box.endpoint(play)
    service = box.shop(
        box.pool("blue", [endpoint], WHOLE), timeouts=Timeouts(response_s=0.8), routes=(Route(),)
    )
    await box.apply(service)
    wire = await box.client()
    await wire.send(UPLOAD)
    sending = asyncio.ensure_future(flood(wire, b"10000\r\n" + b"x" * 65536 + b"\r\n"))  # noqa: TID251
    await until(lambda: any(c.is_unread for c in box.plane.connections), "the client is not read")
    assert kept(only(box)) < KEPT_MOST
    assert (await refusal(wire)).status == 504
    sending.cancel()
    over.set()


async def test_a_body_that_stops_is_a_408(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.gone()

    service = box.shop(
        box.pool("blue", [await box.endpoint(play)], WHOLE), timeouts=Timeouts(client_body_s=0.3)
    )
    await box.apply(service)
    wire = await box.client()
    await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
    assert (await refusal(wire)).status == 408
    assert box.of_pool(stats.P_FAILURES + stats.FAILURE_KINDS.index("timeout")) == 0


async def test_a_body_that_stops_after_it_was_asked_for_is_the_clients_fault(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.gone()

    service = box.shop(
        box.pool("blue", [await box.endpoint(play)], WHOLE),
        timeouts=Timeouts(client_body_s=0.3, response_s=1.0),
    )
    await box.apply(service)
    wire = await box.client()
    await wire.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n"
    )
    answer = await refusal(wire)
    assert [each.status for each in answer.interim] == [100]
    assert answer.status == 408
    assert box.failures("timeout") == 0


async def test_chunks_without_end_behind_an_early_answer_are_not_read_for_ever(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK)
        await peer.gone()

    await box.serve(await box.endpoint(play))
    wire = await box.client()
    await wire.send(UPLOAD)
    assert (await wire.answer()).status == 200
    with pytest.raises(WireError):
        await wire.send((b"10000\r\n" + b"x" * 65536 + b"\r\n") * 1000)
    await until(lambda: not box.plane.connections, "it is given up")


# ---- those who read slowly ----


async def test_a_client_that_takes_a_little_now_and_then_gets_all_of_its_answer(box: Box) -> None:
    """The kernel holds most of it, and says for long that it has no room."""
    size = 600_000

    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        await peer.gone()

    await box.serve(await box.endpoint(play), listener={"idle_s": 0.8})
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # as small as the buffer
    sock.setblocking(False)
    await box.loop.sock_connect(sock, ("127.0.0.1", box.port))
    await box.loop.sock_sendall(sock, request_bytes("/"))
    got = 0
    try:
        for _ in range(30):  # three seconds and more
            got += len(await box.loop.sock_recv(sock, 2000))
            await asyncio.sleep(0.1)
        assert box.plane.connections
        while got < size:
            piece = await box.loop.sock_recv(sock, 65536)
            assert piece, f"broken off after {got} bytes"
            got += len(piece)
    finally:
        sock.close()


# ---- connections that come and go ----


async def test_connections_reset_at_once_leave_nothing_behind(box: Box) -> None:
    await here(box)
    for number in range(500):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.setblocking(False)
        with suppress(BlockingIOError):
            sock.connect(("127.0.0.1", box.port))
        if number % 2:
            with suppress(OSError):
                sock.send(request_bytes("/", headers={"Host": "here"}))
        sock.close()
    assert await served(box)
    await until(lambda: not box.plane.connections, "all of them are forgotten")
    assert box.failures("connect") == 0


async def test_without_a_descriptor_left_it_is_not_the_endpoint_that_fails(box: Box) -> None:
    await here(box)
    wire = await box.client()
    assert (await wire.request("/")).status == 404
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        refused = await wire.request("/", headers={"Host": "here"})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert refused.status == 503
    assert box.failures("connect") == 0
    assert (await wire.request("/", headers={"Host": "here"})).status == 200


async def test_an_idle_connection_forgets_what_it_remembered_for_speed(box: Box) -> None:
    await here(box)
    wire = await box.client()
    large = {"Host": "here", **{f"X-{number}": "x" * 300 for number in range(90)}}
    assert (await wire.request("/", headers=large)).status == 200
    connection = only(box)
    await until(lambda: connection.parser.is_asleep, "it forgets")
    assert connection.known is None
    for _ in range(3):
        assert (await wire.request("/", headers=large)).status == 200
    await until(lambda: connection.parser.is_asleep, "it forgets again")
    assert (await wire.request("/", headers=large)).status == 200


# ---- endpoints ----


@pytest.mark.parametrize(
    "goes_on",
    [b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"],
)
async def test_interim_answers_without_end_are_a_502(box: Box, goes_on: bytes) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        while True:
            await peer.send(goes_on * 10)

    await box.serve(await box.endpoint(play))
    wire = await box.client()
    answer = await wire.request("/")
    assert answer.status == 502
    assert len(answer.interim) <= 32


@pytest.mark.parametrize("line", [b"x: y\r\n" * 1000, b"x" * 65536])
async def test_a_head_without_end_from_an_endpoint_is_a_502(box: Box, line: bytes) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nx:")
        while True:
            await peer.send(line)

    await box.serve(await box.endpoint(play))
    assert (await (await box.client()).request("/")).status == 502


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (CHUNKED + b"1;", b"x" * 65536),
        (CHUNKED, b"1;" + b"x" * 200 + b"\r\na\r\n"),
        (CHUNKED + b"1\r\na\r\n0\r\n", b"x: y\r\n" * 1000),
    ],
    ids=["extension", "extensions", "trailers"],
)
async def test_framing_without_end_from_an_endpoint_is_no_whole_answer(
    box: Box, begins: bytes, goes_on: bytes
) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(begins)
        while True:
            await peer.send(goes_on)

    await box.serve(await box.endpoint(play))
    with suppress(WireError):  # broken off, where the answer's head had been passed on before
        assert (await (await box.client()).request("/")).status == 502
    assert box.failures("protocol") == 1


async def test_an_answer_without_end_waits_for_a_client_that_does_not_read(box: Box) -> None:
    async def play(peer: Peer) -> None:
        if b"/endless" in await peer.request():
            await peer.send(CHUNKED)
            while True:
                await peer.send(b"1\r\na\r\n" * 10_000)
        await peer.send(OK)
        await always_ok(peer)

    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    await box.serve(await box.endpoint(play))
    wire = await box.client(receive=4096)
    await wire.send(request_bytes("/endless"))
    await until(lambda: any(c.is_paused for c in box.plane.connections), "it does not read")
    await asyncio.sleep(0.3)  # and goes on so
    assert kept(only(box)) < KEPT_MOST
    assert await served(box)
