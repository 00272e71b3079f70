"""What a changed file means for the rollout under way, value by value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxy.control import verbs
from proxy.control.decision import Author
from proxy.control.filling import Filling, Member
from proxy.control.percent import everything_to
from proxy.control.reconcile import reconcile_file
from proxy.control.rollout import change
from proxy.control.rollout.machine import End, Event, Judged, Kind, Phase
from proxy.control.rollout.plan import Plan, Step
from proxy.control.rollout.reload import keep_locked_out, reload_rollout
from proxy.control.state import Change, Declared, ServiceState
from proxy.model import WHOLE

ANN = Author(who="ann", at=1_000.0)
STEPS = (Step(weight=1_000, bake_s=10), Step(weight=5_000, bake_s=20), Step(weight=WHOLE))
PLAN = Plan(steps=STEPS, min_requests=10, ready_timeout_s=30.0)


@pytest.fixture
def baking(shop: ServiceState) -> ServiceState:
    begun = change.begin(shop, "green", PLAN, ANN).state
    return moved(begun, Kind.READY)


@pytest.fixture
def promoted(baking: ServiceState) -> ServiceState:
    return moved(baking, Kind.PROMOTE)


def moved(state: ServiceState, kind: Kind, **more: Any) -> ServiceState:
    return change.happen(state, Event(kind=kind, now=2_000.0, **more))[0].state


def reloaded(state: ServiceState, file: Declared | None = None, plan: Plan = PLAN) -> Change:
    after = reconcile_file(state, file or state.file)
    return reload_rollout(state, after, was=PLAN, plan=plan, now=3_000.0)


def filled(file: Declared, pool: str, release: str | None, *addresses: str) -> Declared:
    filling = Filling(members=tuple(Member(address=each) for each in addresses), release=release)
    return replace(file, fillings=dict(file.fillings) | {pool: filling})


def test_a_file_that_says_the_same_changes_nothing(baking: ServiceState) -> None:
    assert reloaded(baking) == Change(state=baking)


def test_other_values_of_the_plan_hold_from_here_on(baking: ServiceState) -> None:
    plan = replace(PLAN, min_requests=99, keep_old_s=5.0)
    after = reloaded(baking, plan=plan).state.rollout
    assert after
    assert (after.plan, after.step, after.phase) == (plan, 0, Phase.BAKING)


def test_other_steps_go_on_at_the_first_with_a_weight_at_or_above_the_present(
    baking: ServiceState,
) -> None:
    steps = (Step(weight=500), Step(weight=2_000, bake_s=5), Step(weight=WHOLE))
    after = reloaded(baking, plan=replace(PLAN, steps=steps))
    assert after.state.rollout
    assert (after.state.rollout.step, after.state.shares["green"]) == (1, 2_000)
    assert after.decisions[-1].why == "the plan changed"


def test_steps_that_were_given_by_hand_stay_and_the_rest_follows_the_file(
    baking: ServiceState,
) -> None:
    assert baking.rollout
    own = replace(PLAN, steps=(Step(weight=1_000), Step(weight=WHOLE)), min_ready=1)
    state = replace(baking, rollout=replace(baking.rollout, plan=own))
    steps = (Step(weight=500), Step(weight=WHOLE))
    after = reloaded(state, plan=replace(PLAN, steps=steps, on_fail="pause")).state.rollout
    assert after
    assert after.plan == replace(own, on_fail="pause")


def test_what_a_promoted_one_is_kept_for_may_change(promoted: ServiceState) -> None:
    after = reloaded(promoted, plan=replace(PLAN, keep_old_s=5.0)).state
    assert after.rollout
    assert (after.rollout.phase, after.rollout.plan.keep_old_s) == (Phase.PROMOTED, 5.0)
    assert after.is_all_on("green")


def test_other_weights_in_the_file_win(baking: ServiceState) -> None:
    weights = {"blue": 8_000, "green": 2_000}
    file = replace(baking.file, shares=weights, has_weights=True)
    after = reloaded(baking, file)
    assert after.state.rollout
    assert (after.state.rollout.phase, after.state.rollout.end) == (Phase.STEADY, End.SUPERSEDED)
    assert (after.state.shares, after.state.source) == (weights, "file")
    assert after.decisions[-1].who == "file"


def test_another_active_pool_in_the_file_wins(baking: ServiceState) -> None:
    file = replace(baking.file, active="green", shares=everything_to("green"))
    after = reloaded(baking, file).state
    assert after.rollout
    assert (after.rollout.end, after.in_charge) == (End.SUPERSEDED, "green")
    assert after.is_all_on("green")


def test_another_release_of_the_candidate_aborts_to_nothing(baking: ServiceState) -> None:
    after = reloaded(baking, filled(baking.file, "green", "v43", "127.0.0.1:9101")).state
    assert after.rollout
    assert (after.rollout.end, after.rollout.reason) == (
        End.ABORTED,
        "another release in the file",
    )
    assert after.shares == {"blue": WHOLE, "green": 0}
    assert after.epochs["green"] > baking.epochs["green"]


def test_an_abort_by_the_file_does_not_bring_a_split_of_before_back(shop: ServiceState) -> None:
    split = verbs.set_weights(shop, {"blue": 9_000, "green": 1_000}, ANN).state
    begun = moved(change.begin(split, "green", PLAN, ANN).state, Kind.READY)
    after = reloaded(begun, filled(begun.file, "green", "v43", "127.0.0.1:9101")).state
    assert after.shares == {"blue": WHOLE, "green": 0}


def test_other_endpoints_of_the_same_release_leave_it_as_it_is(baking: ServiceState) -> None:
    after = reloaded(baking, filled(baking.file, "green", "v42", "127.0.0.1:9109")).state
    assert after.rollout == baking.rollout
    assert after.filling("green").addresses() == ("127.0.0.1:9109",)


def test_another_release_in_the_old_pool_ends_the_watch(promoted: ServiceState) -> None:
    after = reloaded(promoted, filled(promoted.file, "blue", "v43", "127.0.0.1:9001")).state
    assert after.rollout
    assert (after.rollout.end, after.rollout.reason) == (
        End.SUPERSEDED,
        "superseded: another release in blue",
    )
    assert after.is_all_on("green")


def test_a_pool_that_is_gone_ends_the_watch(promoted: ServiceState) -> None:
    fillings = {"green": promoted.file.fillings["green"]}
    file = replace(promoted.file, active="green", shares=everything_to("green"), fillings=fillings)
    after = reloaded(promoted, file).state
    assert after.rollout
    assert after.rollout.reason == "superseded: the file has no pool blue any more"
    assert after.shares == {"green": WHOLE}


# ---- a lockout ----


@pytest.fixture
def turned_back(baking: ServiceState) -> ServiceState:
    return moved(baking, Kind.TICK, judged=Judged.FAIL, who="guard", reason="errors: too many")


def given(state: ServiceState, file: Declared, now: float = 3_000.0) -> Change:
    return keep_locked_out(state, reconcile_file(state, file), now=now)


@pytest.mark.parametrize("green", [1_000, WHOLE])
def test_a_release_that_is_locked_out_gets_nothing_whatever_the_file_says(
    turned_back: ServiceState, green: int
) -> None:
    weights = {"blue": WHOLE - green, "green": green}
    active = "green" if green == WHOLE else "blue"
    file = replace(turned_back.file, active=active, shares=weights, has_weights=True)
    after = given(turned_back, file)
    assert after.state.shares == {"blue": WHOLE, "green": 0}
    assert after.state.in_charge == "blue"
    assert (after.decisions[-1].what, after.decisions[-1].who) == ("lockout", "file")
    assert "is locked out" in after.decisions[-1].why


def test_another_release_in_the_pool_may_have_it(turned_back: ServiceState) -> None:
    file = filled(turned_back.file, "green", "v43", "127.0.0.1:9101")
    file = replace(file, shares={"blue": 9_000, "green": 1_000}, has_weights=True)
    assert given(turned_back, file).state.shares["green"] == 1_000


def test_a_lockout_that_is_over_holds_nothing(turned_back: ServiceState) -> None:
    assert turned_back.lockout
    state = replace(turned_back, lockout=replace(turned_back.lockout, until=2_500.0))
    file = replace(state.file, shares={"blue": 9_000, "green": 1_000}, has_weights=True)
    assert given(state, file).state.shares["green"] == 1_000
