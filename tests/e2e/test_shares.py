"""The shares of traffic are what the weights say, to the request."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.e2e.load import pools
from tests.e2e.stage import Stage
from tests.e2e.wire import Wire


@pytest.mark.parametrize("percent", [1, 10, 37.5])
async def test_shares_hold_over_all_workers_together(stage: Stage, percent: float) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), workers=2)
    turnout.weights(blue=100 - percent, green=percent)
    counts = await pools(turnout.port, 5000, clients=16)
    assert 100 * counts["green"] / 5000 == pytest.approx(percent, abs=0.3)


async def test_any_thousand_consecutive_requests_of_a_worker_hold_a_one_percent_share(
    stage: Stage,
) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), workers=1)
    turnout.weights(blue=99, green=1)
    async with await Wire.to(turnout.port) as wire:
        seen = [(await wire.request("/who")).pool == "green" for _ in range(3000)]
    windows = {sum(seen[start : start + 1000]) for start in range(2001)}
    assert windows <= set(range(8, 13))


async def test_weights_of_two_decimals_count(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), workers=1)
    view = turnout.weights(blue=99.75, green=0.25)
    assert view["weights"]["in_force"] == {"blue": 99.75, "green": 0.25}
    counts = await pools(turnout.port, 4000, clients=4)
    assert 8 <= counts["green"] <= 12


async def test_zero_means_zero(stage: Stage) -> None:
    turnout = stage.turnout(
        stage.origin("blue"), stage.origin("green"), weights={"blue": 90, "green": 10}
    )
    assert (await pools(turnout.port, 1000))["green"] > 0
    turnout.weights(blue=100, green=0)
    assert await pools(turnout.port, 2000) == Counter({"blue": 2000})


async def test_weights_of_the_file_are_in_force_from_the_first_request(stage: Stage) -> None:
    turnout = stage.turnout(
        stage.origin("blue"), stage.origin("green"), weights={"blue": 0, "green": 100}
    )
    assert await pools(turnout.port, 50) == Counter({"green": 50})


async def test_requests_are_spread_over_the_endpoints_of_a_pool_by_their_weights(
    stage: Stage,
) -> None:
    blue = stage.origin("blue", "v41", 2)
    turnout = stage.turnout(blue, stage.origin("green"), balance="round_robin", workers=1)
    pool = turnout.config["services"]["shop"]["pools"]["blue"]
    light, heavy = blue.addresses
    pool["endpoints"] = [light, {"address": heavy, "weight": 3}]
    turnout.write(turnout.config)
    assert turnout.reload().json()["errors"] == []
    counts: Counter[str] = Counter()
    async with await Wire.to(turnout.port) as wire:
        for _ in range(400):
            counts[(await wire.request("/who")).json()["endpoint"]] += 1
    assert counts == {"blue-1": 100, "blue-2": 300}
