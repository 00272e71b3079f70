"""Limits of a service: its rate, its exchanges at once, and what a pool can take."""

from __future__ import annotations

import pytest

from proxy import stats
from proxy.model import WHOLE, Limits
from tests.dataplane.box import Box, Scripted, until
from tests.dataplane.test_room import Gate, ask, limited_total
from tests.dataplane.test_tunnel import ASK, echo
from tests.e2e.wire import Answer


def said(answer: Answer) -> tuple[int, str | None, str | None]:
    return answer.status, answer.header("retry-after"), answer.header("proxy-status")


REFUSED = (503, "1", "turnout; error=connection_limit_reached")


async def test_over_its_rate_a_service_answers_429_and_keeps_the_connection(box: Box) -> None:
    endpoint = await box.endpoint()
    box.deal(box.service_slot(), stats.LOT_RATE, 3)
    await box.serve(endpoint, limits=Limits(rate=3))
    wire = await box.client()
    answers = [await wire.request("/") for _ in range(5)]
    assert [each.status for each in answers] == [200] * 3 + [429] * 2
    assert said(answers[-1]) == (429, "1", "turnout; error=http_request_denied")
    assert limited_total(box, "rate") == 2
    assert box.of_service(stats.S_BEGUN) == 3
    assert box.answers(4) == 0, "no answer of the pool's"
    box.deal(box.service_slot(), stats.LOT_RATE, 4)
    assert (await wire.request("/")).status == 200


async def test_more_exchanges_at_once_than_allowed_get_a_503(box: Box) -> None:
    gate = Gate()
    endpoint = await box.endpoint(gate)
    box.deal(box.service_slot(), stats.LOT_CONCURRENCY, 2)
    await box.serve(endpoint, limits=Limits(concurrency=2))
    wires = await ask(box, 2)
    await until(lambda: gate.asked == 2, "both are in flight")
    other = await box.client()
    assert said(await other.request("/")) == REFUSED
    assert limited_total(box, "concurrency") == 1
    gate.release(3)
    assert [(await wire.answer()).status for wire in wires] == [200] * 2
    assert (await other.request("/")).status == 200
    assert box.of_service(stats.S_EXCHANGES) == 0


async def test_a_tunnel_counts_until_it_ends(box: Box) -> None:
    endpoint = await box.endpoint(echo)
    box.deal(box.service_slot(), stats.LOT_CONCURRENCY, 1)
    await box.serve(endpoint, limits=Limits(concurrency=1))
    wire = await box.client()
    await wire.send(ASK)
    assert (await wire.answer()).status == 101
    other = await box.client()
    assert said(await other.request("/")) == REFUSED
    wire.close()
    await until(lambda: box.of_service(stats.S_EXCHANGES) == 0, "the tunnel is over")


@pytest.mark.parametrize("leaves", ["client", "endpoint"])
async def test_an_exchange_that_breaks_off_counts_no_longer(box: Box, leaves: str) -> None:
    gate = Gate()
    endpoint = await box.endpoint(gate)
    box.deal(box.service_slot(), stats.LOT_CONCURRENCY, 5)
    await box.serve(endpoint, limits=Limits(concurrency=5))
    (wire,) = await ask(box, 1)
    await until(lambda: gate.asked == 1, "it is in flight")
    assert box.of_service(stats.S_EXCHANGES) == 1
    if leaves == "client":
        wire.close()
    else:
        endpoint.refuse()
    await until(lambda: box.of_service(stats.S_EXCHANGES) == 0, "it is over")


async def _adaptive(box: Box, blue: Scripted, green: Scripted, share: int) -> None:
    pools = box.pool("blue", [blue], WHOLE - 1), box.pool("green", [green], 1)
    for pool, dealt in zip(pools, (share, 100), strict=True):
        box.deal(pool.slot, stats.LOT_POOL_CONCURRENCY, dealt)
    await box.apply(box.shop(*pools, limits=Limits(adaptive=True)))


async def test_a_pool_that_can_take_no_more_does_not_pour_over_into_the_other(box: Box) -> None:
    gate = Gate()
    blue, green = await box.endpoint(gate), await box.endpoint()
    await _adaptive(box, blue, green, share=2)
    wires = await ask(box, 2)
    await until(lambda: gate.asked == 2, "both are in flight")
    other = await box.client()
    assert said(await other.request("/")) == REFUSED
    assert limited_total(box, "adaptive") == 1
    assert box.of_pool(stats.P_LIMITED) == 1
    assert green.connections == 0
    bins = stats.P_DURATION_BINS
    assert sum(box.of_pool(bins + i) for i in range(stats.BINS)) == 0, "says nothing of latency"
    gate.release(2)
    assert [(await wire.answer()).status for wire in wires] == [200] * 2


async def test_tunnels_say_nothing_of_what_a_pool_can_take(box: Box) -> None:
    blue, green = await box.endpoint(echo), await box.endpoint()
    await _adaptive(box, blue, green, share=1)
    for _ in range(3):
        wire = await box.client()
        await wire.send(ASK)
        assert (await wire.answer()).status == 101
