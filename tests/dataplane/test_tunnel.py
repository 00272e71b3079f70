"""Tunnels: bytes both ways, half-closes, backpressure, ends of every kind."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxy import stats
from proxy.dataplane.downstream import Downstream
from proxy.model import WHOLE, Drain, Timeouts
from tests.dataplane.box import Box, Peer, Play, until
from tests.e2e.wire import Wire

ASK = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
MIB = 1024 * 1024


async def upgrade(peer: Peer) -> None:
    await peer.head()
    await peer.send(SWITCH)


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
        await peer.send(SWITCH + b"hello")
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
    async with asyncio.timeout(5):
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
    async with asyncio.timeout(20):
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
    async with asyncio.timeout(10):
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
    await until(lambda: transport.get_extra_info("socket").fileno() < 0, "the client is cut", 4)


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
