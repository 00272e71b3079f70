"""The machine: each row of its table, every pair that is refused, and what a restart or reload does."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from proxy.control.refusal import Refused
from proxy.control.rollout.machine import (
    ASK_AGAIN_S,
    ASK_S,
    ASK_SHARE,
    TABLE,
    Event,
    Judged,
    Kind,
    Phase,
    Why,
    advance,
)
from proxy.control.rollout.plan import Plan, Step
from proxy.model import WHOLE

# ---- what is refused ----


@pytest.mark.parametrize(
    ("phase", "kind"),
    [pair for pair in product(Phase, Kind) if pair not in TABLE],
    ids=lambda each: each.value,
)
def test_a_pair_that_is_not_in_the_table_is_refused_naming_both(
    rig: Any, phase: Phase, kind: Kind
) -> None:
    before = rig.into(phase)
    with pytest.raises(Refused) as refused:
        rig(kind, plan=rig.rollout.plan)
    assert phase.value in refused.value.detail
    assert kind.value in refused.value.detail
    assert refused.value.detail.startswith("rollout 3 is ")
    assert rig.rollout == before


@pytest.mark.parametrize(("phase", "kind"), TABLE, ids=lambda each: each.value)
def test_a_pair_that_is_in_the_table_leads_where_it_says(
    rig: Any, phase: Phase, kind: Kind
) -> None:
    rig.into(phase)
    after = rig(kind, plan=rig.rollout.plan, weight=1_000)
    assert after.phase in TABLE[phase, kind][1]


def test_a_refusal_says_what_it_would_take(rig: Any) -> None:
    rig.into(Phase.ROLLED_BACK)
    with pytest.raises(Refused, match=r"it takes unlock, a new start"):
        rig(Kind.PAUSE)
    rig.rollout = replace(rig.rollout, phase=Phase.STEADY)
    with pytest.raises(Refused, match=r"it takes a new start"):
        rig(Kind.PAUSE)


# ---- warming ----


def test_nothing_is_sent_while_it_warms(rig: Any) -> None:
    assert rig.rollout.weight == 0
    assert rig.rollout.shares() == {"blue": WHOLE, "green": 0}


def test_when_ready_the_first_step_is_baked_and_the_judge_and_a_hook_begin(rig: Any) -> None:
    after = rig(Kind.READY)
    assert (after.phase, after.step, after.weight) == (Phase.BAKING, 0, 100)
    assert rig.last.hook == "started"
    assert rig.last.restarts_judge


def test_not_ready_in_time_ends_it_with_the_reason_and_nothing_to_void(rig: Any) -> None:
    after = rig(Kind.NOT_READY, reason="127.0.0.1:9101: connection refused")
    assert (after.phase, after.weight) == (Phase.STEADY, 0)
    assert after.reason == "127.0.0.1:9101: connection refused"
    assert not rig.last.voids
    assert not rig.last.lock


def test_an_abort_while_it_warms_has_nothing_to_void(rig: Any) -> None:
    assert rig(Kind.ABORT).phase is Phase.STEADY
    assert not rig.last.voids


# ---- baking ----


def test_a_step_that_is_baked_leads_to_the_next_and_the_last_to_everything(rig: Any) -> None:
    rig.into(Phase.BAKING)
    seen = [rig.rollout.weight]
    assert rig.bake().step == 1
    assert rig.last.hook == "step"
    assert rig.last.restarts_judge
    seen.append(rig.rollout.weight)
    rig.bake()
    seen.append(rig.rollout.weight)
    assert rig.bake().why is Why.GATE
    rig(Kind.RESUME)
    seen.append(rig.rollout.weight)
    assert rig.bake().phase is Phase.PROMOTED
    assert rig.last.hook == "promoted"
    seen.append(rig.rollout.weight)
    assert seen == [100, 1_000, 5_000, 9_900, WHOLE], "one percent is held back in the last step"


def test_a_bake_takes_as_long_as_it_says(rig: Any) -> None:
    rig.into(Phase.BAKING)
    for _ in range(9):
        assert rig.tick().step == 0
    assert rig.tick().step == 1
    assert rig.rollout.baked_s == 0
    assert rig.rollout.had == 0


def test_a_bake_that_is_over_waits_for_its_requests(rig: Any) -> None:
    rig.into(Phase.BAKING)
    for _ in range(49):
        assert rig.tick(requests=1).step == 0
    assert rig.tick(requests=1).step == 1


def test_time_without_traffic_is_no_bake(rig: Any) -> None:
    rig.into(Phase.BAKING)
    for _ in range(60):
        rig.tick(requests=0)
    assert (rig.rollout.step, rig.rollout.baked_s) == (0, 0)


@pytest.mark.parametrize("judged", [Judged.HOLD, Judged.NOTHING])
def test_the_clock_stands_and_nothing_advances_on_a_hold_or_without_a_verdict(
    rig: Any, judged: Judged
) -> None:
    rig.into(Phase.BAKING)
    for _ in range(9):
        rig.tick()
    for _ in range(100):
        after = rig.tick(judged)
    assert (after.phase, after.step, after.baked_s) == (Phase.BAKING, 0, 9.0)
    assert rig.tick().step == 1


@pytest.mark.parametrize("on_starved", ["wait", "promote", "roll_back"])
def test_a_hold_starves_nobody(rig_with: Any, on_starved: str) -> None:
    rig = rig_with(on_starved=on_starved)
    rig.into(Phase.BAKING)
    for _ in range(400):
        after = rig.tick(Judged.HOLD, requests=0)
    assert (after.phase, after.step) == (Phase.BAKING, 0)


def test_pass_ends_a_step_early_only_where_evidence_advances(rig: Any, rig_with: Any) -> None:
    by_evidence = rig_with(advance="evidence")
    for each in (rig, by_evidence):
        each.into(Phase.BAKING)
        for _ in range(6):
            each.tick(Judged.PASS)
    assert rig.rollout.step == 0
    assert by_evidence.rollout.step == 1


def test_evidence_does_not_replace_the_requests(rig_with: Any) -> None:
    rig = rig_with(advance="evidence")
    rig.into(Phase.BAKING)
    for _ in range(4):
        assert rig.tick(Judged.PASS).step == 0


def test_a_step_with_a_gate_waits_for_a_person(rig: Any) -> None:
    rig.into(Phase.BAKING)
    rig.bake()
    rig.bake()
    after = rig.bake()
    assert (after.phase, after.why, after.weight) == (Phase.PAUSED, Why.GATE, 5_000)
    for _ in range(100):
        assert rig.tick().phase is Phase.PAUSED
    after = rig(Kind.RESUME)
    assert (after.phase, after.step) == (Phase.BAKING, 3)


def test_a_hook_that_refuses_pauses_with_its_words_and_resume_asks_again(rig: Any) -> None:
    rig.into(Phase.BAKING)
    after = rig(Kind.HOOK_REFUSED, reason="503: change freeze")
    assert (after.phase, after.why, after.weight) == (Phase.PAUSED, Why.HOOK, 100)
    assert after.reason == "503: change freeze"
    after = rig(Kind.RESUME)
    assert (after.phase, after.step) == (Phase.BAKING, 0), "the hook is asked at the next move"


# ---- starved ----


def test_a_starved_step_waits_and_says_what_it_lacks(rig: Any) -> None:
    rig.into(Phase.BAKING)
    for _ in range(299):
        assert rig.tick(requests=0).phase is Phase.BAKING
    after = rig.tick(requests=3)
    assert (after.phase, after.why, after.weight) == (Phase.PAUSED, Why.STARVED, 100)
    assert after.reason == "only 3 of 50 requests in 300 s"


def test_a_starved_step_that_is_resumed_still_needs_its_sample(rig: Any) -> None:
    rig.into(Phase.BAKING)
    for _ in range(300):
        rig.tick(requests=0)
    rig.now += 1_000
    after = rig(Kind.RESUME)
    assert (after.phase, after.step) == (Phase.BAKING, 0)
    assert rig.tick(requests=0).phase is Phase.BAKING, "and gets the whole time for it once more"


def test_a_starved_step_may_promote(rig_with: Any) -> None:
    rig = rig_with(on_starved="promote")
    rig.into(Phase.BAKING)
    for _ in range(300):
        rig.tick(requests=0)
    assert rig.rollout.phase is Phase.PROMOTED
    assert "only 0 of 50 requests" in rig.rollout.reason


def test_a_starved_step_may_roll_back_without_a_lockout(rig_with: Any) -> None:
    rig = rig_with(on_starved="roll_back")
    rig.into(Phase.BAKING)
    for _ in range(300):
        rig.tick(requests=0)
    assert (rig.rollout.phase, rig.last.lock, rig.last.voids) == (Phase.ROLLED_BACK, False, True)


def test_a_starved_step_does_not_roll_back_to_a_pool_with_nothing_available(rig_with: Any) -> None:
    rig = rig_with(on_starved="roll_back")
    rig.into(Phase.BAKING)
    for _ in range(310):
        assert rig.tick(requests=0, old_is_available=False).phase is Phase.BAKING
    assert rig.tick(requests=0).phase is Phase.ROLLED_BACK


# ---- FAIL ----


@pytest.mark.parametrize("phase", [Phase.BAKING, Phase.PAUSED, Phase.MANUAL])
def test_a_fail_rolls_back_to_nothing_at_all_and_locks(rig: Any, phase: Phase) -> None:
    rig.into(phase)
    after = rig.tick(Judged.FAIL, reason="errors: 23 of 412")
    assert (after.phase, after.weight, after.reason) == (Phase.ROLLED_BACK, 0, "errors: 23 of 412")
    assert rig.last.lock
    assert rig.last.voids
    assert rig.last.hook == "rolled_back"


@pytest.mark.parametrize("phase", [Phase.BAKING, Phase.PAUSED, Phase.MANUAL])
def test_a_fail_with_nothing_to_turn_back_to_is_stuck_at_the_same_weight(
    rig: Any, phase: Phase
) -> None:
    weight = rig.into(phase).weight
    after = rig.tick(Judged.FAIL, old_is_available=False, reason="errors: 23 of 412")
    assert (after.phase, after.before, after.weight) == (Phase.STUCK, phase, weight)
    assert not rig.last.lock


@pytest.mark.parametrize("phase", [Phase.BAKING, Phase.PAUSED, Phase.MANUAL])
def test_a_fail_may_only_pause(rig_with: Any, phase: Phase) -> None:
    rig = rig_with(on_fail="pause")
    weight = rig.into(phase).weight
    after = rig.tick(Judged.FAIL, reason="errors: 23 of 412")
    assert (after.phase, after.why, after.weight) == (Phase.PAUSED, Why.ON_FAIL, weight)
    assert rig.tick(Judged.FAIL, reason="errors: 24 of 413") == after, "once is enough"


def test_whoever_resumes_after_a_fail_overrules_the_judge(rig_with: Any) -> None:
    rig = rig_with(on_fail="pause")
    rig.into(Phase.BAKING)
    rig.bake()
    rig.tick()
    rig.tick(Judged.FAIL)
    after = rig(Kind.RESUME)
    assert (after.phase, after.step, after.baked_s, after.had) == (Phase.BAKING, 1, 0, 0)
    assert rig.last.new_judge, "a FAIL is latched; the old judge would fail it in a second"


# ---- stuck ----


@pytest.mark.parametrize("phase", [Phase.BAKING, Phase.PAUSED, Phase.MANUAL])
def test_what_is_stuck_turns_back_when_it_can(rig: Any, phase: Phase) -> None:
    rig.into(phase)
    rig.tick(Judged.FAIL, old_is_available=False, reason="errors: 23 of 412")
    for _ in range(20):
        assert rig.tick(Judged.FAIL, old_is_available=False).phase is Phase.STUCK
    after = rig.tick(Judged.FAIL)
    assert (after.phase, after.reason) == (Phase.ROLLED_BACK, "errors: 23 of 412")
    assert rig.last.lock


@pytest.mark.parametrize("phase", [Phase.BAKING, Phase.PAUSED, Phase.MANUAL])
def test_what_recovers_by_itself_goes_back_to_what_it_was_with_another_judge(
    rig: Any, phase: Phase
) -> None:
    before = rig.into(phase)
    rig.tick(Judged.FAIL, old_is_available=False)
    after = rig.tick(Judged.FAIL, old_is_available=False, still_fails=False)
    assert (after.phase, after.weight, after.why) == (phase, before.weight, before.why)
    assert rig.last.new_judge, "the one that failed it would fail it for ever"
    assert after.baked_s == 0


# ---- by hand ----


def test_a_pause_keeps_the_weight_and_resume_goes_on_with_the_bake(rig: Any) -> None:
    rig.into(Phase.BAKING)
    for _ in range(7):
        rig.tick()
    after = rig(Kind.PAUSE, reason="lunch")
    assert (after.why, after.reason, after.weight) == (Why.OPERATOR, "lunch", 100)
    for _ in range(50):
        assert rig.tick().baked_s == 7
    rig(Kind.RESUME)
    assert rig.bake().step == 1
    assert rig.now == 1_000 + 7 + 50 + 3


def test_a_long_pause_starves_nobody(rig: Any) -> None:
    rig.into(Phase.PAUSED)
    rig.now += 10_000
    rig(Kind.RESUME)
    assert rig.tick(requests=1).phase is Phase.BAKING


@pytest.mark.parametrize("phase", [Phase.BAKING, Phase.PAUSED, Phase.MANUAL])
def test_promote_skips_the_rest(rig: Any, phase: Phase) -> None:
    rig.into(phase)
    after = rig(Kind.PROMOTE, reason="looks fine")
    assert (after.phase, after.weight, after.reason) == (Phase.PROMOTED, WHOLE, "looks fine")
    assert rig.last.hook == "promoted"


@pytest.mark.parametrize(
    "phase", [Phase.BAKING, Phase.PAUSED, Phase.MANUAL, Phase.PROMOTED, Phase.STUCK]
)
def test_an_abort_is_a_way_back_without_a_lockout(rig: Any, phase: Phase) -> None:
    rig.into(phase)
    after = rig(Kind.ABORT, reason="not today")
    assert (after.phase, after.weight, after.reason) == (Phase.STEADY, 0, "not today")
    assert (rig.last.voids, rig.last.lock) == (True, False)


@pytest.mark.parametrize(
    "phase", [Phase.BAKING, Phase.PAUSED, Phase.MANUAL, Phase.PROMOTED, Phase.STUCK]
)
@pytest.mark.parametrize("lock", [True, False])
def test_a_rollback_by_a_person_locks_only_when_told(rig: Any, phase: Phase, lock: bool) -> None:  # noqa: FBT001
    rig.into(phase)
    after = rig(Kind.ROLL_BACK, reason="pages look odd", lock=lock)
    assert (after.phase, after.weight, after.reason) == (Phase.ROLLED_BACK, 0, "pages look odd")
    assert (rig.last.voids, rig.last.lock) == (True, lock)


@pytest.mark.parametrize("phase", [Phase.BAKING, Phase.PAUSED, Phase.MANUAL, Phase.PROMOTED])
@pytest.mark.parametrize("kind", [Kind.ROLL_BACK, Kind.ABORT])
def test_the_way_back_is_refused_where_nothing_is_available_unless_forced(
    rig: Any, phase: Phase, kind: Kind
) -> None:
    rig.into(phase)
    with pytest.raises(Refused, match="blue has nothing available"):
        rig(kind, old_is_available=False)
    assert rig(kind, old_is_available=False, force=True).weight == 0


@pytest.mark.parametrize("phase", [Phase.BAKING, Phase.PAUSED])
def test_weights_by_hand_are_judged_and_the_judge_is_told(rig: Any, phase: Phase) -> None:
    rig.into(phase)
    after = rig(Kind.WEIGHTS, weight=2_500, reason="a bit more")
    assert (after.phase, after.weight, after.reason) == (Phase.MANUAL, 2_500, "a bit more")
    assert rig.last.restarts_judge
    assert rig(Kind.WEIGHTS, weight=3_000).weight == 3_000


@pytest.mark.parametrize("phase", [Phase.BAKING, Phase.PAUSED, Phase.MANUAL])
def test_no_weight_by_hand_is_an_abort_and_all_of_it_a_promotion(rig: Any, phase: Phase) -> None:
    rig.into(phase)
    before = rig.rollout
    assert rig(Kind.WEIGHTS, weight=0).phase is Phase.STEADY
    assert rig.last.voids
    rig.rollout = before
    assert rig(Kind.WEIGHTS, weight=WHOLE).phase is Phase.PROMOTED


@pytest.mark.parametrize(
    ("weight", "step", "then"), [(50, 0, 100), (100, 0, 100), (2_500, 2, 5_000), (9_950, 3, 9_900)]
)
def test_resume_after_weights_by_hand_begins_the_next_step_afresh(
    rig: Any, weight: int, step: int, then: int
) -> None:
    rig.into(Phase.BAKING)
    rig.bake()
    rig.tick()
    rig(Kind.WEIGHTS, weight=weight)
    after = rig(Kind.RESUME)
    assert (after.phase, after.step, after.weight) == (Phase.BAKING, step, then)
    assert (after.baked_s, after.had) == (0, 0)
    assert rig.last.restarts_judge


def test_resume_after_weights_by_hand_that_were_paused_by_a_fail_is_the_same(rig_with: Any) -> None:
    rig = rig_with(on_fail="pause")
    rig.into(Phase.MANUAL)
    rig.tick(Judged.FAIL)
    after = rig(Kind.RESUME)
    assert (after.phase, after.step, after.weight) == (Phase.BAKING, 2, 5_000)
    assert after.manual_weight == 0


# ---- everything on the candidate ----


def test_after_keep_old_it_is_over_and_the_candidate_keeps_everything(rig: Any) -> None:
    rig.into(Phase.PROMOTED)
    for _ in range(599):
        assert rig.tick().phase is Phase.PROMOTED
    assert rig.tick().phase is Phase.STEADY
    assert not rig.last.voids


def test_a_fail_with_everything_asks_the_old_pool_first(rig: Any) -> None:
    rig.into(Phase.PROMOTED)
    after = rig.tick(Judged.FAIL, reason="record: 30 of 100")
    assert (after.phase, after.weight) == (Phase.ASKING, WHOLE - ASK_SHARE)
    assert after.candidate_is_active
    assert rig.last.restarts_judge


def test_a_fail_with_everything_turns_back_at_once_where_nobody_is_to_be_asked(
    rig_with: Any,
) -> None:
    rig = rig_with(ask=False)
    rig.into(Phase.PROMOTED)
    assert rig.tick(Judged.FAIL).phase is Phase.ROLLED_BACK
    assert rig.last.lock


def test_a_fail_with_everything_and_no_old_pool_is_stuck(rig: Any) -> None:
    rig.into(Phase.PROMOTED)
    after = rig.tick(Judged.FAIL, old_is_available=False)
    assert (after.phase, after.before, after.weight) == (Phase.STUCK, Phase.PROMOTED, WHOLE)
    assert after.candidate_is_active


def test_when_the_old_pool_fares_better_it_turns_back_for_the_first_reason(rig: Any) -> None:
    rig.into(Phase.PROMOTED)
    rig.tick(Judged.FAIL, reason="record: 30 of 100")
    after = rig.tick(Judged.FAIL, reason="")
    assert (after.phase, after.reason) == (Phase.ROLLED_BACK, "record: 30 of 100")
    assert rig.last.lock


def test_undecided_it_turns_back_after_five_seconds(rig: Any) -> None:
    rig.into(Phase.ASKING)
    for _ in range(int(ASK_S) - 1):
        assert rig.tick().phase is Phase.ASKING
    assert rig.tick().phase is Phase.ROLLED_BACK
    assert rig.last.lock


def test_when_the_old_pool_is_no_better_it_gets_everything_back_and_says_why(rig: Any) -> None:
    rig.into(Phase.ASKING)
    after = rig.tick(old_is_no_better=True)
    assert (after.phase, after.weight, after.why) == (Phase.PROMOTED, WHOLE, Why.NO_HELP)
    assert after.reason == "turning back would not help: blue fails as well"


def test_after_a_vain_question_another_judge_begins_after_a_while(rig: Any) -> None:
    rig.into(Phase.ASKING)
    rig.tick(old_is_no_better=True)
    for _ in range(int(ASK_AGAIN_S) - 1):
        assert rig.tick(Judged.FAIL).phase is Phase.PROMOTED
        assert not rig.last.new_judge
    after = rig.tick(Judged.FAIL)
    assert (after.phase, after.why, after.reason) == (Phase.PROMOTED, Why.NONE, "")
    assert rig.last.new_judge, "what the last one saw was the outage of both"
    assert rig.tick(Judged.FAIL).phase is Phase.ASKING


def test_an_old_pool_that_vanishes_while_it_is_asked_leaves_it_stuck_with_everything(
    rig: Any,
) -> None:
    rig.into(Phase.PROMOTED)
    rig.tick(Judged.FAIL, reason="record: 30 of 100")
    after = rig.tick(old_is_available=False, reason="")
    assert (after.phase, after.before, after.weight) == (Phase.STUCK, Phase.PROMOTED, WHOLE)
    assert after.reason == "record: 30 of 100"
    assert rig.last.restarts_judge


# ---- rolled back ----


def test_unlock_ends_it_with_a_reason(rig: Any) -> None:
    rig.into(Phase.ROLLED_BACK)
    after = rig(Kind.UNLOCK, who="ann", reason="it was the network")
    assert (after.phase, after.reason) == (Phase.STEADY, "it was the network")


# ---- restarts ----


def test_a_restart_in_the_middle_of_a_step_goes_on_where_it_was(rig: Any) -> None:
    rig.into(Phase.BAKING)
    rig.bake()
    for _ in range(12):
        rig.tick()
    rig.now += 3_600
    after = rig(Kind.RESTARTED)
    assert (after.phase, after.step, after.baked_s) == (Phase.BAKING, 1, 12)
    assert rig.tick(requests=1).phase is Phase.BAKING, "time while it was down starves nobody"
    assert rig.bake().step == 2


def test_a_restart_may_pause_a_step_that_bakes(rig_with: Any) -> None:
    rig = rig_with(on_restart="pause")
    rig.into(Phase.BAKING)
    for _ in range(4):
        rig.tick()
    after = rig(Kind.RESTARTED)
    assert (after.phase, after.why, after.baked_s) == (Phase.PAUSED, Why.RESTART, 4)
    assert rig(Kind.RESUME).baked_s == 4


@pytest.mark.parametrize(
    "phase", [Phase.PAUSED, Phase.MANUAL, Phase.PROMOTED, Phase.STUCK, Phase.WARMING]
)
def test_a_restart_leaves_every_other_phase_as_it_was(rig: Any, phase: Phase) -> None:
    before = rig.into(phase)
    after = rig(Kind.RESTARTED)
    assert (after.phase, after.weight, after.step) == (before.phase, before.weight, before.step)


def test_what_has_only_seconds_gets_them_all_again_after_a_restart(rig: Any) -> None:
    rig.now += 3_600
    assert rig(Kind.RESTARTED).phase_at == rig.now, "the time to be ready"
    rig.into(Phase.ASKING)
    rig.now += 3_600
    rig(Kind.RESTARTED)
    assert rig.last.restarts_judge, "the question is put again"
    assert rig.tick().phase is Phase.ASKING


@pytest.mark.parametrize("phase", [Phase.BAKING, Phase.PAUSED, Phase.MANUAL])
def test_another_judge_means_this_steps_bake_from_zero(rig: Any, phase: Phase) -> None:
    rig.into(Phase.BAKING)
    rig.bake()
    for _ in range(5):
        rig.tick()
    rig.rollout = replace(rig.rollout, phase=phase, manual_weight=700 * (phase is Phase.MANUAL))
    weight = rig.rollout.weight
    after = rig(Kind.REJUDGE, reason="evidence lost")
    assert (after.phase, after.step, after.weight) == (phase, 1, weight)
    assert (after.baked_s, after.had) == (0, 0)
    assert rig.last.new_judge


# ---- reloads ----


def _steps(*weights: int) -> tuple[Step, ...]:
    return tuple(Step(weight=weight, bake_s=20) for weight in weights)


def test_other_values_hold_at_once_and_the_bake_goes_on(rig: Any, plan: Plan) -> None:
    rig.into(Phase.BAKING)
    rig.bake()
    for _ in range(5):
        rig.tick()
    after = rig(Kind.PLAN_CHANGED, plan=replace(plan, keep_old_s=60, min_requests=10))
    assert (after.phase, after.step, after.baked_s) == (Phase.BAKING, 1, 5)
    assert after.plan.keep_old_s == 60


def test_changed_steps_that_keep_the_weight_keep_the_bake(rig: Any, plan: Plan) -> None:
    rig.into(Phase.BAKING)
    rig.bake()
    for _ in range(5):
        rig.tick()
    after = rig(Kind.PLAN_CHANGED, plan=replace(plan, steps=_steps(1_000, 2_000, 10_000)))
    assert (after.step, after.weight, after.baked_s) == (0, 1_000, 5)
    assert not rig.last.restarts_judge


@pytest.mark.parametrize(
    ("weights", "step", "weight"),
    [((200, 2_000, 10_000), 1, 2_000), ((500, 10_000), 1, 9_900), ((10_000,), 0, 9_900)],
)
def test_changed_steps_go_on_at_the_first_that_is_not_lower(
    rig: Any, plan: Plan, weights: tuple[int, ...], step: int, weight: int
) -> None:
    rig.into(Phase.BAKING)
    rig.bake()
    rig.tick()
    after = rig(Kind.PLAN_CHANGED, plan=replace(plan, steps=_steps(*weights)))
    assert (after.phase, after.step, after.weight) == (Phase.BAKING, step, weight)
    assert (after.baked_s, after.had) == (0, 0)
    assert rig.last.restarts_judge


@pytest.mark.parametrize("why", [Why.OPERATOR, Why.GATE, Why.STARVED])
def test_changed_steps_leave_the_weight_of_a_pause_and_resume_finds_its_step(
    rig: Any, plan: Plan, paused: Any, why: Why
) -> None:
    paused(rig, why)
    after = rig(Kind.PLAN_CHANGED, plan=replace(plan, steps=_steps(10, 20, 30, 4_000, 10_000)))
    assert (after.phase, after.why, after.weight) == (Phase.PAUSED, why, 1_000)
    if why is not Why.GATE:
        after = rig(Kind.RESUME)
        assert (after.phase, after.step, after.weight) == (Phase.BAKING, 3, 4_000)
        assert after.baked_s == 0


def test_a_gate_whose_step_is_gone_leads_to_the_first_step_above(
    rig: Any, plan: Plan, paused: Any
) -> None:
    paused(rig, Why.GATE)
    rig(Kind.PLAN_CHANGED, plan=replace(plan, steps=_steps(10, 20, 30, 4_000, 10_000)))
    after = rig(Kind.RESUME)
    assert (after.phase, after.step, after.weight) == (Phase.BAKING, 3, 4_000)


def test_changed_steps_leave_the_weight_of_what_is_stuck(rig: Any, plan: Plan) -> None:
    rig.into(Phase.STUCK)
    after = rig(Kind.PLAN_CHANGED, plan=replace(plan, steps=_steps(50, 4_000, 10_000)))
    assert (after.phase, after.weight) == (Phase.STUCK, 100)
    after = rig.tick(Judged.FAIL, still_fails=False)
    assert (after.phase, after.step, after.weight) == (Phase.BAKING, 1, 4_000)


@pytest.mark.parametrize("phase", [Phase.PROMOTED, Phase.ASKING, Phase.MANUAL, Phase.WARMING])
def test_changed_steps_move_no_weight_where_no_step_is_in_force(
    rig: Any, plan: Plan, phase: Phase
) -> None:
    weight = rig.into(phase).weight
    after = rig(Kind.PLAN_CHANGED, plan=replace(plan, steps=_steps(5_000, 10_000)))
    assert (after.phase, after.weight) == (phase, weight)


def test_another_holdback_moves_the_last_step_and_tells_the_judge(rig: Any, plan: Plan) -> None:
    rig.into(Phase.BAKING)
    rig.rollout = replace(rig.rollout, step=3)
    after = rig(Kind.PLAN_CHANGED, plan=replace(plan, holdback=300))
    assert (after.step, after.weight) == (3, 9_700)
    assert rig.last.restarts_judge


@pytest.mark.parametrize(
    "phase", [p for p in Phase if p not in {Phase.STEADY, Phase.ROLLED_BACK}], ids=lambda p: p.value
)
def test_a_file_with_other_weights_ends_it(rig: Any, phase: Phase) -> None:
    rig.into(phase)
    after = rig(Kind.SUPERSEDED, who="file")
    assert (after.phase, after.reason) == (Phase.STEADY, "superseded by the file")
    assert not rig.last.lock


# ---- the value ----


def test_when_a_phase_began_is_noted(rig: Any) -> None:
    rig.now += 5
    assert rig(Kind.READY).phase_at == 1_005
    rig.now += 5
    rig(Kind.TICK, judged=Judged.CONTINUE, length_s=1.0, requests=1)
    assert rig.rollout.phase_at == 1_005


def test_a_move_to_where_the_table_does_not_lead_is_a_bug_and_said_so(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, _ = TABLE[Phase.WARMING, Kind.READY]
    monkeypatch.setitem(TABLE, (Phase.WARMING, Kind.READY), (move, (Phase.STEADY,)))
    with pytest.raises(AssertionError, match="led to"):
        advance(rig.rollout, Event(kind=Kind.READY, now=0.0))
