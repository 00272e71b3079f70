"""One rollout watched second by second, without a control plane around it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.control.guard.watch import STALL_S, Seen, Watch
from proxy.control.rollout.machine import Judged, Phase, Rollout
from proxy.control.rollout.plan import Plan, Step
from proxy.policy.judge import Knobs
from proxy.stats import (
    J_ERRORS,
    J_LATENCIES,
    J_LOG_SQUARES,
    J_LOG_SUMS,
    J_REQUESTS,
    J_UNTIMED,
    JUDGE_BUCKETS,
    JUDGED_WORDS,
)

PLAN = Plan(steps=(Step(weight=1_000), Step(weight=10_000)))
BAKING = Rollout(id=3, old="blue", candidate="green", plan=PLAN, phase=Phase.BAKING)
PROMOTED = replace(BAKING, phase=Phase.PROMOTED)


class Rig:
    """A watch, its pools' counters, and a clock."""

    def __init__(self, rollout: Rollout = BAKING, knobs: Knobs | None = None) -> None:
        self.words = {pool: [0] * JUDGED_WORDS for pool in ("blue", "green")}
        self.now = 50.0
        self.watch = self.another(rollout, knobs)

    def another(self, rollout: Rollout = BAKING, knobs: Knobs | None = None) -> Watch:
        return Watch(rollout, knobs or Knobs(), lambda pool: list(self.words[pool]), self.now)

    def count(self, pool: str, requests: int, errors: int, at: int = 40) -> None:
        words = self.words[pool]
        for number in range(requests):
            bucket = number % JUDGE_BUCKETS
            words[J_REQUESTS + bucket] += 1
            if number < errors:
                words[J_ERRORS + bucket] += 1
                words[J_UNTIMED + bucket] += 1
            else:
                words[J_LOG_SUMS + bucket] += at
                words[J_LOG_SQUARES + bucket] += at * at
                words[J_LATENCIES + at] += 1

    def look(
        self,
        green: tuple[int, int] = (0, 0),
        blue: tuple[int, int] = (0, 0),
        *,
        blind: bool = False,
    ) -> Seen:
        self.now += 1.0
        self.count("green", *green)
        self.count("blue", *blue)
        return self.watch.look(self.now, is_blind=blind)


def test_a_look_takes_what_came_since_the_last_one_and_how_long_it_was() -> None:
    rig = Rig()
    rig.look(green=(5, 1), blue=(50, 0))
    seen = rig.look(green=(3, 0), blue=(40, 2))
    assert (seen.tick.candidate.requests, seen.tick.active.errors) == (3, 2)
    assert (seen.tick.length_s, seen.tick.at_s) == (1.0, 2.0)
    assert seen.totals == (8, 1, 90, 2)


def test_what_was_counted_before_the_rollout_is_nobodys_evidence() -> None:
    rig = Rig()
    rig.count("green", 1_000, 1_000)
    rig.watch = rig.another()
    assert rig.look(green=(10, 0), blue=(90, 0)).judged is Judged.CONTINUE
    assert rig.look().totals == (10, 0, 90, 0)


def test_a_candidate_that_is_down_fails_within_seconds() -> None:
    rig = Rig()
    calls = [rig.look(green=(10, 10), blue=(90, 0)).judged for _ in range(3)]
    assert calls[-1] is Judged.FAIL


def test_blind_is_a_hold_but_never_hides_a_failure() -> None:
    rig = Rig()
    seen = rig.look(green=(10, 0), blue=(90, 0), blind=True)
    assert (seen.judged, seen.verdict.reason) == (Judged.HOLD, "blind")
    for _ in range(3):
        seen = rig.look(green=(10, 10), blue=(90, 0), blind=True)
    assert seen.judged is Judged.FAIL


def test_without_traffic_nothing_speaks_for_a_recovery() -> None:
    rig = Rig()
    assert rig.look().still_fails
    assert rig.look(green=(10, 10)).still_fails
    for _ in range(10):
        seen = rig.look(green=(10, 0))
    assert not seen.still_fails


def test_at_all_the_old_pools_record_takes_its_place() -> None:
    rig = Rig()
    for _ in range(60):
        rig.look(green=(10, 0), blue=(90, 0))
    rig.watch.stepped(PROMOTED)
    assert {each.name for each in rig.look(green=(100, 0)).verdict.tests} >= {"record"}
    for _ in range(240):
        seen = rig.look(green=(100, 4))
    assert (seen.judged, seen.verdict.reason) == (Judged.FAIL, "record")


def test_without_a_record_the_judge_is_told_of_a_step() -> None:
    rig = Rig()
    rig.watch.stepped(PROMOTED)
    assert "record" not in {each.name for each in rig.look(green=(10, 0)).verdict.tests}


@pytest.mark.parametrize(("blue", "answer"), [(0, ("FAIL", False)), (20, ("CONTINUE", True))])
def test_while_it_asks_the_old_pool_answers_and_not_the_past(
    blue: int, answer: tuple[str, bool]
) -> None:
    rig = Rig(PROMOTED)
    for _ in range(3):
        assert rig.look(green=(100, 100)).judged in {Judged.FAIL, Judged.CONTINUE}
    rig.watch.stepped(replace(PROMOTED, phase=Phase.ASKING))
    assert rig.look().judged is Judged.CONTINUE, "a latched FAIL is no answer"
    for _ in range(2):
        seen = rig.look(green=(80, 80), blue=(20, blue))
    assert (seen.judged.value, seen.old_is_no_better) == answer


def test_another_judge_knows_of_no_evidence() -> None:
    rig = Rig()
    for _ in range(3):
        rig.look(green=(10, 10), blue=(90, 0))
    rig.watch.begin_anew(BAKING, Knobs(false_alarm=0.05))
    seen = rig.look(green=(10, 0), blue=(90, 0))
    assert (seen.judged, seen.totals) == (Judged.CONTINUE, (10, 0, 90, 0))
    assert rig.watch.knobs.false_alarm == 0.05


def test_patience_is_known_once_latencies_are() -> None:
    rig = Rig()
    assert rig.watch.patience() == (0.0, STALL_S)
    for _ in range(60):
        rig.look(green=(10, 0), blue=(90, 0))
    slow_s, stall_s = rig.watch.patience()
    assert 0.0 < slow_s < stall_s


def test_what_is_saved_goes_on_with_the_knobs_it_began_with() -> None:
    rig = Rig(knobs=Knobs(false_alarm=0.02))
    for _ in range(20):
        seen = rig.look(green=(100, 4), blue=(900, 1))
    other = rig.another(knobs=Knobs())
    other.load(rig.watch.save())
    assert other.knobs.false_alarm == 0.02
    assert [each.bar for each in other.judge.tests()] == [each.bar for each in seen.verdict.tests]
    assert other.save()["record"] == rig.watch.save()["record"]
    rig.watch = other
    assert rig.look(green=(1, 0), blue=(1, 0)).totals == (2_001, 80, 18_001, 20)


@pytest.mark.parametrize("missing", ["judge", "record", "knobs", "totals", "rollout"])
def test_what_cannot_be_read_is_refused_and_changes_nothing(missing: str) -> None:
    rig = Rig()
    saved = rig.watch.save()
    saved.pop(missing)
    judge = rig.watch.judge
    with pytest.raises(ValueError, match="not the state of a watch"):
        rig.watch.load(saved)
    assert rig.watch.judge is judge


def test_the_state_of_another_rollout_is_refused() -> None:
    rig = Rig()
    with pytest.raises(ValueError, match="another rollout"):
        rig.another(replace(BAKING, id=4)).load(rig.watch.save())
