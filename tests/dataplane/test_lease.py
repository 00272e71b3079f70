"""Leases: the last connection first, old ones not for what may not be repeated, the endpoint's own limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from proxy.clock import ManualClock
from proxy.dataplane.lease import FRESH_S
from proxy.model import WHOLE, Drain, Timeouts
from tests.dataplane.box import OK, Box, Peer, Scripted, until


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def still(clock: ManualClock) -> AsyncIterator[Box]:
    """A box whose time only moves when it is told to."""
    made = Box(clock)
    yield made
    await made.end()


async def _advance(box: Box, clock: ManualClock, seconds: float) -> None:
    clock.advance(seconds)
    now = clock.monotonic()
    await until(lambda: box.plane.clock.now == now, "the sweep has seen the time")
    await asyncio.sleep(0)


async def _keep(box: Box, endpoint: Scripted, count: int) -> None:
    """Have that many connections to the endpoint kept."""
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(await box.client()) for _ in range(count)]
        await asyncio.gather(*(wire.request("/") for wire in wires))
    await until(lambda: len(box.live(endpoint).idle) == endpoint.connections, "all are kept")


async def test_the_connection_used_last_is_used_first(box: Box) -> None:
    endpoint = await box.endpoint()
    await box.serve(endpoint)
    await _keep(box, endpoint, 4)
    assert endpoint.connections >= 2
    idle = box.live(endpoint).idle
    last = idle[-1]
    wire = await box.client()
    for _ in range(5):
        await wire.request("/")
        assert idle[-1] is last


async def test_what_may_not_be_repeated_takes_only_a_fresh_connection(
    still: Box, clock: ManualClock
) -> None:
    endpoint = await still.endpoint()
    await still.serve(endpoint)
    wire = await still.client()
    await wire.request("/", method="POST", body=b"x")
    await wire.request("/", method="POST", body=b"x")
    assert endpoint.connections == 1
    await _advance(still, clock, FRESH_S + 0.1)
    await wire.request("/", method="POST", body=b"x")
    assert endpoint.connections == 2
    await _advance(still, clock, FRESH_S + 0.1)
    await wire.request("/")
    assert endpoint.connections == 2, "a GET may be repeated, so it takes an old one"


async def test_kept_connections_close_when_they_have_waited_too_long(
    still: Box, clock: ManualClock
) -> None:
    endpoint = await still.endpoint()
    await still.serve(endpoint, timeouts=Timeouts(upstream_idle_s=30))
    await _keep(still, endpoint, 2)
    await _advance(still, clock, 29)
    assert still.live(endpoint).idle
    await _advance(still, clock, 2)
    await until(lambda: not still.live(endpoint).open, "they are closed")
    assert not still.live(endpoint).idle


@pytest.mark.parametrize("value", [b"timeout=5", b"max=100, timeout=5", b"Timeout=5"])
async def test_a_connection_is_not_kept_longer_than_its_endpoint_says(
    still: Box, clock: ManualClock, value: bytes
) -> None:
    async def play(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(OK.replace(b"\r\n", b"\r\nKeep-Alive: %b\r\n" % value, 1))

    endpoint = await still.endpoint(play)
    await still.serve(endpoint)
    await _keep(still, endpoint, 1)
    await _advance(still, clock, 3.5)
    assert still.live(endpoint).idle
    await _advance(still, clock, 1)
    assert not still.live(endpoint).idle


async def test_a_connection_is_not_kept_when_its_answer_says_close(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        await peer.gone()

    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    wire = await box.client()
    for _ in range(3):
        assert not (await wire.request("/")).closes
    assert endpoint.connections == 3


async def test_a_drained_endpoint_keeps_no_connection(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.send(OK)
        await peer.gone()

    go = asyncio.Event()
    endpoint, other = await box.endpoint(play), await box.endpoint()
    await box.serve(endpoint)
    wire = await box.client()
    asking = box.loop.create_task(wire.request("/"))
    await until(lambda: any(box.in_flight()), "it is in flight")
    later = box.plane.clock.now + 60
    drain = Drain(since_s=0, requests_by_s=later, streams_by_s=later)
    await box.apply(
        box.shop(box.pool("blue", [endpoint], 0, drain=drain), box.pool("green", [other], WHOLE))
    )
    go.set()
    assert (await asking).status == 200
    await until(lambda: not box.live(endpoint).open, "its connection is closed")
    assert (await wire.request("/")).status == 200
    assert (endpoint.connections, other.connections) == (1, 1)


async def test_a_connection_that_is_too_old_serves_no_further_request(
    still: Box, clock: ManualClock
) -> None:
    endpoint = await still.endpoint()
    await still.serve(endpoint, timeouts=Timeouts(upstream_max_age_s=100, upstream_idle_s=1000))
    await _keep(still, endpoint, 3)
    await _advance(still, clock, 89)
    assert len(still.live(endpoint).idle) == endpoint.connections, "none of them yet"
    await _advance(still, clock, 22)
    await until(lambda: not still.live(endpoint).open, "they are closed")


async def test_a_connection_that_is_too_old_is_not_kept_after_its_answer(
    still: Box, clock: ManualClock
) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.send(OK)
        await peer.gone()

    go = asyncio.Event()
    endpoint = await still.endpoint(play)
    await still.serve(endpoint, timeouts=Timeouts(upstream_max_age_s=10))
    asking = still.loop.create_task((await still.client()).request("/"))
    await until(lambda: endpoint.connections, "it is in flight")
    await _advance(still, clock, 12)
    go.set()
    assert (await asking).status == 200
    await until(lambda: not still.live(endpoint).open, "it is closed")


async def test_connections_opened_together_do_not_end_together(still: Box) -> None:
    endpoint = await still.endpoint()
    await still.serve(endpoint, timeouts=Timeouts(upstream_max_age_s=100), warm_connections=8)
    await still.plane.warm("shop", "blue", 1.0)
    ends = {connection.ends_at - connection.born for connection in still.live(endpoint).open}
    assert len(ends) == 8
    assert all(90 <= each <= 110 for each in ends)


async def test_a_new_age_holds_for_connections_that_are_open(
    still: Box, clock: ManualClock
) -> None:
    endpoint = await still.endpoint()
    await still.serve(endpoint, timeouts=Timeouts(upstream_idle_s=1000))
    await _keep(still, endpoint, 1)
    await _advance(still, clock, 60)
    await still.serve(endpoint, timeouts=Timeouts(upstream_idle_s=1000, upstream_max_age_s=30))
    await until(lambda: not still.live(endpoint).open, "it is closed")
