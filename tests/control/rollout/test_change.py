"""What a rollout means for its service: who is in charge, void cookies, lockouts, records."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from proxy.control import codec, verbs
from proxy.control.decision import Author
from proxy.control.filling import Filling, Member
from proxy.control.refusal import Invalid, Refused
from proxy.control.rollout import change
from proxy.control.rollout.machine import Event, Judged, Kind, Phase
from proxy.control.rollout.plan import Plan, Step
from proxy.control.state import Lockout, ServiceState
from proxy.model import WHOLE

ANN = Author(who="ann", reason="v42 at last", at=1_000.0)
PLAN = Plan(
    steps=(Step(weight=1_000, bake_s=10), Step(weight=WHOLE, bake_s=10)), min_requests=10, ask=False
)
FAIL: dict[str, Any] = {"judged": Judged.FAIL, "who": "guard", "reason": "errors: 23 of 412"}


def moved(state: ServiceState, *kinds: Kind, now: float = 2_000.0, **more: Any) -> ServiceState:
    for kind in kinds:
        state = change.happen(state, Event(kind=kind, now=now, **more))[0].state
    return state


@pytest.fixture
def warming(shop: ServiceState) -> ServiceState:
    return change.begin(shop, "green", PLAN, ANN).state


@pytest.fixture
def baking(warming: ServiceState) -> ServiceState:
    return moved(warming, Kind.READY)


@pytest.fixture
def promoted(baking: ServiceState) -> ServiceState:
    return moved(baking, Kind.PROMOTE)


@pytest.fixture
def turned_back(baking: ServiceState) -> ServiceState:
    return moved(baking, Kind.TICK, **FAIL)


# ---- the start ----


def test_a_pool_drained_by_hand_is_not_called_empty(shop: ServiceState) -> None:
    drained: dict[str, Any] = dict.fromkeys(shop.filling("green").addresses())
    by_hand = replace(shop, endpoint_drains={"green": drained})
    with pytest.raises(Refused) as refused:
        change.begin(by_hand, "green", PLAN, ANN)
    first = next(iter(drained))
    assert f"turnout drain shop/green/{first} --undo" in str(refused.value)
    assert "turnout deploy fills it" not in str(refused.value)


def test_a_start_gives_the_rollout_a_number_and_the_candidate_nothing(
    warming: ServiceState,
) -> None:
    assert warming.rollout
    assert (warming.rollout.id, warming.rollouts) == (1, 1)
    assert warming.rollout.phase is Phase.WARMING
    assert (warming.rollout.old, warming.rollout.release) == ("blue", "v42")
    assert warming.shares == {"blue": WHOLE, "green": 0}


def test_a_start_is_one_record_of_who_and_why(shop: ServiceState) -> None:
    begun = change.begin(shop, "green", PLAN, ANN)
    (record,) = begun.decisions
    assert (record.what, record.who, record.service) == ("rollout", "ann", "shop")
    assert record.why == "rollout 1 to green: v42 at last"
    assert record.before["phase"] == "steady"
    assert record.after == {"phase": "warming", "weights": {"blue": 100, "green": 0}}
    assert record.numbers["force"] is False


def test_a_start_takes_back_what_the_candidate_had_by_hand(shop: ServiceState) -> None:
    split = verbs.set_weights(shop, {"blue": 9_000, "green": 1_000}, ANN).state
    begun = change.begin(split, "green", PLAN, ANN).state
    assert begun.shares == {"blue": WHOLE, "green": 0}


def test_a_start_voids_cookies_from_when_the_candidate_was_active_before(
    shop: ServiceState,
) -> None:
    begun = change.begin(replace(shop, epochs={"green": 4}), "green", PLAN, ANN).state
    assert begun.epochs == {"green": 5}


def test_a_pool_that_does_not_exist_is_invalid(shop: ServiceState) -> None:
    with pytest.raises(Invalid, match="shop has no pool red"):
        change.begin(shop, "red", PLAN, ANN)


def test_the_active_pool_is_no_candidate(shop: ServiceState) -> None:
    with pytest.raises(Refused, match="blue is the active pool of shop already"):
        change.begin(shop, "blue", PLAN, ANN)


def test_an_empty_pool_is_no_candidate(shop: ServiceState) -> None:
    file = replace(shop.file, fillings=dict(shop.file.fillings) | {"green": Filling()})
    with pytest.raises(Refused, match="green has no endpoint"):
        change.begin(replace(shop, file=file), "green", PLAN, ANN)


@pytest.mark.parametrize(
    "kinds",
    [(), (Kind.READY,), (Kind.READY, Kind.PAUSE)],
    ids=["warming", "baking", "paused"],
)
def test_a_second_start_is_refused_naming_the_running_rollout(
    warming: ServiceState, kinds: tuple[Kind, ...]
) -> None:
    running = moved(warming, *kinds)
    assert running.rollout
    with pytest.raises(Refused) as refused:
        change.begin(running, "blue", PLAN, ANN)
    words = f"rollout 1 of v42 to green is {running.rollout.phase.value}"
    assert refused.value.detail.startswith(words)


def test_while_the_last_one_is_only_watched_the_next_may_start(warming: ServiceState) -> None:
    watched = moved(warming, Kind.READY, Kind.PROMOTE)
    begun = change.begin(watched, "blue", PLAN, ANN).state
    assert begun.rollout
    assert (begun.rollout.candidate, begun.rollout.phase) == ("blue", Phase.WARMING)
    assert begun.in_charge == "green"


def test_after_it_is_over_another_may_start(warming: ServiceState) -> None:
    over = moved(warming, Kind.ABORT)
    assert change.begin(over, "green", PLAN, ANN).state.rollouts == 2


def test_without_a_rollout_nothing_can_happen_to_one(shop: ServiceState) -> None:
    with pytest.raises(Refused, match="shop has no rollout"):
        change.happen(shop, Event(kind=Kind.PAUSE, now=0.0))


# ---- moves ----


def test_weights_follow_from_the_step(baking: ServiceState) -> None:
    assert baking.shares == {"blue": 9_000, "green": 1_000}
    assert baking.source == "rollout"
    assert baking.in_charge == "blue"
    assert baking.candidate == "green"


def test_a_tick_that_moves_only_clocks_makes_no_record(baking: ServiceState) -> None:
    tick = Event(kind=Kind.TICK, now=2_001.0, length_s=1.0, requests=5, judged=Judged.CONTINUE)
    changed, _ = change.happen(baking, tick)
    assert changed.decisions == ()
    assert changed.state.rollout
    assert (changed.state.rollout.baked_s, changed.state.rollout.had) == (1.0, 5)


def test_every_move_is_one_record_with_phases_and_weights(baking: ServiceState) -> None:
    event = Event(kind=Kind.PAUSE, now=2_001.0, who="ann", reason="lunch")
    (record,) = change.happen(baking, event, numbers={"verdict": "CONTINUE"})[0].decisions
    assert record.before == {"phase": "baking", "weights": {"blue": 90, "green": 10}}
    assert record.after == {"phase": "paused", "weights": {"blue": 90, "green": 10}}
    assert (record.who, record.why) == ("ann", "pause: lunch")
    assert record.numbers == {
        "rollout": 1,
        "candidate": "green",
        "release": "v42",
        "step": 1,
        "verdict": "CONTINUE",
    }


def test_when_not_ready_everything_is_as_it_was(shop: ServiceState, warming: ServiceState) -> None:
    over = moved(warming, Kind.NOT_READY, reason="127.0.0.1:9101: refused")
    assert over.rollout
    assert over.rollout.reason == "127.0.0.1:9101: refused"
    assert (over.shares, over.source, over.active) == (shop.shares, shop.source, shop.active)


def test_a_promotion_puts_the_candidate_in_charge_and_remembers_the_old_pool(
    promoted: ServiceState,
) -> None:
    assert promoted.in_charge == "green"
    assert promoted.shares == {"blue": 0, "green": WHOLE}
    assert promoted.previous_active == "blue"


def test_after_keep_old_the_candidate_stays_in_charge(promoted: ServiceState) -> None:
    over = moved(promoted, Kind.TICK, now=9_000.0, judged=Judged.CONTINUE)
    assert over.rolling is None
    assert (over.in_charge, over.shares["green"]) == ("green", WHOLE)


def test_a_judged_rollback_moves_everybody_at_once_and_locks_the_release(
    turned_back: ServiceState, baking: ServiceState
) -> None:
    assert turned_back.shares == {"blue": WHOLE, "green": 0}
    assert turned_back.in_charge == "blue"
    assert turned_back.epochs["green"] == baking.epochs["green"] + 1
    assert turned_back.lockout == Lockout(
        release="v42", at=2_000.0, until=None, reason="errors: 23 of 412", rollout=1
    )


def test_a_rollback_from_everything_puts_the_old_pool_in_charge_again(
    promoted: ServiceState,
) -> None:
    back = moved(promoted, Kind.TICK, **FAIL)
    assert (back.in_charge, back.shares) == ("blue", {"blue": WHOLE, "green": 0})
    assert back.previous_active is None
    assert back.lockout


@pytest.mark.parametrize(("lock", "is_locked"), [(False, False), (True, True)])
def test_a_person_who_rolls_back_locks_only_on_purpose(
    baking: ServiceState, *, lock: bool, is_locked: bool
) -> None:
    back = moved(baking, Kind.ROLL_BACK, lock=lock, who="ann")
    assert (back.lockout is not None) is is_locked
    assert back.shares["green"] == 0


def test_an_abort_is_a_way_back_without_a_lockout(promoted: ServiceState) -> None:
    back = moved(promoted, Kind.ABORT, who="ann")
    assert (back.in_charge, back.shares["green"], back.lockout) == ("blue", 0, None)
    assert back.epochs["green"] == promoted.epochs["green"] + 1


def test_where_the_file_ends_it_the_file_wins(baking: ServiceState) -> None:
    other = replace(
        baking.file, shares={"blue": 3_000, "green": 7_000}, has_weights=True, active="green"
    )
    over = moved(replace(baking, file=other), Kind.SUPERSEDED, who="file")
    assert over.shares == {"blue": 3_000, "green": 7_000}
    assert over.in_charge == "green"


# ---- lockouts ----


def test_what_is_locked_out_may_not_start_again_and_is_told_why(turned_back: ServiceState) -> None:
    with pytest.raises(Refused) as refused:
        change.begin(turned_back, "green", PLAN, ANN)
    assert "v42 is locked out since rollout 1" in refused.value.detail
    assert "errors: 23 of 412" in refused.value.detail
    assert "turnout unlock shop" in refused.value.detail


def test_force_starts_it_all_the_same_and_the_record_says_so(turned_back: ServiceState) -> None:
    begun = change.begin(turned_back, "green", PLAN, ANN, force=True)
    assert begun.state.lockout == turned_back.lockout
    assert moved(begun.state, Kind.READY).lockout is None
    assert begun.decisions[0].why == "rollout 2 to green, forced: v42 at last"
    assert begun.decisions[0].numbers["force"] is True


def test_another_release_may_start_and_ends_the_lockout(turned_back: ServiceState) -> None:
    filling = Filling(members=(Member(address="127.0.0.1:9103"),), release="v43")
    filled = verbs.set_pool(turned_back, "green", filling, ANN).state
    begun = change.begin(filled, "green", PLAN, ANN).state
    assert begun.rollout
    assert begun.rollout.release == "v43"
    assert moved(begun, Kind.NOT_READY).lockout == turned_back.lockout
    assert moved(begun, Kind.READY).lockout is None


def test_a_release_without_a_label_is_known_by_its_endpoints(baking: ServiceState) -> None:
    def filled(*addresses: str) -> Filling:
        return Filling(members=tuple(Member(address=each) for each in addresses))

    unnamed = verbs.set_pool(baking, "green", filled("127.0.0.1:2", "127.0.0.1:1"), ANN).state
    back = moved(unnamed, Kind.TICK, **FAIL)
    assert back.lockout
    assert back.lockout.release == "127.0.0.1:1, 127.0.0.1:2"
    with pytest.raises(Refused, match="locked out"):
        change.begin(back, "green", PLAN, ANN)
    other = verbs.set_pool(back, "green", filled("127.0.0.1:3"), ANN).state
    assert change.begin(other, "green", PLAN, ANN).state.rolling


def test_a_lockout_may_end_by_itself(baking: ServiceState) -> None:
    fail = Event(kind=Kind.TICK, now=2_000.0, **FAIL)
    locked = change.happen(baking, fail, lockout_s=600.0)[0].state
    with pytest.raises(Refused):
        change.begin(locked, "green", PLAN, replace(ANN, at=2_599.0))
    assert change.begin(locked, "green", PLAN, replace(ANN, at=2_600.0)).state.rolling


def test_unlock_ends_the_lockout_and_moves_no_weight(turned_back: ServiceState) -> None:
    by_hand = verbs.set_weights(turned_back, {"blue": 9_000, "green": 1_000}, ANN).state
    changed, _ = change.happen(
        by_hand, Event(kind=Kind.UNLOCK, now=3_000.0, who="ann", reason="it was the network")
    )
    assert changed.state.lockout is None
    assert changed.state.shares == by_hand.shares
    assert changed.decisions[0].why == "unlock: it was the network"


# ---- a plain switch ----


def test_a_plain_switch_is_watched_as_after_a_rollout(shop: ServiceState) -> None:
    switch = verbs.switch(shop, "green", ANN)
    plan = change.at_once(600.0, ask=False)
    state = change.switched(shop, switch, "green", plan, ANN).state
    assert state.rollout
    assert (state.rollout.phase, state.rollout.old) == (Phase.PROMOTED, "blue")
    assert state.shares == {"blue": 0, "green": WHOLE}
    back = moved(state, Kind.TICK, **FAIL)
    assert (back.in_charge, back.shares["blue"]) == ("blue", WHOLE)
    assert back.lockout


# ---- the store ----


@pytest.mark.parametrize("state", ["warming", "baking", "promoted", "turned_back"])
def test_it_is_stored_and_read_back_the_same(state: str, request: pytest.FixtureRequest) -> None:
    given: ServiceState = request.getfixturevalue(state)
    assert codec.from_plain(json.loads(json.dumps(codec.to_plain(given)))) == given
