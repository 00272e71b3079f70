"""The moments of a gentle end: idle first, spread, with room for the handshake."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from proxy.dataplane import farewell
from proxy.dataplane.downstream import Downstream
from proxy.dataplane.exchange import Exchange
from proxy.model import CLOSE_GRACE_S, WHOLE, Drain
from tests.dataplane.box import Box, Peer
from tests.dataplane.websocket import ASK, SWITCH, told_to_close
from tests.e2e.wire import Wire


@pytest.mark.parametrize("spread_s", [0.0, 1.0, 4.0, 10.0])
def test_idle_ones_go_before_the_others_and_all_within_the_spread(spread_s: float) -> None:
    idle = [farewell.drawn(100.0, spread_s, is_idle=True) for _ in range(300)]
    busy = [farewell.drawn(100.0, spread_s, is_idle=False) for _ in range(300)]
    assert min(each.at for each in idle) >= 100.0
    assert max(each.at for each in idle) <= min(each.at for each in busy)
    assert max(each.at for each in busy) <= 100.0 + spread_s
    for each in idle + busy:
        assert each.cut_at - each.at >= CLOSE_GRACE_S
        assert each.cut_at <= 100.0 + spread_s + CLOSE_GRACE_S
    if spread_s >= 2 * CLOSE_GRACE_S:
        assert {each.cut_at for each in idle + busy} == {100.0 + spread_s}
    if spread_s:
        moments = sorted(each.at for each in idle + busy)
        used_s = max(spread_s - CLOSE_GRACE_S, spread_s / 2)
        gaps = [late - early for early, late in itertools.pairwise(moments)]
        assert max(gaps) < used_s / 20, "they are spread evenly"
        assert moments[-1] - moments[0] > 0.95 * used_s


def test_what_it_is_told_to_wait_differs_from_client_to_client_and_is_never_nothing() -> None:
    waits = {farewell._retry_ms(10.0) for _ in range(300)}
    assert len(waits) > 250
    assert min(waits) >= 1000 * farewell.MIN_RETRY_S
    assert 9000 < max(waits) <= 11_000


async def _tunnels(box: Box, count: int) -> list[tuple[Wire, Exchange]]:
    """Open WebSockets one by one: each client with its exchange in the plane."""
    await box.serve(await box.endpoint(_listen))
    found = []
    known: set[Downstream] = set()
    for _ in range(count):
        wire = await box.client()
        await wire.send(ASK)
        assert (await wire.answer()).status == 101
        (connection,) = box.plane.connections - known
        known.add(connection)
        assert connection.current is not None
        found.append((wire, connection.current))
    return found


async def _listen(peer: Peer) -> None:
    await peer.head()
    await peer.send(SWITCH)
    await peer.gone()


async def _drain(box: Box, streams_s: float, spread_s: float) -> None:
    now = box.loop.time()
    drain = Drain(since_s=now, requests_by_s=now, streams_by_s=now + streams_s, spread_s=spread_s)
    blue = box.pool("blue", [box.endpoints[0]], 0, drain=drain)
    await box.apply(box.shop(blue, box.pool("green", [await box.endpoint()], WHOLE)))


async def test_those_that_are_silent_go_before_those_that_send(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farewell, "IDLE_S", 1.0)
    tunnels = await _tunnels(box, 16)
    talkers, silent = tunnels[:8], tunnels[8:]

    async def talk() -> None:
        while True:
            for wire, _ in talkers:
                await wire.send(b"x")
            await asyncio.sleep(0.05)

    talking = box.loop.create_task(talk())
    await _drain(box, 1.6, 1.0)
    deadline_s = box.loop.time() + 1.6
    await asyncio.gather(*(told_to_close(wire) for wire, _ in tunnels))
    assert deadline_s - 0.1 < box.loop.time() < deadline_s + 8.0
    talking.cancel()
    assert max(_moment(each) for _, each in silent) <= min(_moment(each) for _, each in talkers)
    assert len({_moment(each) for _, each in tunnels}) == 16


def _moment(exchange: Exchange) -> float:
    assert exchange.farewell is not None
    return exchange.farewell.at


async def test_a_drain_that_is_lifted_before_its_deadline_ends_nothing(box: Box) -> None:
    ((wire, exchange),) = await _tunnels(box, 1)
    await _drain(box, 1.0, 0.0)
    blue, green = box.endpoints
    await box.apply(box.shop(box.pool("blue", [blue], 0), box.pool("green", [green], WHOLE)))
    assert await wire.stays_open(1.6)
    assert exchange.farewell is None


async def test_a_moment_is_drawn_once_for_a_deadline_and_anew_for_a_later_one(box: Box) -> None:
    ((_, exchange),) = await _tunnels(box, 1)
    base = exchange.touched
    assert not farewell.is_due(exchange, base + 10, 5.0, base + 9)
    assert exchange.farewell is None, "who is idle is not known before the deadline"
    farewell.is_due(exchange, base + 10, 5.0, base + 10)
    first = exchange.farewell
    assert first is not None
    assert not farewell.is_due(exchange, base + 10, 5.0, first.at - 0.001)
    assert farewell.is_due(exchange, base + 10, 5.0, first.at)
    assert exchange.farewell is first
    assert not farewell.is_due(exchange, base + 100, 5.0, base + 99)
    farewell.is_due(exchange, base + 100, 5.0, base + 100)
    assert _moment(exchange) >= base + 100
