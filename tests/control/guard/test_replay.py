"""Replays of what a real watch has recorded."""

from __future__ import annotations

import random
from dataclasses import replace

from proxy.control.guard import tape
from proxy.control.guard.replay import Moment, Ticks, replay
from proxy.control.guard.tape import Mark, Taped
from proxy.control.guard.watch import Watch
from proxy.control.rollout.machine import Phase, Rollout
from proxy.control.rollout.plan import Plan, Step
from proxy.policy.judge import BUCKETS, Call, Counts, Knobs, Tick
from proxy.stats import JUDGED_WORDS

ROLLOUT = Rollout(
    id=3,
    old="blue",
    candidate="green",
    plan=Plan(steps=(Step(weight=500), Step(weight=5_000), Step(weight=10_000))),
    phase=Phase.BAKING,
)
SECOND = replace(ROLLOUT, step=1)
EVERYTHING = replace(ROLLOUT, step=2, phase=Phase.PROMOTED)
BEGAN = 1_700_000_000.0


def spread(count: int, draw: random.Random) -> list[int]:
    by = [0] * BUCKETS
    for _ in range(count):
        by[draw.randrange(BUCKETS)] += 1
    return by


def counts(requests: int, share: float, draw: random.Random) -> Counts:
    errors = sum(draw.random() < share for _ in range(requests))
    return Counts(
        requests=requests,
        errors=errors,
        requests_by=spread(requests, draw),
        errors_by=spread(errors, draw),
        refused_by=[0] * BUCKETS,
    )


def timeless(moments: list[Moment]) -> list[Moment]:
    """Without the time of day: a recording does not have it."""
    return [replace(each, words=each.words.replace(" since 00:00:00 UTC", "")) for each in moments]


class Tape:
    """A watch in use, and what is recorded of it."""

    def __init__(self, knobs: Knobs | None = None, seed: int = 1) -> None:
        self.draw = random.Random(seed)
        self.watch = Watch(ROLLOUT, knobs or Knobs(), lambda _: [0] * JUDGED_WORDS, 0.0)
        self.ticks: list[tuple[float, Taped]] = []
        self.calls: list[Call] = []

    def run(
        self,
        rollout: Rollout,
        seconds: int,
        share: float,
        *,
        mark: Mark = Mark.STEP,
        requests: tuple[int, int] = (20, 180),
        mode: str = "enforce",
    ) -> None:
        if mark is Mark.ANEW:
            self.watch.begin_anew(rollout, Knobs())
        else:
            self.watch.stepped(rollout)
        for _ in range(seconds):
            at_s = float(len(self.ticks) + 1)
            tick = Tick(
                at_s=at_s,
                length_s=1.0,
                candidate=counts(requests[0], share, self.draw),
                active=counts(requests[1], 0.001, self.draw),
            )
            seen = self.watch.judge_tick(tick)
            self.calls.append(seen.verdict.call)
            taped = tape.taped(
                rollout, tick, seen.verdict, mark=mark, mode=mode, knobs=self.watch.knobs
            )
            mark, data = Mark.NONE, tape.encode(taped)
            self.ticks.append((BEGAN + at_s, tape.decode(data)))


def test_the_same_knobs_say_the_same_at_the_same_second() -> None:
    recorded = Tape()
    recorded.run(ROLLOUT, 40, 0.001)
    recorded.run(SECOND, 40, 0.05)
    found = replay(recorded.ticks)
    assert Call.FAIL in recorded.calls
    assert found.would == timeless(found.really)
    (moment,) = found.would
    assert moment.at_s == recorded.calls.index(Call.FAIL) + 1
    assert moment.since_step_s == moment.at_s - 40
    assert (moment.step, moment.weight, moment.at) == (1, 5_000, BEGAN + moment.at_s)
    assert moment.reason
    assert "green" in moment.words
    assert (found.ticks, found.recorded_s, found.missed_s) == (80, 80.0, 0.0)
    assert sum(found.verdicts.values()) == moment.at_s, "what came later is other traffic"


def test_seeded_rollouts_are_judged_again_as_they_were_judged() -> None:
    for seed in range(8):
        recorded = Tape(seed=seed)
        share = random.Random(seed).choice([0.001, 0.01, 0.2])
        recorded.run(ROLLOUT, 30, share)
        recorded.run(SECOND, 60, share)
        recorded.run(EVERYTHING, 60, share, requests=(200, 0))
        found = replay(recorded.ticks)
        assert found.would == timeless(found.really), f"seed {seed}"
        assert bool(found.would) is (Call.FAIL in recorded.calls), f"seed {seed}"


def test_a_larger_tolerance_leaves_alone_what_was_turned_back() -> None:
    recorded = Tape()
    recorded.run(ROLLOUT, 120, 0.02)
    assert Call.FAIL in recorded.calls
    lenient = Knobs(tolerance_abs=0.05, hard_rate=0.9)
    found = replay(recorded.ticks, lambda _: lenient)
    assert found.would == []
    assert len(found.really) == 1
    errors = found.highest["errors"].test
    assert errors.evidence < errors.bar


def test_a_smaller_tolerance_finds_what_was_left_alone_and_says_when() -> None:
    recorded = Tape(knobs=Knobs(tolerance_abs=0.05))
    recorded.run(ROLLOUT, 120, 0.02)
    assert Call.FAIL not in recorded.calls
    found = replay(recorded.ticks, lambda then: replace(then, tolerance_abs=0.0005))
    assert found.really == []
    (moment,) = found.would
    assert moment.reason == "errors"
    assert found.highest["errors"].test.evidence >= found.highest["errors"].test.bar
    assert found.highest["errors"].at_s == moment.at_s


def test_at_100_percent_the_record_of_the_recording_is_what_it_is_held_against() -> None:
    recorded = Tape()
    recorded.run(ROLLOUT, 60, 0.001)
    recorded.run(EVERYTHING, 60, 0.06, requests=(200, 0))
    found = replay(recorded.ticks)
    assert found.would == timeless(found.really)
    assert found.would[0].phase is Phase.PROMOTED
    assert "record" in found.highest


def test_after_a_person_has_overruled_it_another_judge_is_replayed_too() -> None:
    recorded = Tape()
    recorded.run(ROLLOUT, 60, 0.1)
    recorded.run(ROLLOUT, 60, 0.1, mark=Mark.ANEW)
    found = replay(recorded.ticks)
    assert len(found.really) == 2
    assert found.would == timeless(found.really)


def test_after_the_old_pool_was_asked_and_is_no_better_another_judge_is_replayed_too() -> None:
    recorded = Tape()
    recorded.run(ROLLOUT, 60, 0.001)
    recorded.run(EVERYTHING, 60, 0.1, requests=(200, 0))
    recorded.run(replace(EVERYTHING, phase=Phase.ASKING), 3, 0.1, requests=(160, 40))
    recorded.run(EVERYTHING, 60, 0.1, requests=(200, 0))
    found = replay(recorded.ticks)
    assert len(found.really) == 2
    assert found.would == timeless(found.really)


def test_another_judge_begins_only_where_this_one_has_failed() -> None:
    """With other knobs nobody would have had to overrule it, so that its evidence stands."""
    recorded = Tape(knobs=Knobs(false_alarm=0.9))
    recorded.run(ROLLOUT, 5, 0.2)
    recorded.run(ROLLOUT, 60, 0.001, mark=Mark.ANEW)
    lenient = Knobs(tolerance_abs=0.5, hard_rate=1.0)
    assert recorded.ticks[5][1].mark is Mark.ANEW
    found = replay(recorded.ticks, lambda _: lenient)
    assert found.would == []
    assert sum(found.verdicts.values()) == 65


def test_a_recording_that_begins_late_says_by_how_much() -> None:
    recorded = Tape()
    recorded.run(ROLLOUT, 90, 0.001)
    late: Ticks = recorded.ticks[60:]
    found = replay(late)
    assert (found.missed_s, found.recorded_s) == (60.0, 30.0)


def test_nothing_recorded_is_nothing_found() -> None:
    found = replay([])
    assert (found.ticks, found.would, found.highest) == (0, [], {})
