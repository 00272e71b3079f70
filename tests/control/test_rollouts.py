"""A rollout from the start to each of its ends, through the controller, its store and its workers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from proxy.control.controller import Controller
from proxy.control.fleet import Sample
from proxy.control.refusal import Invalid, Refused, Stale
from proxy.tasks import Report, spawn
from tests.control.conftest import World

STEPS = "rollout: {steps: [{weight: 10, bake: 10s}, {weight: 100, bake: 5s}], min_requests: 50"
PLAN = f"active: blue\n    {STEPS}, keep_old: 60s}}"
NEW = [("127.0.0.1:9103", 1)]

Some = tuple[int, int]
WELL: dict[str, Some] = {"green": (10, 0), "blue": (90, 0)}
BADLY: dict[str, Some] = {"green": (10, 10), "blue": (90, 0)}
AT_ALL: dict[str, Some] = {"green": (100, 0)}
ALL_FAIL: dict[str, Some] = {"green": (100, 100)}


async def begun(world: World, *more: tuple[str, str]) -> Controller:
    """A controller with a plan of two steps in its file."""
    world.edit(("active: blue", PLAN), *more)
    return await world.start()


async def baking(world: World, *more: tuple[str, str]) -> Controller:
    """Green has 10 %."""
    controller = await begun(world, *more)
    await controller.start_rollout("shop", "green", who="ann")
    await world.tick()
    assert world.phase == "baking"
    return controller


async def promoted(world: World, *more: tuple[str, str]) -> Controller:
    """Green has everything, and blue is one swap away."""
    controller = await baking(world, *more)
    await controller.move_rollout("shop", "promote", who="ann")
    return controller


async def failed(world: World, phase: str, **traffic: Some) -> None:
    """Tick until the guard has acted."""
    given = traffic or BADLY
    for _ in range(60):
        await world.tick(green=given["green"], blue=given.get("blue", (0, 0)))
        if world.phase == phase:
            return
    raise AssertionError(f"still {world.phase} after a minute")


def split(blue: int, green: int) -> dict[str, Decimal]:
    return {"blue": Decimal(blue), "green": Decimal(green)}


def down(world: World, pool: str) -> None:
    """No worker can connect to any of the pool's endpoints for an hour."""
    until_ms = int((world.clock.monotonic() + 3_600.0) * 1000.0)
    for endpoint in world.fleet.pool(pool).endpoints:
        world.fleet.set_unreachable_until(pool, endpoint.address, until_ms, until_ms)


def up(world: World, pool: str) -> None:
    for endpoint in world.fleet.pool(pool).endpoints:
        world.fleet.set_unreachable_until(pool, endpoint.address, 0, 0)


# ---- all goes well ----


async def test_a_rollout_goes_by_its_steps_to_the_end_and_is_watched_until_keep_old_is_over(
    world: World,
) -> None:
    controller = await begun(world)
    view = await controller.start_rollout("shop", "green", who="ann", reason="v42 at last")
    assert (view["rollout"]["phase"], view["candidate"]) == ("warming", "green")
    assert world.in_force() == {"blue": 10_000, "green": 0}
    await world.tick()
    assert world.in_force() == {"blue": 9_000, "green": 1_000}
    assert world.view("weights")["source"] == "rollout"
    await world.tick(9, **WELL)
    assert world.view("rollout")["bake_left_s"] == 1.0
    await world.tick(1, **WELL)
    assert (world.view("rollout")["step"], world.view("rollout")["requests"]) == (2, 0)
    assert world.in_force() == {"blue": 100, "green": 9_900}, "the holdback"
    await world.tick(5, green=(99, 0), blue=(1, 0))
    assert (world.phase, world.view("active"), world.view("candidate")) == (
        "promoted",
        "green",
        None,
    )
    assert world.in_force() == {"blue": 0, "green": 10_000}
    await world.tick(60, **AT_ALL)
    assert (world.phase, world.view("rollout")["end"]) == ("steady", "finished")
    assert world.view("active") == "green"


async def test_the_clock_stands_without_traffic_and_the_etag_with_it_alone(world: World) -> None:
    controller = await baking(world)
    etag = controller.etag("shop")
    await world.tick(5, **WELL)
    assert world.view("rollout")["bake_left_s"] == 5.0
    await world.tick(20)
    assert world.view("rollout")["bake_left_s"] == 5.0
    assert controller.etag("shop") == etag
    await controller.move_rollout("shop", "pause", who="ann", if_match=etag)
    with pytest.raises(Stale):
        await controller.move_rollout("shop", "resume", who="ann", if_match=etag)


async def test_every_snapshot_the_workers_get_sums_to_the_whole(world: World) -> None:
    controller = await promoted(world)
    await controller.rollback("shop", who="ann")
    await controller.start_rollout("shop", "green", who="ann")
    await world.tick()
    await controller.set_weights("shop", split(60, 40), who="ann")
    await failed(world, "rolled_back", green=(40, 40), blue=(60, 0))
    for snapshot in world.fleet.applied:
        (shop,) = snapshot.services
        assert sum(pool.weight for pool in shop.pools) == 10_000


async def test_the_old_pools_record_outlives_a_switch_that_was_turned_back(world: World) -> None:
    controller = await begun(world)
    await world.tick(20, blue=(100, 0))
    for _ in range(2):
        await controller.switch("shop", "green", who="ann")
        await world.tick(2, **AT_ALL)
        assert "record" in {each["name"] for each in world.view("guard")["tests"]}
        await controller.rollback("shop", who="ann")
        await world.tick()


# ---- it does not ----


async def test_a_candidate_turned_back_for_its_4xx_shows_some_of_them(world: World) -> None:
    await baking(world)
    now = time.monotonic()
    failure = Sample(request_id="r1", status=500, failure=None, endpoint="127.0.0.1:9101", at=now)
    refusal = replace(failure, request_id="r2", status=404)
    world.fleet.failures["green"] = [failure] * 8 + [refusal] * 8
    for _ in range(40):
        if world.phase == "rolled_back":
            break
        world.fleet.refused("green", 40)
        await world.tick(green=(40, 0), blue=(360, 0))
    numbers = world.last("rollback")["numbers"]
    assert numbers["reason"] == "4xx"
    assert [each["request_id"] for each in numbers["samples"]] == ["r2"] * 5


async def test_a_bad_candidate_is_turned_back_with_numbers_samples_and_a_reason(
    world: World,
) -> None:
    await baking(world)
    at = time.monotonic()
    sample = Sample(request_id="r1", status=500, failure=None, endpoint="127.0.0.1:9101", at=at)
    refusal = replace(sample, request_id="r0", status=404)
    world.fleet.failures["green"] = [refusal] * 8 + [sample]
    epoch = world.fleet.pool("green").epoch
    await failed(world, "rolled_back")
    assert world.in_force() == {"blue": 10_000, "green": 0}
    assert world.view("active") == "blue"
    assert world.fleet.pool("green").epoch == epoch + 1
    record = world.last("rollback")
    assert (record["who"], record["from"]["phase"], record["to"]["phase"]) == (
        "guard",
        "baking",
        "rolled_back",
    )
    numbers = record["numbers"]
    assert (numbers["verdict"], numbers["release"], numbers["candidate"]) == (
        "FAIL",
        "v42",
        "green",
    )
    assert {each["name"] for each in numbers["tests"]} >= {"errors", "latency"}
    (told,) = numbers["samples"]
    assert (told["request_id"], told["status"], told["endpoint"]) == ("r1", 500, "127.0.0.1:9101")
    assert 0 <= told["age_s"] < 60
    rollout, lockout = world.view("rollout"), world.view("lockout")
    assert rollout["reason"] == record["why"] == lockout["reason"]
    assert rollout["end"] == "rolled_back"
    assert lockout["release"] == "v42"
    assert "errors: errors" not in record["why"]


async def test_a_locked_release_starts_only_after_an_unlock_or_by_force(world: World) -> None:
    controller = await baking(world)
    await failed(world, "rolled_back")
    with pytest.raises(Refused, match="v42 is locked out since rollout 1 was rolled back"):
        await controller.start_rollout("shop", "green", who="ann")
    with pytest.raises(Refused, match="locked out"):
        await controller.switch("shop", "green", who="ann")
    view = await controller.unlock("shop", who="ann", reason="it was the database")
    assert (view["lockout"], view["rollout"]["phase"]) == (None, "steady")
    assert view["rollout"]["end"] == "rolled_back"
    with pytest.raises(Refused, match="nothing of shop is locked out"):
        await controller.unlock("shop", who="ann")
    view = await controller.start_rollout("shop", "green", who="ann")
    assert view["rollout"]["id"] == 2


async def test_force_starts_a_locked_release_with_the_judge_on(world: World) -> None:
    controller = await baking(world)
    await failed(world, "rolled_back")
    await controller.start_rollout("shop", "green", force=True, who="ann", reason="sure")
    assert world.last("rollout")["numbers"]["force"] is True
    await world.tick()
    assert world.view("lockout") is None
    await failed(world, "rolled_back")
    assert world.view("lockout")["rollout"] == 2


async def test_right_after_a_rollback_there_is_nothing_to_go_back_to(world: World) -> None:
    controller = await baking(world)
    await failed(world, "rolled_back")
    with pytest.raises(Refused, match="rollout 1 is rolled back already: blue has everything"):
        await controller.rollback("shop", who="ann")


async def test_observe_says_once_what_it_would_have_done_and_moves_nothing(world: World) -> None:
    await baking(world, (PLAN, f"{PLAN}\n    guard: {{mode: observe}}"))
    await world.tick(8, **BADLY)
    assert world.phase == "baking"
    assert world.in_force() == {"blue": 9_000, "green": 1_000}
    assert world.whats("shop").count("guard") == 1
    assert world.last("guard")["why"].startswith("would have rolled back: ")
    assert world.view("guard")["verdict"] == "FAIL"


async def test_with_the_guard_off_a_bad_candidate_goes_by_its_steps(world: World) -> None:
    await baking(world, (PLAN, f"{PLAN}\n    guard: {{mode: off}}"))
    await world.tick(10, **BADLY)
    assert world.view("rollout")["step"] == 2
    assert "guard" not in world.whats("shop")


async def test_a_hold_of_blind_workers_stops_the_clock(world: World) -> None:
    controller = await baking(world)
    await world.tick(3, **WELL)
    world.fleet.beat(world.clock.monotonic())
    for _ in range(15):  # the counters move, but no worker says that it lives
        world.clock.advance(1.0)
        world.fleet.judged("green", 10)
        await controller.rollouts.clerk.tick("shop")
    assert (world.view("guard")["verdict"], world.view("guard")["reason"]) == ("HOLD", "blind")
    left_s = world.view("rollout")["bake_left_s"]
    world.clock.advance(1.0)
    world.fleet.judged("green", 10)
    await controller.rollouts.clerk.tick("shop")
    assert (world.phase, world.view("rollout")["bake_left_s"]) == ("baking", left_s)


async def test_a_worker_that_dies_takes_nothing_of_the_evidence_with_it(world: World) -> None:
    controller = await baking(world)
    await world.tick(3, **WELL)
    world.fleet.judged("green", 7)
    world.fleet.lose(0)
    await world.tick(1, **WELL)
    assert world.view("guard")["sides"]["green"]["requests"] == 17
    totals = world.view("guard")["totals"]
    assert (totals["green"]["requests"], totals["blue"]["requests"]) == (47, 360)
    assert controller.service("shop")["rollout"]["requests"] == 47


# ---- deploy ----


async def test_a_deploy_fills_the_idle_pool_and_begins(world: World) -> None:
    controller = await begun(world)
    view = await controller.deploy("shop", endpoints=NEW, release="v43", who="ci")
    assert view["pools"]["green"]["release"] == "v43"
    assert (view["rollout"]["release"], view["rollout"]["phase"]) == ("v43", "warming")
    listed = {each["address"]: each["leaving"] for each in view["pools"]["green"]["endpoints"]}
    assert listed["127.0.0.1:9103"] is False
    assert listed.get("127.0.0.1:9101", True) is True, "at most still leaving"
    assert world.in_force() == {"blue": 10_000, "green": 0}


async def test_a_deploy_that_is_never_ready_changes_nothing(world: World) -> None:
    controller = await begun(world)
    before = controller.service("shop")
    world.probes.problems["127.0.0.1:9103"] = "connection refused"
    await controller.deploy("shop", endpoints=NEW, release="v43", ready_timeout_s=5.0, who="ci")
    await world.tick(4)
    assert world.phase == "warming"
    await world.tick(1)
    rollout, after = world.view("rollout"), controller.service("shop")
    assert (rollout["phase"], rollout["end"]) == ("steady", "not_ready")
    assert rollout["reason"] == "not ready within 5 s: 127.0.0.1:9103: connection refused"
    for key in ("active", "weights", "overrides", "lockout"):
        assert after[key] == before[key], key
    assert after["pools"]["green"]["release"] == "v42"
    assert world.in_force() == {"blue": 10_000, "green": 0}


async def test_a_deploy_that_is_never_ready_leaves_a_lockout_and_a_split_by_hand(
    world: World,
) -> None:
    controller = await baking(world)
    await failed(world, "rolled_back")
    world.probes.problems["127.0.0.1:9103"] = "connection refused"
    await controller.deploy("shop", endpoints=NEW, release="v43", ready_timeout_s=1.0, who="ci")
    await world.tick(2)
    assert world.view("rollout")["end"] == "not_ready"
    assert world.view("pools")["green"]["release"] == "v42"
    with pytest.raises(Refused, match="v42 is locked out"):
        await controller.start_rollout("shop", "green", who="ann")


async def test_an_abort_while_warming_puts_the_pool_back(world: World) -> None:
    controller = await begun(world)
    world.probes.problems["127.0.0.1:9103"] = "connection refused"
    await controller.deploy("shop", endpoints=NEW, release="v43", who="ci")
    view = await controller.move_rollout("shop", "abort", who="ann")
    assert view["rollout"]["end"] == "aborted"
    assert view["pools"]["green"]["release"] == "v42"


async def test_some_endpoints_are_enough_where_that_was_said(world: World) -> None:
    controller = await begun(world)
    world.probes.problems["127.0.0.1:9104"] = "connection refused"
    two = [*NEW, ("127.0.0.1:9104", 1)]
    await controller.deploy("shop", endpoints=two, release="v43", min_ready=1, who="ci")
    await world.tick()
    assert world.phase == "baking"


async def test_now_switches_as_soon_as_it_is_ready(world: World) -> None:
    controller = await begun(world)
    await controller.deploy("shop", endpoints=NEW, release="v43", now=True, who="ci")
    await world.tick()
    assert world.in_force() == {"blue": 0, "green": 10_000}
    await world.tick()
    assert (world.phase, world.view("active")) == ("promoted", "green")


async def test_one_step_with_everything_still_waits_for_its_sample(world: World) -> None:
    controller = await begun(world)
    steps = [(10_000, 0.0, False)]
    await controller.deploy("shop", endpoints=NEW, release="v43", steps=steps, who="ci")
    await world.tick(2)
    assert world.phase == "baking"
    await world.tick(1, green=(99, 0), blue=(1, 0))
    assert world.phase == "promoted"


async def test_a_second_deploy_is_refused_naming_the_first(world: World) -> None:
    controller = await begun(world)
    await controller.deploy("shop", endpoints=NEW, release="v43", who="ci")
    with pytest.raises(Refused, match="rollout 1 of v43 to green is warming"):
        await controller.deploy("shop", endpoints=NEW, release="v44", who="ci")
    assert world.view("pools")["green"]["release"] == "v43"


async def test_the_active_pool_is_not_deployed_into(world: World) -> None:
    controller = await begun(world)
    with pytest.raises(Refused, match="blue is the active pool of shop; deploy into the other"):
        await controller.deploy("shop", endpoints=NEW, release="v43", pool="blue", who="ci")


async def test_the_next_deploy_may_begin_while_the_last_is_only_watched(world: World) -> None:
    controller = await promoted(world)
    await controller.deploy("shop", endpoints=NEW, release="v43", who="ci")
    assert (world.view("rollout")["candidate"], world.view("rollout")["old"]) == ("blue", "green")
    await world.tick()
    assert world.in_force() == {"blue": 1_000, "green": 9_000}


async def test_a_deploy_while_tunnels_of_the_release_before_drain_leaves_them_their_time(
    world: World,
) -> None:
    controller = await promoted(world)
    world.fleet.set_endpoint_in_flight("blue", "127.0.0.1:9001", 1)
    await controller.deploy("shop", endpoints=NEW, release="v43", who="ci")
    await world.tick()
    assert world.phase == "baking"
    listed = {each["address"]: each for each in world.view("pools")["blue"]["endpoints"]}
    assert listed["127.0.0.1:9001"]["leaving"]
    assert not listed["127.0.0.1:9103"]["leaving"]


async def test_readiness_of_one_rollout_is_not_another_ones(world: World, report: Report) -> None:
    controller = await begun(world)
    await controller.deploy("shop", endpoints=NEW, release="v43", who="ci")
    is_asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(address: str) -> None:
        assert address == "127.0.0.1:9103"
        is_asked.set()
        await go_on.wait()

    controller._probe = slow
    tick = spawn(controller.rollouts.clerk.tick("shop"), name="tick", report=report)
    await is_asked.wait()
    await controller.move_rollout("shop", "abort", who="ann")
    other = [("127.0.0.1:9104", 1)]
    await controller.deploy("shop", endpoints=other, release="v44", who="ci")
    go_on.set()
    await tick
    assert (world.phase, world.view("rollout")["id"]) == ("warming", 2)


# ---- by hand ----


async def test_weights_by_hand_are_judged_and_a_resume_goes_on_at_the_next_step(
    world: World,
) -> None:
    controller = await baking(world)
    await controller.set_weights("shop", split(70, 30), who="ann")
    assert (world.phase, world.in_force()["green"]) == ("manual", 3_000)
    await world.tick(20, green=(30, 0), blue=(70, 0))
    assert world.phase == "manual"
    await controller.move_rollout("shop", "resume", who="ann")
    assert (world.phase, world.view("rollout")["step"]) == ("baking", 2)


@pytest.mark.parametrize(
    ("green", "phase", "end"), [(0, "steady", "aborted"), (100, "promoted", None)]
)
async def test_nothing_by_hand_is_an_abort_and_everything_a_promotion(
    world: World, green: int, phase: str, end: str | None
) -> None:
    controller = await baking(world)
    await controller.set_weights("shop", split(100 - green, green), who="ann")
    assert (world.phase, world.view("rollout")["end"]) == (phase, end)
    assert world.in_force() == {"blue": 100 * (100 - green), "green": 100 * green}


async def test_weights_by_hand_after_the_promotion_end_the_watch(world: World) -> None:
    controller = await promoted(world)
    await controller.set_weights("shop", split(10, 90), who="ann")
    assert (world.phase, world.view("rollout")["end"]) == ("steady", "superseded")
    assert world.in_force() == {"blue": 1_000, "green": 9_000}
    await world.tick(20, green=(90, 90), blue=(10, 0))
    assert world.in_force() == {"blue": 1_000, "green": 9_000}


async def test_weights_of_a_pool_that_does_not_exist_are_invalid(world: World) -> None:
    controller = await begun(world)
    weights = {"blue": Decimal(50), "purple": Decimal(50)}
    with pytest.raises(Invalid, match="shop has no pool purple"):
        await controller.set_weights("shop", weights, who="ann")


async def test_everything_to_the_old_pool_by_hand_is_a_switch_that_is_watched(
    world: World,
) -> None:
    controller = await promoted(world)
    await controller.set_weights("shop", split(100, 0), who="ann")
    rollout = world.view("rollout")
    assert (rollout["phase"], rollout["old"], rollout["candidate"]) == (
        "promoted",
        "green",
        "blue",
    )


async def test_a_switch_is_watched_and_turned_back_when_it_fails(world: World) -> None:
    controller = await begun(world)
    view = await controller.switch("shop", "green", who="ann")
    assert (view["rollout"]["phase"], view["rollout"]["reason"]) == ("promoted", "switched at once")
    await failed(world, "asking", **ALL_FAIL)
    assert world.in_force() == {"blue": 2_000, "green": 8_000}
    await failed(world, "rolled_back", green=(80, 80), blue=(20, 0))
    assert world.in_force() == {"blue": 10_000, "green": 0}
    assert world.view("lockout")["release"] == "v42"


async def test_an_old_pool_that_fares_no_better_gets_nobody_back(world: World) -> None:
    controller = await begun(world)
    await controller.switch("shop", "green", who="ann")
    await failed(world, "asking", **ALL_FAIL)
    await failed(world, "promoted", green=(80, 80), blue=(20, 20))
    assert world.view("rollout")["reason"].startswith("turning back would not help")
    assert world.view("rollout")["paused"] is None
    assert world.in_force() == {"blue": 0, "green": 10_000}


async def test_switching_back_while_it_is_watched_is_allowed_and_watched(world: World) -> None:
    controller = await promoted(world)
    view = await controller.switch("shop", "blue", who="ann")
    assert (view["active"], view["rollout"]["id"], view["rollout"]["candidate"]) == (
        "blue",
        2,
        "blue",
    )


async def test_a_switch_to_the_pool_in_charge_takes_a_split_back_and_watches_nothing(
    world: World,
) -> None:
    controller = await begun(world)
    await controller.set_weights("shop", split(90, 10), who="ann")
    view = await controller.switch("shop", "blue", who="ann")
    assert (view["rollout"], view["active"]) == (None, "blue")
    assert world.in_force() == {"blue": 10_000, "green": 0}


async def test_nothing_else_begins_while_a_rollout_is_under_way(world: World) -> None:
    controller = await baking(world)
    for verb in (controller.start_rollout, controller.switch):
        with pytest.raises(Refused, match="rollout 1 of v42 to green is baking"):
            await verb("shop", "green", who="ann")


@pytest.mark.parametrize("phase", ["baking", "paused", "manual", "promoted"])
@pytest.mark.parametrize("locked", [None, "v42"])
async def test_a_person_rolls_back_from_every_phase_and_locks_only_when_told(
    world: World, phase: str, locked: str | None
) -> None:
    controller = await (promoted(world) if phase == "promoted" else baking(world))
    if phase == "paused":
        await controller.move_rollout("shop", "pause", who="ann")
    if phase == "manual":
        await controller.set_weights("shop", split(70, 30), who="ann")
    assert world.phase == phase
    view = await controller.rollback("shop", lock=locked is not None, who="ann", reason="it smells")
    assert (view["rollout"]["phase"], view["rollout"]["reason"]) == ("rolled_back", "it smells")
    assert world.in_force() == {"blue": 10_000, "green": 0}
    assert (view["lockout"] or {}).get("release") == locked
    assert controller.rollouts.clerk.rollbacks["shop", "operator"] == 1


async def test_a_plain_rollback_locks_when_told(world: World) -> None:
    controller = await promoted(world)
    await world.tick(61, **AT_ALL)
    assert world.phase == "steady"
    view = await controller.rollback("shop", lock=True, who="ann", reason="it smells")
    assert view["lockout"]["release"] == "v42"
    with pytest.raises(Refused, match=r"v42 is locked out since a rollback \(it smells\)"):
        await controller.switch("shop", "green", who="ann")
    assert (await controller.unlock("shop", who="ann"))["lockout"] is None


async def test_without_the_old_pool_turning_back_takes_force(world: World) -> None:
    controller = await baking(world)
    down(world, "blue")
    for address in ("127.0.0.1:9001", "127.0.0.1:9002"):
        world.probes.problems[address] = "connection refused"
    with pytest.raises(Refused, match="connection refused"):
        await controller.rollback("shop", who="ann")
    with pytest.raises(Refused, match="blue has nothing available"):
        await controller.move_rollout("shop", "abort", who="ann")
    assert world.phase == "baking"
    await controller.move_rollout("shop", "abort", force=True, who="ann")
    assert world.in_force() == {"blue": 10_000, "green": 0}
    await controller.start_rollout("shop", "green", who="ann")
    await world.tick()
    await controller.rollback("shop", force=True, who="ann")
    assert world.phase == "rolled_back"


async def test_without_the_old_pool_a_bad_candidate_is_stuck_until_it_is_back(
    world: World,
) -> None:
    await baking(world)
    down(world, "blue")
    await failed(world, "stuck")
    assert world.in_force() == {"blue": 9_000, "green": 1_000}
    await world.tick(5, **BADLY)
    assert world.phase == "stuck"
    up(world, "blue")
    await world.tick(1, **BADLY)
    assert world.phase == "rolled_back"


async def test_a_candidate_without_endpoints_left_is_judged_by_its_errors_alone(
    world: World,
) -> None:
    await baking(world)
    down(world, "green")
    await world.tick(3, blue=(100, 0))
    assert world.phase == "baking", "users go to the other pool; missing data is no failure"
    await failed(world, "rolled_back")


async def test_another_release_in_a_pool_on_trial_is_another_rollout(world: World) -> None:
    controller = await baking(world)
    for pool in ("green", "blue"):
        with pytest.raises(Refused, match="another release is another rollout"):
            await controller.set_pool("shop", pool, endpoints=NEW, release="v9", who="ann")
    await controller.set_pool("shop", "green", endpoints=NEW, release="v42", who="ann")
    assert world.phase == "baking"


async def test_filling_the_old_pool_anew_ends_the_watch(world: World) -> None:
    controller = await promoted(world)
    await controller.set_pool("shop", "blue", endpoints=NEW, release="v43", who="ann")
    assert (world.phase, world.view("rollout")["end"]) == ("steady", "superseded")
    assert world.view("active") == "green"
    assert world.in_force() == {"blue": 0, "green": 10_000}


async def test_weights_for_a_time_run_out_only_after_the_rollout(world: World) -> None:
    controller = await begun(world)
    await controller.set_weights(
        "shop",
        split(0, 100),
        ttl_s=60.0,
        who="ann",
    )
    assert world.view("rollout") is None, "what ends by itself is not watched"
    await controller.start_rollout("shop", "blue", who="ann")
    await world.tick()
    world.clock.advance(120.0)
    await controller._upkeep.tick()
    assert (world.phase, world.view("active")) == ("baking", "green")
    await controller.move_rollout("shop", "abort", who="ann")
    assert (world.view("active"), world.in_force()["green"]) == ("green", 10_000)


async def test_a_release_that_fails_while_a_hook_thinks_is_turned_back_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = await baking(world)
    asked = asyncio.Event()

    async def ask(*_: object) -> str | None:
        asked.set()
        await asyncio.sleep(60)
        return None

    monkeypatch.setattr(controller.rollouts.hooks, "ask", ask)
    while not asked.is_set():
        await world.tick(1, green=(40, 0), blue=(360, 0))
    step = controller.service("shop")["rollout"]["step"]
    await world.tick(1, green=(40, 0), blue=(360, 0))
    assert controller.service("shop")["rollout"]["step"] == step, "it waits for leave"
    await world.tick(3, green=(40, 40), blue=(360, 0))
    assert controller.service("shop")["rollout"]["phase"] == "rolled_back"


async def test_hooks_that_refuse_keep_it_from_starting_and_from_its_next_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = await begun(world)
    words = {"started": "the change board says no"}

    async def ask(service: str, moment: str, record: dict[str, Any]) -> str | None:
        assert (service, record["candidate"]) == ("shop", "green")
        return words.get(moment)

    monkeypatch.setattr(controller.rollouts.hooks, "ask", ask)
    await controller.start_rollout("shop", "green", who="ann")
    await world.tick()
    assert world.view("rollout")["reason"] == "not started: the change board says no"
    assert world.view("rollout")["end"] == "not_ready"
    words.clear()
    await controller.start_rollout("shop", "green", who="ann")
    await world.tick()
    words["step"] = "not on a Friday"
    await world.tick(10, **WELL)
    rollout = world.view("rollout")
    assert (rollout["phase"], rollout["paused"], rollout["reason"], rollout["step"]) == (
        "paused",
        "hook",
        "not on a Friday",
        1,
    )


# ---- the file changes meanwhile ----


async def reloaded(world: World, *changes: tuple[str, str]) -> dict[str, Any]:
    assert world.controller
    world.edit(*changes)
    return await world.controller.reload(who="ann")


GREEN_LINE = '      green: {endpoints: ["127.0.0.1:9101"], release: v42}\n'


async def test_a_file_that_takes_a_pool_of_the_rollout_away_is_refused_whole(
    world: World,
) -> None:
    await baking(world)
    view = await reloaded(world, (GREEN_LINE, ""), ("min_requests: 50", "min_requests: 60"))
    assert not view["applied"]
    assert "services.shop.pools.green is gone, and rollout 1 of v42 to green" in view["errors"][0]
    assert world.view("rollout")["min_requests"] == 50
    assert world.in_force() == {"blue": 9_000, "green": 1_000}


async def test_once_it_is_promoted_the_old_pool_may_go(world: World) -> None:
    await promoted(world)
    view = await reloaded(
        world,
        ('      blue: {endpoints: ["127.0.0.1:9001", "127.0.0.1:9002"], release: v41}\n', ""),
        ("active: blue", "active: green"),
    )
    assert view["applied"], view["errors"]
    assert world.view("rollout")["end"] == "superseded"
    assert world.fleet.pool("green").weight == 10_000


async def test_a_file_with_other_weights_wins(world: World) -> None:
    await baking(world)
    view = await reloaded(
        world, ("active: blue", "active: blue\n    weights: {blue: 80, green: 20}")
    )
    assert view["applied"], view["errors"]
    assert (world.phase, world.view("rollout")["end"]) == ("steady", "superseded")
    assert world.in_force() == {"blue": 8_000, "green": 2_000}
    assert world.view("weights")["source"] == "file"


async def test_a_file_gives_a_locked_release_nothing(world: World) -> None:
    await baking(world)
    await failed(world, "rolled_back")
    view = await reloaded(
        world, ("active: blue", "active: blue\n    weights: {blue: 80, green: 20}")
    )
    assert view["applied"], view["errors"]
    assert world.in_force() == {"blue": 10_000, "green": 0}
    assert world.last("lockout")["why"].startswith("v42 is locked out")


async def test_a_service_that_leaves_the_file_takes_its_rollout_with_it(world: World) -> None:
    controller = await baking(world)
    world.fleet.set_endpoint_in_flight("green", "127.0.0.1:9101", 1)
    text = world.path.read_text()
    world.write(text[: text.index("services:")] + "services: {}\n")
    view = await controller.reload(who="ann")
    assert view["applied"], view["errors"]
    await controller.rollouts.clerk.tick("shop")
    assert world.view("rollout")["end"] == "superseded"
    world.write(text)
    await controller.reload(who="ann")
    view = await controller.start_rollout("shop", "green", who="ann")
    assert view["rollout"]["id"] == 2, "no number is used twice"


# ---- starved ----


@pytest.mark.parametrize(
    ("rule", "phase", "why"),
    [
        ("wait", "paused", "starved"),
        ("promote", "promoted", None),
        ("roll_back", "rolled_back", None),
    ],
)
async def test_without_its_sample_the_plan_decides(
    world: World, rule: str, phase: str, why: str | None
) -> None:
    starving = ("keep_old: 60s", f"keep_old: 60s, starve_limit: 60s, on_starved: {rule}")
    controller = await baking(world, starving)
    await world.tick(60)
    rollout = world.view("rollout")
    assert (rollout["phase"], rollout["paused"]) == (phase, why)
    assert rollout["reason"] == "only 0 of 50 requests in 60 s"
    assert world.view("lockout") is None, "missing data is no failure"
    turned_back = 1 if phase == "rolled_back" else 0
    assert controller.rollouts.clerk.rollbacks["shop", "starved"] == turned_back


async def test_on_fail_pause_keeps_the_weight_and_a_resume_has_another_judge(
    world: World,
) -> None:
    controller = await baking(world, ("keep_old: 60s", "keep_old: 60s, on_fail: pause"))
    await failed(world, "paused")
    assert world.view("rollout")["paused"] == "on_fail"
    assert world.in_force() == {"blue": 9_000, "green": 1_000}
    await world.tick(3, **BADLY)
    assert world.phase == "paused"
    await controller.move_rollout("shop", "resume", who="ann", reason="it is known")
    await world.tick(1, **WELL)
    assert (world.phase, world.view("guard")["verdict"]) == ("baking", "CONTINUE")
