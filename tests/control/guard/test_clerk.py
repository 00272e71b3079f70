"""The clerk: whose evidence counts over restarts and reloads, what is kept of it, and its ticks."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest

from proxy.control.controller import Controller
from proxy.control.guard import clerk as module
from proxy.control.guard.clerk import KEEP_S, Clerk, House, in_a_phrase, resumed
from proxy.control.guard.rules import Rules
from proxy.control.guard.tape import decode
from proxy.control.guard.ticks import Row
from proxy.control.guard.watch import Watch
from proxy.control.refusal import Unavailable
from proxy.control.rollout.machine import Phase, Rollout
from proxy.control.rollout.plan import Plan, Step
from proxy.control.state import ServiceState
from proxy.policy.judge import Call, Knobs, Verdict
from proxy.stats import JUDGED_WORDS
from tests.control.conftest import World

PLAN = (
    "active: blue\n    rollout: {steps: [{weight: 10, bake: 10s}, {weight: 100, bake: 5s}],"
    " min_requests: 50, keep_old: 60s}"
)
WELL = {"green": (10, 0), "blue": (90, 0)}
SOME_FAIL = {"green": (100, 4), "blue": (900, 1)}


async def baking(world: World, *more: tuple[str, str]) -> Controller:
    world.edit(("active: blue", PLAN), *more)
    controller = await world.start()
    await controller.start_rollout("shop", "green", who="ann")
    await world.tick()
    assert world.phase == "baking"
    return controller


def evidence(world: World, name: str = "errors") -> float:
    tests = {each["name"]: each["evidence"] for each in world.view("guard")["tests"]}
    return float(tests[name])


# ---- restarts ----


async def test_after_a_restart_step_bake_and_evidence_go_on(world: World) -> None:
    controller = await baking(world)
    await world.tick(5, **SOME_FAIL)
    before, known = world.view("rollout"), evidence(world)
    assert known > 0.0
    assert 0.0 < before["bake_left_s"] < 10.0
    await controller.rollouts.clerk.save()
    world.clock.advance(3_600.0)
    controller = await world.restart()
    assert world.in_force() == {"blue": 9_000, "green": 1_000}
    rollout = world.view("rollout")
    for key in ("id", "phase", "step", "requests", "bake_left_s"):
        assert rollout[key] == before[key], key
    world.fleet.beat(world.clock.monotonic())
    await controller.rollouts.clerk.tick("shop")
    assert evidence(world) == pytest.approx(known, abs=0.5)
    assert "evidence lost" not in str(controller.decisions("shop", 0, 100))


@pytest.mark.parametrize("damage", ["DELETE FROM guard", "UPDATE guard SET progress = '{}'"])
async def test_lost_evidence_is_said_and_the_step_bakes_from_zero(
    world: World, damage: str
) -> None:
    controller = await baking(world)
    await world.tick(5, **WELL)
    await controller.rollouts.clerk.save()
    await world.stop()
    with sqlite3.connect(world.state / "turnout.db") as connection:
        connection.execute(damage)
    connection.close()
    await world.restart()
    await world.tick()
    record = world.last("rollout")
    assert record["why"] == "rejudge: evidence lost"
    assert world.view("rollout")["bake_left_s"] == 10.0
    assert world.phase == "baking"


async def test_what_an_earlier_rollout_left_is_no_evidence_against_the_next(world: World) -> None:
    controller = await baking(world)
    await world.tick(5, **SOME_FAIL)
    await controller.rollouts.clerk.save()
    await controller.move_rollout("shop", "abort", who="ann")
    controller = await world.restart()  # before anybody has forgotten it in the store
    await controller.start_rollout("shop", "green", who="ann")
    await world.tick(3, **WELL)
    assert evidence(world) < 0.5
    assert "evidence lost" not in str(controller.decisions("shop", 0, 100))


async def test_a_rollout_that_is_over_leaves_nothing_in_the_store(world: World) -> None:
    controller = await baking(world)
    await world.tick(1, **WELL)
    await controller.rollouts.clerk.save()
    assert set((await stored(world)).keys()) == {"shop"}
    await controller.move_rollout("shop", "abort", who="ann")
    await controller.rollouts.clerk.save()
    assert await stored(world) == {}


async def stored(world: World) -> dict[str, str]:
    with sqlite3.connect(world.state / "turnout.db") as connection:
        found = dict(connection.execute("SELECT service, progress FROM guard"))
    connection.close()
    return found


async def test_a_question_to_the_old_pool_is_asked_anew_after_a_restart(world: World) -> None:
    controller = await baking(world)
    await controller.move_rollout("shop", "promote", who="ann")
    for _ in range(30):
        await world.tick(1, green=(100, 100))
        if world.phase == "asking":
            break
    assert world.phase == "asking"
    await controller.rollouts.clerk.save()
    await world.restart()
    assert world.in_force() == {"blue": 2_000, "green": 8_000}
    await world.tick(1)
    assert world.phase == "asking", "the judge's old FAIL is no answer"
    await world.tick(3, green=(80, 80), blue=(20, 20))
    assert world.phase == "promoted"


async def test_on_restart_pause_waits_for_a_person_and_is_on_record(world: World) -> None:
    await baking(world, ("keep_old: 60s", "keep_old: 60s, on_restart: pause"))
    await world.restart()
    rollout = world.view("rollout")
    assert (rollout["phase"], rollout["paused"]) == ("paused", "restart")
    assert world.last("rollout")["to"]["phase"] == "paused"
    assert world.in_force() == {"blue": 9_000, "green": 1_000}


async def test_without_its_store_the_files_active_pool_has_everything(world: World) -> None:
    await baking(world)
    await world.stop()
    for path in world.state.glob("turnout.db*"):
        path.unlink()
    await world.restart()
    assert (world.view("rollout"), world.view("active")) == (None, "blue")
    assert world.in_force() == {"blue": 10_000, "green": 0}


async def test_a_damaged_store_is_said_and_the_files_active_pool_has_everything(
    world: World,
) -> None:
    await baking(world)
    await world.stop()
    for path in world.state.glob("turnout.db-*"):
        path.unlink()
    (world.state / "turnout.db").write_bytes(b"no database at all" * 100)
    controller = await world.restart()
    assert world.in_force() == {"blue": 10_000, "green": 0}
    assert "damaged" in controller.status()["state"]["problem"]
    assert world.view("rollout") is None


# ---- reloads ----


async def reloaded(world: World, *changes: tuple[str, str]) -> None:
    assert world.controller
    world.edit(*changes)
    view = await world.controller.reload(who="ann")
    assert view["applied"], view["errors"]


async def test_knobs_of_a_reload_hold_for_the_next_judge_also_over_a_restart(world: World) -> None:
    controller = await baking(world)
    await world.tick(2, **WELL)
    bar = world.view("guard")["tests"][0]["bar"]
    await reloaded(world, ("min_requests: 50", "min_requests: 50"), LOOSER)
    await world.tick(1, **WELL)
    assert world.view("guard")["tests"][0]["bar"] == bar
    await controller.rollouts.clerk.save()
    controller = await world.restart()
    await world.tick(1, **WELL)
    assert world.view("guard")["tests"][0]["bar"] == bar
    await controller.move_rollout("shop", "rejudge", who="ann")
    await world.tick(1, **WELL)
    assert world.view("guard")["tests"][0]["bar"] < bar
    assert world.view("guard")["totals"]["green"]["requests"] == 10


LOOSER = ("    rollout:", "    guard: {false_alarm: 5%}\n    rollout:")


async def test_other_endpoints_in_the_file_are_a_step_for_the_judge(world: World) -> None:
    controller = await baking(world)
    await world.tick(2, **WELL)
    told: list[str] = []
    watch = controller.rollouts.clerk._watches["shop"]
    watch.disturbed = lambda: told.append("step")  # type: ignore[method-assign]
    await reloaded(world, ("min_requests: 50", "min_requests: 60"))
    assert told == []
    await reloaded(world, ('"127.0.0.1:9001", "127.0.0.1:9002"', '"127.0.0.1:9001"'))
    assert told == ["step"]
    assert world.phase == "baking"
    assert world.view("rollout")["min_requests"] == 60


# ---- small ones ----


ROLLOUT = Rollout(
    id=3,
    old="blue",
    candidate="green",
    plan=Plan(steps=(Step(weight=10_000),)),
    phase=Phase.BAKING,
)
SAVED = {"rollout": 3, "phase": "baking", "step": 0, "baked_s": 7.0, "had": 70}


def test_clocks_that_were_saved_in_the_same_step_go_on() -> None:
    assert resumed(ROLLOUT, SAVED) == replace(ROLLOUT, baked_s=7.0, had=70)


@pytest.mark.parametrize("other", [{"rollout": 2}, {"phase": "paused"}, {"step": 1}])
def test_clocks_of_another_step_or_rollout_do_not(other: dict[str, object]) -> None:
    assert resumed(ROLLOUT, {**SAVED, **other}) == ROLLOUT
    assert resumed(ROLLOUT, None) == ROLLOUT


@pytest.mark.parametrize(
    ("reason", "words", "said"),
    [
        ("errors", "errors: candidate 5 of 10", "errors: candidate 5 of 10"),
        ("guard: down", "all failed", "guard: down: all failed"),
        ("guard: down", "", "guard: down"),
    ],
)
def test_a_reason_is_not_said_twice(reason: str, words: str, said: str) -> None:
    assert in_a_phrase(Verdict(call=Call.FAIL, reason=reason, words=words, tests=())) == said


# ---- recorded ticks ----

TAPED = Rollout(
    id=3, old="blue", candidate="green", plan=Plan(steps=(Step(weight=10_000),)), phase=Phase.BAKING
)


class Shelf:
    """As much of a house as recording needs: a clock, and a store that may be full."""

    def __init__(self) -> None:
        self.now = 100.0
        self.kept: list[Row] = []
        self.is_full = False
        self.writes = 0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def states(self) -> dict[str, ServiceState]:
        return {}

    def rules(self, _: str) -> Rules:
        return Rules(mode="observe")

    async def write_ticks(self, rows: Sequence[Row]) -> None:
        self.writes += 1
        if self.is_full:
            raise Unavailable("full")
        self.kept += rows


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def clerk(shelf: Shelf) -> Clerk:
    return Clerk(cast("House", shelf))


def tick(clerk: Clerk, shelf: Shelf, count: int = 1) -> None:
    watch = Watch(TAPED, Knobs(), lambda _: [0] * JUDGED_WORDS, shelf.now)
    for _ in range(count):
        shelf.now += 1.0
        seen = watch.look(shelf.now, is_blind=False)
        clerk._tape("shop", TAPED, seen, watch.knobs)


async def test_ticks_are_kept_every_few_seconds_and_each_of_them_once(
    clerk: Clerk, shelf: Shelf
) -> None:
    for _ in range(12):
        tick(clerk, shelf)
        await clerk._save()
    shelf.now += KEEP_S
    await clerk._save()
    assert [row.at for row in shelf.kept] == [100.0 + each for each in range(1, 13)]
    assert shelf.writes <= 4
    assert {(row.service, row.rollout) for row in shelf.kept} == {("shop", 3)}
    assert decode(shelf.kept[0].data).mode == "observe"


async def test_the_last_ticks_are_kept_although_nobody_watches_any_more(
    clerk: Clerk, shelf: Shelf
) -> None:
    tick(clerk, shelf, 3)
    clerk._forget("shop")
    shelf.now += KEEP_S
    await clerk._save()
    assert len(shelf.kept) == 3


async def test_what_a_full_store_does_not_take_is_kept_later_within_a_bound(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 5)
    clerk = Clerk(cast("House", shelf))
    shelf.is_full = True
    tick(clerk, shelf, 8)
    shelf.now += KEEP_S
    await clerk._save()
    assert shelf.kept == []
    shelf.is_full = False
    shelf.now += KEEP_S
    await clerk._save()
    assert [row.at for row in shelf.kept] == [104.0, 105.0, 106.0, 107.0, 108.0]


async def test_nothing_is_written_where_nothing_was_recorded(clerk: Clerk, shelf: Shelf) -> None:
    shelf.now += KEEP_S
    await clerk._save()
    assert shelf.writes == 0
