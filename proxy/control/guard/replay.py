"""Recorded ticks judged once more, perhaps with other knobs: what would have happened, and when.

It ends with the first FAIL, as what was recorded after it would have been other traffic; unless
another judge began then, since a person overruled the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from proxy.control.guard.tape import Mark, Taped
from proxy.control.guard.watch import LEVEL_PART
from proxy.control.rollout.machine import Phase
from proxy.policy.judge import Call, Judge, Knobs, Sides, Test, Tick, Verdict
from proxy.policy.judge.record import Record

Ticks = Sequence[tuple[float, Taped]]
"""Each with the wall time at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A tick at which the judge said FAIL, in the replay or in truth."""

    at: float
    """Wall seconds."""
    at_s: float
    """Seconds since the recording began."""
    since_step_s: float
    """Seconds since the weights had changed, or since the recording began."""
    phase: Phase
    step: int
    """Counted from 0."""
    weight: int
    mode: str
    """What the guard was allowed to do then."""
    reason: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Highest:
    """A test when it was nearest to its bar."""

    test: Test
    at_s: float


@dataclass(slots=True, kw_only=True)
class Replayed:
    ticks: int = 0
    recorded_s: float = 0.0
    missed_s: float = 0.0
    """What of the rollout had gone by when the recording begins."""
    verdicts: Counter[Call] = field(default_factory=Counter)
    """Ticks by verdict, up to the end of the replay."""
    would: list[Moment] = field(default_factory=list)
    really: list[Moment] = field(default_factory=list)
    highest: dict[str, Highest] = field(default_factory=dict)


class _Player:
    """A judge, and what it has to be told as the rollout goes."""

    def __init__(self, knobs: Knobs, sides: Sides) -> None:
        self._knobs = knobs
        self._sides = sides
        self._judge = Judge(knobs, sides)
        self._record = Record()
        self._is_at_record = False
        self.has_failed = False

    def hear(self, each: Taped, knobs: Knobs) -> None:
        """What has happened before this tick.

        Another judge began only because of a FAIL; where this one has not failed it goes on.
        """
        if each.mark is Mark.NONE:
            return
        # Back at 100 % from a question to the old pool, another judge begins as well.
        is_back = each.phase is Phase.PROMOTED and self._is_at_record
        if self.has_failed and (each.mark is Mark.ANEW or is_back):
            self._judge = Judge(knobs, self._sides)
            self._knobs, self.has_failed = knobs, False
            if each.phase is Phase.PROMOTED:
                self._begin_record()
        elif each.phase is Phase.PROMOTED and not self._is_at_record:
            self._begin_record()
        else:
            self._judge.step()

    def _begin_record(self) -> None:
        self._is_at_record = True
        share = self._record.highest_share(self._knobs.false_alarm / LEVEL_PART)
        if share is None:
            self._judge.step()
        else:
            self._judge.watch(share)

    def judge(self, tick: Tick) -> Verdict:
        verdict = self._judge.observe(tick)
        if not self._is_at_record:
            self._record.add(tick.length_s, tick.active.requests, tick.active.errors)
        self.has_failed = verdict.call is Call.FAIL
        return verdict


def replay(ticks: Ticks, knobs_for: Callable[[Knobs], Knobs] = lambda then: then) -> Replayed:
    """Judge a rollout's ticks; `knobs_for` makes the knobs of those that were in force then."""
    done = Replayed()
    player: _Player | None = None
    step_s = 0.0
    has_really_failed = False
    for at, each in ticks:
        knobs = knobs_for(each.knobs)
        if player is None:
            player = _Player(knobs, Sides(candidate=each.candidate, active=each.old))
            done.missed_s = max(0.0, each.tick.at_s - each.tick.length_s)
        if each.mark is not Mark.NONE:
            step_s = done.recorded_s
        player.hear(each, knobs)
        done.ticks += 1
        done.recorded_s += each.tick.length_s
        when = (at, done.recorded_s, done.recorded_s - step_s)
        if each.call is Call.FAIL and not has_really_failed:
            done.really.append(_moment(when, each, each.reason, each.words))
        has_really_failed = each.call is Call.FAIL
        if player.has_failed:
            continue
        # Evenly on: a restart may have taken some seconds out of the clock.
        tick = Tick(
            at_s=done.missed_s + done.recorded_s,
            length_s=each.tick.length_s,
            active=each.tick.active,
            candidate=each.tick.candidate,
        )
        verdict = player.judge(tick)
        done.verdicts[verdict.call] += 1
        _note_highest(done, verdict)
        if player.has_failed:
            done.would.append(_moment(when, each, verdict.reason, verdict.words))
    return done


def _moment(when: tuple[float, float, float], each: Taped, reason: str, words: str) -> Moment:
    at, at_s, since_step_s = when
    return Moment(
        at=at,
        at_s=at_s,
        since_step_s=since_step_s,
        phase=each.phase,
        step=each.step,
        weight=each.weight,
        mode=each.mode,
        reason=reason,
        words=words,
    )


def _note_highest(done: Replayed, verdict: Verdict) -> None:
    for test in verdict.tests:
        known = done.highest.get(test.name)
        if known is None or test.evidence - test.bar > known.test.evidence - known.test.bar:
            done.highest[test.name] = Highest(test=test, at_s=done.recorded_s)
