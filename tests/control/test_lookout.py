from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

import pytest

from proxy.control.refusal import Unavailable
from proxy.tasks import Report, spawn

if TYPE_CHECKING:
    from tests.control.conftest import Until, World


async def test_whoever_waits_for_a_service_to_leave_is_told_when_it_has(
    world: World, report: Report
) -> None:
    controller = await world.start()
    world.fleet.set_endpoint_in_flight("blue", "127.0.0.1:9001", 1)
    slot = world.fleet.pool("blue").endpoints[0].slot
    text = world.path.read_text()
    world.write(text.replace("shop:", "blog:"))
    await controller.reload(who="api")
    waiting = spawn(controller.drain_status("shop", 30), name="wait", report=report)
    await asyncio.sleep(0.1)
    assert not waiting.done()
    for block in world.fleet.blocks:
        block.words[slot + 2] = 0
    async with asyncio.timeout(20):
        status = await waiting
    assert status["done"] is True
    assert sum(status["remaining"].values()) == 0
    assert [each["name"] for each in controller.services()] == ["blog"]


async def test_without_workers_nothing_is_ready(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = await world.start()
    monkeypatch.setattr(world.fleet, "workers", list)
    assert controller.ready() == (False, ["no worker is up"])


async def test_a_worker_that_is_behind_is_named(world: World) -> None:
    controller = await world.start()
    old = world.fleet.workers()
    await controller.switch("shop", "green", who="ann")
    world.fleet.workers = lambda: old  # type: ignore[method-assign]
    assert controller.ready()[1] == [
        f"worker {slot} is at revision 1, not yet at 2" for slot in (0, 1)
    ]


async def test_a_reload_the_store_did_not_take_is_visible_and_tried_again(
    world: World, until: Until
) -> None:
    controller = await world.start()
    store = controller._ledger.store
    assert store._connection
    store._connection.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(store.path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        world.edit(("9101", "9102"))
        with pytest.raises(Unavailable):
            await controller.reload(who="api")
        assert await controller._file_changed("found") is None
        assert "took nothing" in controller.status()["config"]["last_error"]
        other.execute("ROLLBACK")
    finally:
        other.close()
    assert await controller._file_changed("found") == controller._loaded.fingerprint
    await until(lambda: world.fleet.pool("green").endpoints[0].address == "127.0.0.1:9102")
    assert controller.status()["config"]["last_error"] is None
