"""Retries over two workers: what restarts, breaks or freezes costs no client its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.chaos.endpoint import Endpoint, Endpoints
from tests.chaos.fault_proxy import Fault
from tests.e2e.load import Load
from tests.e2e.stage import Stage, Turnout, wait_until
from tests.e2e.wire import Wire
from tests.ports import free_port


@pytest.fixture
def make() -> Iterator[Callable[..., Endpoints]]:
    """Start endpoints, by their numbers in each pool."""
    made = []

    def start(**pools: int) -> Endpoints:
        endpoints = Endpoints(free_port(), **pools)
        made.append(endpoints)
        endpoints.start()
        return endpoints

    yield start
    for endpoints in made:
        endpoints.end()


def _by_term(endpoint: Endpoint) -> None:
    endpoint.terminate()


def _by_kill(endpoint: Endpoint) -> None:
    endpoint.kill()


def _retries(turnout: Turnout, outcome: str) -> float:
    return turnout.metric("turnout_retries_total", service="shop", outcome=outcome)


@pytest.mark.parametrize("end", [_by_term, _by_kill], ids=["SIGTERM", "SIGKILL"])
async def test_four_endpoints_restarted_one_by_one_under_load_cost_no_get(
    stage: Stage, make: Callable[..., Endpoints], end: Callable[[Endpoint], None]
) -> None:
    endpoints = make(blue=4)
    turnout = stage.turnout(endpoints.addresses("blue"), [])
    async with Load(turnout.port, path="/", clients=12) as load:
        await load.more(300)
        for endpoint in endpoints.all:
            end(endpoint)
            await load.more(100)
            await asyncio.to_thread(endpoint.start_again)
            await load.more(100)
    assert load.failures == []
    assert _retries(turnout, "failed") == _retries(turnout, "no_budget") == 0


async def test_two_endpoints_killed_in_quick_turns_under_load_cost_no_get(
    stage: Stage, make: Callable[..., Endpoints]
) -> None:
    """One is ejected still, though it is back, when the other one goes."""
    endpoints = make(blue=2)
    turnout = stage.turnout(endpoints.addresses("blue"), [])
    async with Load(turnout.port, path="/", clients=24, pause_s=0.005) as load:
        await load.more(400)
        for endpoint in endpoints.all * 2:
            endpoint.kill()
            await load.more(100)
            await asyncio.to_thread(endpoint.start_again)
            await load.more(200)
    assert load.failures == []
    # Which of the three it takes is a matter of the moment at which each one died.
    ways = ("retried", "passed_over", "stale_connection")
    assert sum(_retries(turnout, way) for way in ways) > 0


async def test_an_endpoint_that_fails_at_once_under_load_costs_no_get(
    stage: Stage, make: Callable[..., Endpoints]
) -> None:
    """It is always the least busy; before it is ejected the budget could be spent."""
    endpoints = make(blue=2)
    turnout = stage.turnout(endpoints.addresses("blue"), [])
    async with Load(turnout.port, path="/", clients=24, pause_s=0.005) as load:
        await load.more(400)
        endpoints.all[0].turn_to(Fault("reset_before"))
        await load.more(400)
    assert load.failures == []
    assert _retries(turnout, "retried") > 0


async def test_a_bad_release_is_rescued_to_the_last_request_and_counted_to_the_last_failure(
    stage: Stage, make: Callable[..., Endpoints]
) -> None:
    endpoints = make(blue=2, green=1)
    turnout = stage.turnout(
        endpoints.addresses("blue"),
        endpoints.addresses("green"),
        retry={"budget": "20%"},
        ejection="off",
    )
    endpoints.of("green")[0].turn_to(Fault("reset_before"))
    async with Load(turnout.port, path="/") as load:
        await load.more(400)  # a rollout begins in running traffic: the budget is there
        asked = time.monotonic()
        await asyncio.to_thread(turnout.weights, blue=90, green=10)
        began = time.monotonic()
        await load.more(600)
    assert load.failures == []
    assert {seen.pool for seen in load.seen} == {"blue"}
    failed = turnout.metric("turnout_upstream_failures_total", pool="green")
    least = sum(seen.sent_s >= began for seen in load.seen) / 10
    most = sum(seen.sent_s >= asked for seen in load.seen) / 10
    assert least - 12 <= failed <= most + 12
    assert failed == _retries(turnout, "rescued")
    assert failed == turnout.metric("turnout_tried_again_total", pool="green")
    assert turnout.metric("turnout_tried_again_total", pool="blue") == 0
    assert turnout.metric("turnout_requests_total", pool="green") == 0


async def test_a_budget_that_is_spent_ends_the_retries_of_all_workers_together(
    stage: Stage, make: Callable[..., Endpoints]
) -> None:
    endpoints = make(blue=2)
    turnout = stage.turnout(
        endpoints.addresses("blue"),
        [],
        retry={"budget": "0%", "floor": 2},
        balance="round_robin",
        ejection="off",
    )
    endpoints.all[0].turn_to(Fault("reset_before"))
    statuses = []
    for _ in range(40):  # connections of their own, so that both workers have some
        async with await Wire.to(turnout.port) as wire:
            statuses.append((await wire.request("/")).status)
    assert set(statuses) == {200, 502}
    assert _retries(turnout, "retried") == 2
    assert _retries(turnout, "no_budget") == statuses.count(502)
    wait_until(
        lambda: turnout.service()["retries"]["no_budget"] == statuses.count(502),
        "the API says the same",
    )


@pytest.mark.parametrize(
    "noticed",
    [
        {"timeouts": {"response": "3s"}},
        {"health": {"interval": "300ms", "timeout": "1s", "fall": 2}},
    ],
    ids=["by its silence", "by its checks"],
)
async def test_one_of_two_endpoints_frozen_costs_no_get(
    stage: Stage, make: Callable[..., Endpoints], noticed: dict[str, Any]
) -> None:
    endpoints = make(blue=2)
    turnout = stage.turnout(endpoints.addresses("blue"), [], **noticed)
    async with Load(turnout.port, path="/", clients=12) as load:
        await load.more(300)
        endpoints.all[0].freeze()
        await load.more(600)
        endpoints.all[0].thaw()
        await load.more(100)
    assert load.failures == []
    assert _retries(turnout, "retried") > 0


async def test_posts_are_not_sent_twice_when_their_endpoint_is_killed(
    stage: Stage, make: Callable[..., Endpoints]
) -> None:
    endpoints = make(blue=2)
    turnout = stage.turnout(endpoints.addresses("blue"), [])
    answered = []
    are_flowing = asyncio.Event()

    async def client(number: int) -> None:
        async with await Wire.to(turnout.port) as wire:
            for order in range(40):
                target = f"/order?id={number}.{order}"
                answer = await wire.request(target, method="POST", body=b"an order")
                answered.append(answer.status)
                if len(answered) >= 80:
                    are_flowing.set()

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(client(number))
        async with asyncio.timeout(20):
            await are_flowing.wait()
        endpoints.all[0].kill()
    assert len(answered) == 320
    assert set(answered) <= {200, 502}
    orders = endpoints.orders()
    assert set(orders.values()) == {1}
    assert len(orders) >= answered.count(200)
