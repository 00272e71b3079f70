"""Ejections in the control plane: counts of all workers in, marks on the board and words out."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from proxy import stats
from proxy.control.controller import Controller
from tests.control.conftest import BLUE, GREEN, World

FIRST, SECOND = BLUE


class Stage:
    """A running controller whose beats the test gives."""

    def __init__(self, world: World, controller: Controller) -> None:
        self.world = world
        self.controller = controller

    def slot(self, address: str = FIRST, pool: str = "blue") -> int:
        listed = self.world.fleet.pool(pool).endpoints
        return next(each.slot for each in listed if each.address == address)

    def count(self, word: int, amount: int, *, worker: int = 0, address: str = FIRST) -> None:
        self.world.fleet.blocks[worker].words[self.slot(address) + word] += amount

    def beat(self, pass_s: float = 0.1) -> None:
        self.world.clock.advance(pass_s)
        self.controller.ejections.beat(self.world.clock.monotonic())

    def is_ejected(self, address: str = FIRST) -> bool:
        return bool(self.world.fleet.board.state(self.slot(address)) & stats.EJECTED)

    def eject(self, address: str = FIRST) -> None:
        self.beat()
        self.count(stats.E_BAD, 3, worker=0, address=address)
        self.count(stats.E_BAD, 2, worker=1, address=address)
        self.beat()
        assert self.is_ejected(address)

    def view(self, address: str = FIRST) -> Any:
        listed = self.controller.service("shop")["pools"]["blue"]["endpoints"]
        return next(each for each in listed if each["address"] == address)


async def opened(world: World, *changes: tuple[str, str]) -> Stage:
    world.edit(*changes)
    return Stage(world, await world.start())


async def test_failures_that_several_workers_saw_eject_for_all_of_them(world: World) -> None:
    stage = await opened(world)
    stage.eject()
    assert not stage.is_ejected(SECOND)
    assert stage.controller.ejections.counts["shop", "blue"] == 1


async def test_what_was_counted_before_an_endpoint_was_listed_says_nothing(world: World) -> None:
    stage = await opened(world)
    stage.count(stats.E_BAD, 50)
    stage.beat()
    assert not stage.is_ejected()


async def test_an_ejected_endpoint_says_why_and_until_when(world: World) -> None:
    stage = await opened(world)
    assert (stage.view()["ejected"], stage.view()["ejected_until"]) == (False, None)
    with structlog.testing.capture_logs() as logs:
        stage.eject()
        shown = stage.view()
        stage.beat(10.0)
    assert (shown["ejected"], shown["available"]) == (True, False)
    assert shown["ejected_why"] == "5 failures in a row"
    assert shown["ejected_until"] == "2023-11-14T22:13:30.200Z"
    ejected, readmitted = [each for each in logs if each["event"].startswith("endpoint_")]
    named = {"service": "shop", "pool": "blue", "endpoint": FIRST}
    assert named.items() <= ejected.items()
    assert (ejected["event"], ejected["for_s"], ejected["times"]) == ("endpoint_ejected", 10.0, 1)
    assert (readmitted["event"], readmitted["why"]) == ("endpoint_readmitted", "its time is over")


async def test_a_readmitted_endpoint_has_its_moment_on_the_board(world: World) -> None:
    stage = await opened(world)
    stage.eject()
    stage.beat(10.0)
    assert not stage.is_ejected()
    moment = world.fleet.board.words[stage.slot() + stats.B_READMITTED_MS]
    assert moment == int(world.clock.monotonic() * 1000)
    assert stage.view()["available"]


async def test_another_release_at_the_same_addresses_begins_with_a_clean_record(
    world: World,
) -> None:
    stage = await opened(world)
    for _ in range(2):
        stage.eject()
        stage.beat(30.0)
    stage.eject()
    world.edit(("release: v41", "release: v43"))
    assert (await stage.controller.reload(who="test"))["applied"]
    stage.beat()
    assert not stage.is_ejected()
    stage.count(stats.E_BAD, 1)
    stage.beat()
    assert not stage.is_ejected(), "it is not on trial for what the one before did"
    stage.count(stats.E_BAD, 4)
    stage.beat()
    assert stage.is_ejected()
    stage.beat(10.0)
    assert not stage.is_ejected(), "it is its first ejection"


async def test_a_kept_endpoint_stays_ejected_over_a_reload(world: World) -> None:
    stage = await opened(world)
    stage.eject()
    world.edit(('"127.0.0.1:9002"]', '"127.0.0.1:9002", "127.0.0.1:9003"]'))
    assert (await stage.controller.reload(who="test"))["applied"]
    stage.beat()
    assert stage.is_ejected()
    stage.beat(9.9)
    assert not stage.is_ejected()


async def test_a_removed_endpoint_leaves_nothing_on_the_board(world: World) -> None:
    stage = await opened(world)
    stage.eject()
    slot = stage.slot()
    world.edit(('"127.0.0.1:9001", ', ""))
    assert (await stage.controller.reload(who="test"))["applied"]
    world.clock.advance(400.0)
    await stage.controller._upkeep.tick()
    stage.beat()
    assert world.fleet.board.state(slot) == 0
    assert stage.controller.ejections.of("shop", "blue", FIRST) is None


async def test_a_removed_service_leaves_nothing_on_the_board(world: World) -> None:
    stage = await opened(world)
    stage.eject()
    slot = stage.slot()
    world.edit(("  shop:", "  other:"))
    assert (await stage.controller.reload(who="test"))["applied"]
    world.clock.advance(400.0)
    await stage.controller._upkeep.tick()
    stage.beat()
    assert world.fleet.board.state(slot) == 0
    assert stage.controller.ejections.counts["shop", "blue"] == 1, "counters never fall"


async def test_turning_ejection_off_readmits_and_on_again_begins_anew(world: World) -> None:
    stage = await opened(world)
    stage.eject()
    world.edit(("    active: blue", "    ejection: off\n    active: blue"))
    assert (await stage.controller.reload(who="test"))["applied"]
    stage.beat()
    assert not stage.is_ejected()
    stage.count(stats.E_BAD, 50)
    stage.beat()
    world.edit(("    ejection: off\n", ""))
    assert (await stage.controller.reload(who="test"))["applied"]
    stage.beat()
    assert not stage.is_ejected()


@pytest.mark.parametrize("bit", [stats.DOWN, stats.UNCHECKED, stats.ASKS_TO_DRAIN])
async def test_the_last_endpoint_that_is_up_is_not_ejected(world: World, bit: int) -> None:
    stage = await opened(world)
    world.fleet.board.mark(stage.slot(SECOND), bit, on=True)
    stage.beat()
    stage.count(stats.E_BAD, 50)
    stage.beat()
    assert not stage.is_ejected()


async def test_the_last_endpoint_that_can_be_reached_is_not_ejected(world: World) -> None:
    stage = await opened(world)
    later = int((world.clock.monotonic() + 60) * 1000)
    world.fleet.set_unreachable_until("blue", SECOND, later, later)
    stage.beat()
    stage.count(stats.E_BAD, 50)
    stage.beat()
    assert not stage.is_ejected()
    world.fleet.set_unreachable_until("blue", SECOND, later, 0)
    stage.count(stats.E_BAD, 1)
    stage.beat()
    assert stage.is_ejected()


async def test_the_last_endpoint_that_is_not_draining_is_not_ejected(world: World) -> None:
    stage = await opened(world)
    await stage.controller.drain("shop", "blue", SECOND, who="ann")
    stage.beat()
    stage.count(stats.E_BAD, 50)
    stage.beat()
    assert not stage.is_ejected()


async def test_the_only_endpoint_of_a_pool_is_not_ejected(world: World) -> None:
    stage = await opened(world)
    stage.beat()
    slot = stage.slot(GREEN[0], "green")
    world.fleet.blocks[0].words[slot + stats.E_BAD] += 50
    stage.beat()
    assert world.fleet.board.state(slot) == 0


async def test_the_rules_are_those_of_the_file_in_force(world: World) -> None:
    rules = "ejection: {consecutive_failures: 2, base_time: 3s, max_time: 4s}"
    stage = await opened(world, ("    active: blue", f"    {rules}\n    active: blue"))
    stage.beat()
    stage.count(stats.E_BAD, 2)
    stage.beat()
    assert stage.is_ejected()
    stage.beat(3.0)
    assert not stage.is_ejected()
    assert world.fleet.snapshot.services[0].eject_after == 2
