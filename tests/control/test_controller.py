from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from proxy.control.refusal import Invalid, NotFound, Refused, Stale

if TYPE_CHECKING:
    from tests.control.conftest import World

D = Decimal


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_starts_with_what_the_file_says(world: World) -> None:
    controller = await world.start()
    view = controller.service("shop")
    assert view["active"] == "blue"
    assert view["weights"] == {
        "declared": {"blue": 100, "green": 0},
        "in_force": {"blue": 100, "green": 0},
        "source": "file",
    }
    assert world.fleet.pool("blue").weight == 10_000
    assert controller.ready() == (True, [])


async def test_a_change_is_in_force_everywhere_when_it_answers(world: World) -> None:
    controller = await world.start()
    view = await controller.set_weights(
        "shop", {"blue": D(90), "green": D("10")}, who="ann", reason="try v42"
    )
    assert view["weights"]["in_force"] == {"blue": 90, "green": 10}
    assert view["weights"]["source"] == "api"
    assert view["candidate"] == "green"
    assert view["applied"] is True
    assert world.fleet.pool("green").weight == 1000
    assert view["overrides"] == [
        {
            "key": "weights",
            "value": {"blue": 90, "green": 10},
            "file_value": {"blue": 100, "green": 0},
            "who": "ann",
            "reason": "try v42",
            "at": "2023-11-14T22:13:20.000Z",
            "until": None,
        }
    ]
