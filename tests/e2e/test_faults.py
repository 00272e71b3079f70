"""What clients see when the bytes between Turnout and one of two endpoints are spoiled.

A GET is tried once more on the other endpoint as long as nothing of an answer was
passed on; a POST that may have arrived is not; an answer that broke off is broken off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chaos.endpoint import Endpoint, Endpoints
from tests.chaos.fault_proxy import Fault
from tests.e2e.load import Load
from tests.e2e.stage import Stage, Turnout
from tests.e2e.wire import Wire, WireError
from tests.ports import free_port

REQUESTS = 8
"""With two endpoints in turn half of them meet the one that is tormented."""


@pytest.fixture
def endpoints() -> Iterator[Endpoints]:
    endpoints = Endpoints(free_port(), blue=2)
    endpoints.start()
    yield endpoints
    endpoints.end()


@pytest.fixture
def bad(endpoints: Endpoints) -> Endpoint:
    return endpoints.all[0]


def _turnout(stage: Stage, endpoints: Endpoints, **service: Any) -> Turnout:
    """In turn to both, and with one worker, so that it is plain whose turn it is."""
    timeouts = {"connect": "1s", "response": "1s", "read_stall": "1s"}
    settings: dict[str, Any] = {
        "balance": "round_robin",
        "timeouts": timeouts,
        "retry": {"attempts": 1, "budget": "100%", "floor": 100},
        "ejection": "off",
        **service,
    }
    return stage.turnout(endpoints.addresses("blue"), [], workers=1, **settings)


async def _ask(turnout: Turnout, method: str = "GET", count: int = REQUESTS) -> Counter[str]:
    """Outcomes of so many requests on kept connections, one after the other."""
    outcomes: Counter[str] = Counter()
    wire = await Wire.to(turnout.port)
    for number in range(count):
        body = b"an order" if method == "POST" else None
        try:
            answer = await wire.request(f"/order?id={number}", method=method, body=body)
        except WireError:
            outcomes["broken off"] += 1
            wire.close()
            wire = await Wire.to(turnout.port)
        else:
            outcomes[str(answer.status)] += 1
    wire.close()
    return outcomes


@pytest.mark.parametrize("are_connections_open", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(),
        Fault("delay", seconds=0.1),
        Fault("drip", seconds=0.02, size=200),
        Fault("refuse"),
        Fault("reset_at_connect"),
        Fault("reset_before"),
        Fault("half_close"),
        Fault("black_hole"),
    ],
    ids=lambda fault: getattr(fault, "kind", ""),
)
async def test_a_get_never_fails_for_a_fault_before_the_answer(
    stage: Stage, endpoints: Endpoints, bad: Endpoint, fault: Fault, *, are_connections_open: bool
) -> None:
    turnout = _turnout(stage, endpoints)
    if are_connections_open:
        assert await _ask(turnout) == {"200": REQUESTS}
    bad.turn_to(fault)
    assert await _ask(turnout) == {"200": REQUESTS}


@pytest.mark.parametrize("kind", ["cut", "reset_within"])
async def test_an_answer_that_breaks_off_is_never_ended_as_if_it_were_whole(
    stage: Stage, endpoints: Endpoints, bad: Endpoint, kind: str
) -> None:
    turnout = _turnout(stage, endpoints)
    bad.turn_to(Fault(kind))  # type: ignore[arg-type]
    assert await _ask(turnout) == {"200": REQUESTS / 2, "broken off": REQUESTS / 2}
    assert turnout.metric("turnout_upstream_failures_total", pool="blue") == REQUESTS / 2


@pytest.mark.parametrize(
    ("fault", "allowed"),
    [
        (Fault(), {"200"}),
        (Fault("delay", seconds=0.1), {"200"}),
        (Fault("refuse"), {"200"}),  # nothing was sent: another endpoint may have it
        (Fault("reset_at_connect"), {"200", "502"}),
        (Fault("reset_before"), {"200", "502"}),
        (Fault("half_close"), {"200", "502"}),
        (Fault("black_hole"), {"200", "504"}),
        (Fault("cut"), {"200", "broken off"}),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
async def test_a_post_arrives_once_at_most_whatever_happens(
    stage: Stage, endpoints: Endpoints, bad: Endpoint, fault: Fault, allowed: set[str]
) -> None:
    turnout = _turnout(stage, endpoints)
    bad.turn_to(fault)
    outcomes = await _ask(turnout, "POST")
    assert {"200"} <= outcomes.keys() <= allowed
    assert outcomes["200"] <= len(endpoints.orders())
    assert set(endpoints.orders().values()) == {1}


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault("reset_at_connect"), 502),
        (Fault("reset_before"), 502),
        (Fault("half_close"), 502),
        (Fault("black_hole"), 504),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
async def test_where_no_other_endpoint_is_left_the_answer_says_whose_fault_it_is(
    stage: Stage, endpoints: Endpoints, fault: Fault, status: int
) -> None:
    turnout = _turnout(stage, endpoints)
    for one in endpoints.all:
        one.turn_to(fault)
    async with await Wire.to(turnout.port) as wire:
        answer = await wire.request("/")
        assert answer.status == status
        assert str(answer.header("proxy-status")).startswith("turnout; error=")
        for one in endpoints.all:
            one.behave()
        assert (await wire.request("/")).status == 200


async def test_a_failure_counts_against_the_pool_though_the_client_was_spared(
    stage: Stage, endpoints: Endpoints, bad: Endpoint
) -> None:
    turnout = _turnout(stage, endpoints)
    bad.turn_to(Fault("reset_before"))
    assert await _ask(turnout) == {"200": REQUESTS}
    assert turnout.metric("turnout_upstream_failures_total", pool="blue") == REQUESTS / 2


async def test_one_of_two_endpoints_frozen_costs_no_get(stage: Stage, endpoints: Endpoints) -> None:
    turnout = _turnout(stage, endpoints, balance="least_requests")
    async with Load(turnout.port, path="/") as load:
        await load.more(100)
        endpoints.all[0].freeze()
        await load.more(400)
        endpoints.all[0].thaw()
        await load.more(100)
    assert load.failures == []
