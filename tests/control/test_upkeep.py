from __future__ import annotations

import sqlite3
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.control.conftest import Until, World


async def test_a_drain_is_ended_although_nobody_asks(world: World, until: Until) -> None:
    controller = await world.start()
    world.fleet.set_in_flight("blue", 1, 0, 0)
    await controller.switch("shop", "green", who="ann")
    world.fleet.set_in_flight("blue", 0, 0, 0)
    await until(lambda: "drained" in world.whats("shop"))
    assert controller.service("shop")["drain"]["done"] is True


async def test_nothing_is_ended_while_an_old_snapshot_may_be_in_force(
    world: World, until: Until
) -> None:
    controller = await world.start()
    world.fleet.apply_error = RuntimeError("lost")
    await controller.switch("shop", "green", who="ann")
    await controller.drain_status("shop", 0.2)
    assert "drained" not in world.whats("shop")
    world.fleet.apply_error = None
    await until(lambda: "drained" in world.whats("shop"))


async def test_what_the_store_does_not_take_is_tried_again(world: World, until: Until) -> None:
    controller = await world.start()
    controller._ledger.store._timeout_s = 0.1
    assert controller._ledger.store._connection
    controller._ledger.store._connection.execute("PRAGMA busy_timeout = 50")
    await controller.set_weights(
        "shop", {"blue": Decimal(50), "green": Decimal(50)}, who="a", ttl_s=5
    )
    other = sqlite3.connect(world.state / "turnout.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        world.clock.advance(6)
        await controller.drain_status("shop", 0)
        assert world.fleet.pool("green").weight == 5000
        other.execute("ROLLBACK")
    finally:
        other.close()
    await until(lambda: world.fleet.pool("green").weight == 0)
