"""Tunnels: bytes both ways, half-closes, backpressure, ends of every kind."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxy import stats
from proxy.dataplane import farewell
from proxy.dataplane import tunnel as tunnels_module
from proxy.dataplane.downstream import Downstream
from proxy.model import WHOLE, Drain, Timeouts
from tests.dataplane.box import Box, Peer, Play, until
from tests.dataplane.websocket import ASK as ASK_WEBSOCKET
from tests.dataplane.websocket import (
    CONTINUATION,
    SWITCH,
    TEXT,
    closing,
    frame,
    masked_close,
    switch,
    told_to_close,
)
from tests.e2e.wire import Wire

ASK = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
SWITCH_RAW = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
MIB = 1024 * 1024


async def upgrade(peer: Peer) -> None:
    await peer.head()
    await peer.send(SWITCH_RAW)


async def echo(peer: Peer) -> None:
    await upgrade(peer)
    while data := await peer.reader.read(65536):
        await peer.send(data)


async def tunnel(box: Box, play: Play = echo, early: bytes = b"", **service: object) -> Wire:
    await box.serve(await box.endpoint(play), **service)
    wire = await box.client()
    await wire.send(ASK + early)
    assert (await wire.answer()).status == 101
    return wire


def tunnels(box: Box) -> int:
    return box.of_pool(stats.P_IN_FLIGHT + stats.TUNNEL)


async def test_bytes_flow_both_ways_and_the_tunnel_is_counted_as_one(box: Box) -> None:
    wire = await tunnel(box, early=b"early ")
    assert await wire._reader.readexactly(6) == b"early "
    await wire.send(b"late")
    assert await wire._reader.readexactly(4) == b"late"
    assert tunnels(box) == 1
    assert box.of_pool(stats.P_IN_FLIGHT + stats.REQUEST) == 0
    await until(lambda: box.of_listener(stats.L_TUNNEL) == 1, "the listener's gauge follows")


async def test_what_the_endpoint_sends_with_its_101_reaches_the_client(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH_RAW + b"hello")
        await peer.gone()

    wire = await tunnel(box, play)
    assert await wire._reader.readexactly(5) == b"hello"


async def test_a_client_that_closed_its_side_still_gets_the_rest(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await upgrade(peer)
        assert await peer.reader.read() == b"question"
        await asyncio.sleep(0.05)
        await peer.send(b"answer")

    wire = await tunnel(box, play)
    await wire.send(b"question")
    wire.finish()
    assert await wire.rest() == b"answer"
    await until(lambda: tunnels(box) == 0, "the tunnel is over")


async def test_an_endpoint_that_closed_its_side_still_gets_the_rest(box: Box) -> None:
    got = asyncio.get_running_loop().create_future()

    async def play(peer: Peer) -> None:
        await upgrade(peer)
        await peer.send(b"bye")
        peer.writer.write_eof()
        got.set_result(await peer.reader.read())

    wire = await tunnel(box, play)
    assert await wire.rest() == b"bye"
    await wire.send(b"last words")
    wire.finish()
    async with asyncio.timeout(20):
        assert await got == b"last words"
    await until(lambda: tunnels(box) == 0, "the tunnel is over")


@pytest.mark.parametrize("who", ["client", "endpoint"])
async def test_when_one_end_breaks_the_other_is_closed_and_nothing_stays(
    box: Box, who: str
) -> None:
    wire = await tunnel(box)
    await wire.send(b"x")
    await wire._reader.readexactly(1)
    endpoint = box.endpoints[0]
    if who == "client":
        wire.close()
    else:
        writer = endpoint.peers[0].writer
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )
        endpoint.peers[0].abort()
        assert await wire.is_closed()
    await until(lambda: tunnels(box) == 0, "the tunnel is over")
    await until(lambda: not box.plane.connections, "its client is forgotten")
    await until(lambda: not box.live(endpoint).open, "its endpoint's connection is forgotten")
    await until(lambda: box.of_endpoint(endpoint, stats.E_OPEN) == 0, "the gauge falls")


async def test_a_client_that_does_not_read_pauses_the_endpoint(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await upgrade(peer)
        for _ in range(64):
            await peer.send(b"x" * MIB)
            sent.append(MIB)

    sent: list[int] = []
    await box.serve(await box.endpoint(play))
    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    wire = await box.client(receive=8192)
    await wire.send(ASK)
    (connection,) = await _connections(box)
    await until(lambda: connection.transport.get_write_buffer_size() > 65536, "it is full")
    await asyncio.sleep(0.2)
    assert connection.transport.get_write_buffer_size() < MIB
    assert sum(sent) < 32 * MIB
    assert (await wire.answer()).status == 101
    async with asyncio.timeout(60):
        await wire._reader.readexactly(64 * MIB)


async def _connections(box: Box) -> list[Downstream]:
    await until(lambda: tunnels(box) == 1, "the tunnel stands")
    return list(box.plane.connections)


async def test_an_endpoint_that_does_not_read_pauses_the_client(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await upgrade(peer)
        await go.wait()
        await peer.reader.readexactly(64 * MIB)
        await peer.send(b"all")

    go = asyncio.Event()
    wire = await tunnel(box, play)
    sending = box.loop.create_task(wire.send(b"x" * (64 * MIB)))
    await asyncio.sleep(0.3)
    (connection,) = box.plane.connections
    assert connection.current is not None
    assert connection.current.bytes_in < 32 * MIB
    go.set()
    await sending
    async with asyncio.timeout(60):
        assert await wire._reader.readexactly(3) == b"all"


async def test_a_tunnel_in_which_nothing_moves_is_ended(box: Box) -> None:
    wire = await tunnel(box, timeouts=Timeouts(tunnel_idle_s=0.3))
    assert await wire.is_closed()
    await until(lambda: tunnels(box) == 0, "the tunnel is over")


async def test_a_client_that_never_reads_does_not_outlive_its_tunnel(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await upgrade(peer)
        await peer.send(b"x" * 100_000)

    await box.serve(await box.endpoint(play), timeouts=Timeouts(tunnel_idle_s=0.3))
    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    wire = await box.client(receive=4096)
    await wire.send(ASK)
    (connection,) = await _connections(box)
    transport = connection.transport
    await until(lambda: tunnels(box) == 0, "the endpoint has gone")
    await until(lambda: transport.get_extra_info("socket").fileno() < 0, "the client is cut")


async def test_a_drains_deadline_cuts_tunnels_and_counts_them(box: Box) -> None:
    wire = await tunnel(box)
    endpoint = box.endpoints[0]
    other = await box.endpoint()
    now = asyncio.get_running_loop().time()
    drain = Drain(since_s=now, requests_by_s=now, streams_by_s=now + 0.3, spread_s=0.2)
    await box.apply(
        box.shop(box.pool("blue", [endpoint], 0, drain=drain), box.pool("green", [other], WHOLE))
    )
    await wire.send(b"still")
    assert await wire._reader.readexactly(5) == b"still"
    assert await wire.is_closed()
    assert box.of_pool(stats.P_CUT + stats.TUNNEL) == 1


# ---- the gentle end of WebSockets ----


async def websocket(box: Box, play: Play) -> Wire:
    """A WebSocket to a pool that drains: its moment is now."""
    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    wire = await box.client()
    await wire.send(ASK_WEBSOCKET)
    assert (await wire.answer()).status == 101
    now = box.loop.time()
    drain = Drain(since_s=now, requests_by_s=now, streams_by_s=now)
    blue = box.pool("blue", [endpoint], 0, drain=drain)
    await box.apply(box.shop(blue, box.pool("green", [await box.endpoint()], WHOLE)))
    return wire


def ended(box: Box) -> tuple[int, int]:
    """Tunnels that were closed gently, and those that were cut."""
    return box.of_pool(stats.P_CLOSED + stats.TUNNEL), box.of_pool(stats.P_CUT + stats.TUNNEL)


async def test_a_silent_websocket_is_closed_with_a_handshake_on_both_sides(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH + frame(TEXT, b"hello"))
        await closing(peer)
        closed.set()

    closed = asyncio.Event()
    wire = await websocket(box, play)
    assert await wire._reader.readexactly(7) == frame(TEXT, b"hello")
    await told_to_close(wire)
    assert await wire.is_closed(), "and nothing but the end follows"
    assert closed.is_set()
    wire.close()
    await until(lambda: tunnels(box) == 0, "the tunnel is over")
    assert ended(box) == (1, 0)


@pytest.mark.parametrize("beside_the_switch", [True, False])
async def test_a_close_waits_for_the_end_of_a_message_and_nothing_follows_it(
    box: Box, *, beside_the_switch: bool
) -> None:
    message = frame(TEXT, b"a" * 300, fin=False) + frame(CONTINUATION, b"b" * 300)

    async def play(peer: Peer) -> None:
        await peer.head()
        if beside_the_switch:
            await peer.send(SWITCH + message[:1])
        else:
            await peer.send(SWITCH)
            await peer.send(message[:1])
        at = 1
        for size in (1, 2, 3, 4, 280, 310):  # heads and payloads in pieces
            await asyncio.sleep(0.02)
            await peer.send(message[at : at + size])
            at += size
        await waiting.wait()
        await peer.send(message[at:] + frame(TEXT, b"not this one"))
        await closing(peer)

    waiting = asyncio.Event()
    wire = await websocket(box, play)
    assert await wire._reader.readexactly(601) == message[:601]
    (connection,) = box.plane.connections
    exchange = connection.current
    assert exchange is not None
    await until(lambda: exchange.farewell and exchange.farewell.is_said, "its moment has come")
    assert await wire.stays_open(0.2)  # the read of its byte is given up
    waiting.set()
    assert await wire._reader.readexactly(len(message) - 601) == message[601:]
    await told_to_close(wire)
    assert await wire.is_closed()
    wire.close()
    await until(lambda: tunnels(box) == 0, "the tunnel is over")
    assert ended(box) == (1, 0)


async def test_what_the_endpoint_says_behind_our_close_is_read_and_dropped(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnels_module, "MAX_DROPPED", 200_000)

    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        while True:
            await peer.send(frame(TEXT, bytes(10_000)))

    wire = await websocket(box, play)
    (connection,) = box.plane.connections
    assert connection.current is not None
    assert connection.current.tunnel is not None
    side = connection.current.tunnel._upstream_side
    assert isinstance(side, tunnels_module._FramedSide)
    whole = frame(TEXT, bytes(10_000))
    async with asyncio.timeout(30):
        while (first := await wire._reader.readexactly(2)) == whole[:2]:
            assert await wire._reader.readexactly(10_002) == whole[2:]
    assert first[0] == 0x88
    async with asyncio.timeout(30):
        await wire._reader.readexactly(first[1])
    assert await wire.is_closed(), "nothing follows the Close"
    assert 200_000 < side._dropped < 200_000 + MIB, "then the endpoint is not read any more"
    assert ended(box) == (0, 1), "without an answer it is cut"


async def test_compressed_messages_are_closed_gently_as_well(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(switch(b"permessage-deflate; server_no_context_takeover"))
        await peer.send(frame(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00", mark=0x40))
        await closing(peer)

    wire = await websocket(box, play)
    await wire._reader.readexactly(9)
    await told_to_close(wire)
    assert await wire.is_closed()
    wire.close()
    await until(lambda: tunnels(box) == 0, "the tunnel is over")
    assert ended(box) == (1, 0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(switch(b"x-frames-of-another-kind"), b"", id="another extension"),
        pytest.param(SWITCH, frame(TEXT, b"x", mark=0x40), id="marks that nobody agreed on"),
        pytest.param(SWITCH, b"\x81\x82abcdef", id="masked"),
    ],
)
async def test_where_the_border_is_unsure_there_is_only_the_cut(
    box: Box, answer: bytes, said: bytes
) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer + said)
        await peer.gone()

    wire = await websocket(box, play)
    began_s = box.loop.time()
    assert await wire.rest() == said
    assert box.loop.time() - began_s < 1.5, "there is nothing to wait for"
    assert ended(box) == (0, 1)


async def test_a_message_that_does_not_end_in_time_is_cut(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farewell, "CLOSE_GRACE_S", 0.4)
    half = frame(TEXT, b"never finished")[:9]

    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH + half)
        await peer.gone()

    wire = await websocket(box, play)
    assert await wire.rest() == half
    assert ended(box) == (0, 1)


async def test_an_endpoint_that_has_closed_by_itself_is_not_spoken_over(box: Box) -> None:
    own = frame(8, (1000).to_bytes(2, "big"))

    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH + own)
        await told.wait()
        await peer.reader.readexactly(8)
        peer.writer.close()

    told = asyncio.Event()
    wire = await websocket(box, play)
    (connection,) = box.plane.connections
    exchange = connection.current
    assert exchange is not None
    await until(lambda: exchange.farewell and exchange.farewell.is_said, "its moment has come")
    told.set()
    await wire.send(masked_close(1000))
    assert await wire.rest() == own
    wire.close()
    await until(lambda: tunnels(box) == 0, "the tunnel is over")
    assert ended(box) == (0, 0)


async def test_a_client_that_reads_slowly_gets_all_before_the_close_and_then_the_close(
    box: Box,
) -> None:
    """The endpoint is not read while the client is full: its Close has to wait for both."""

    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        for _ in range(100):
            await peer.send(frame(TEXT, bytes(60_000)))
        all_sent.set()
        await peer.gone()

    all_sent = asyncio.Event()
    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    wire = await box.client(receive=8192)
    await wire.send(ASK_WEBSOCKET)
    (connection,) = await _connections(box)
    await until(lambda: connection.transport.get_write_buffer_size() > 65536, "it is full")
    now = box.loop.time()
    drain = Drain(since_s=now, requests_by_s=now, streams_by_s=now)
    blue = box.pool("blue", [endpoint], 0, drain=drain)
    await box.apply(box.shop(blue, box.pool("green", [await box.endpoint()], WHOLE)))
    exchange = connection.current
    assert exchange is not None
    await until(lambda: exchange.farewell and exchange.farewell.is_said, "its moment has come")
    assert (await wire.answer()).status == 101
    whole, seen = frame(TEXT, bytes(60_000)), 0
    async with asyncio.timeout(30):
        while (first := await wire._reader.readexactly(2)) == whole[:2]:
            assert await wire._reader.readexactly(len(whole) - 2) == whole[2:]
            seen += 1
        assert first[0] == 0x88
        await wire._reader.readexactly(first[1])
    assert 0 < seen < 100, "it was told in the midst of it"
