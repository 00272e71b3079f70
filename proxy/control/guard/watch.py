"""The watch over one rollout: second by second its pools' counters go to the judge.

It remembers what cannot be derived: the judge, the old pool's record, the last readings.
Pure but for the counters it reads; `clerk` gives it its turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from proxy.control.guard import counts
from proxy.control.rollout.machine import Judged, Phase, Rollout
from proxy.policy.judge import Call, Counts, Judge, Knobs, Sides, Tick, Verdict
from proxy.policy.judge.ask import Reply, reply
from proxy.policy.judge.record import Record

BLIND_S = 10.0
"""Without a report of the counters for as long, nothing is decided."""
RECENT_TICKS = 10
STILL_FAILS = 0.05
"""Share of errors in the last ticks from which a candidate that is stuck goes on failing."""
STALL_S, STALL_TIMES = 5.0, 10.0
"""An attempt hangs when it is as old, or as many times the active pool's 99th percentile."""
LEVEL_PART = 4.0
"""The record's bound is wrong with a chance of a quarter of the false-alarm budget."""

Read = Callable[[str], list[int]]
"""The judge's counters of a pool, cumulative over all workers."""


Totals = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one tick showed."""

    tick: Tick
    verdict: Verdict
    judged: Judged
    still_fails: bool
    old_is_no_better: bool
    totals: Totals = (0, 0, 0, 0)
    """Requests and errors of the candidate and of the old pool since this judge began."""


def sides(rollout: Rollout, since: float) -> Sides:
    """The pools by their names, and the time of day from which they are compared (wall seconds)."""
    clock = datetime.fromtimestamp(since, UTC).strftime("%H:%M:%S UTC")
    return Sides(candidate=rollout.candidate, active=rollout.old, since=clock)


class Watch:
    def __init__(self, rollout: Rollout, knobs: Knobs, read: Read, now: float) -> None:
        # fixed
        self.rollout_id = rollout.id
        self.old = rollout.old
        self._candidate = rollout.candidate
        self._sides = sides(rollout, rollout.began_at)
        self._read = read
        self.knobs = knobs
        self._began = now
        # since the rollout began
        self.judge = Judge(knobs, self._sides)
        self.record = Record()
        self.is_evidence_lost = False
        self._is_at_record = False
        self._last_at = now
        self._last = (read(rollout.candidate), read(rollout.old))
        self._recent: deque[tuple[int, int]] = deque(maxlen=RECENT_TICKS)
        self._asked: list[float] | None = None
        self._totals: Totals = (0, 0, 0, 0)

    # ---- when weights change ----

    def stepped(self, rollout: Rollout) -> None:
        """The weights have changed; at 100 % the old pool's record takes its place."""
        if rollout.phase is Phase.ASKING:
            self._asked = [0.0, 0.0, 0.0, 0.0]
            return
        self._asked = None
        if rollout.phase is Phase.PROMOTED and not self._is_at_record:
            self._is_at_record = True
            level = self.knobs.false_alarm / LEVEL_PART
            share = self.record.highest_share(level)
            if share is None:
                self.judge.step()
            else:
                self.judge.watch(share)
        elif rollout.phase is Phase.PROMOTED:
            # Asked, and turning back would not help: what was latched is the past's.
            self.begin_anew(rollout, self.knobs)
        else:
            self.judge.step()

    def begin_anew(self, rollout: Rollout, knobs: Knobs) -> None:
        """Another judge, which knows of no evidence: a person overruled the one before."""
        self.knobs, self._asked = knobs, None
        self._sides = sides(rollout, rollout.phase_at)
        self.judge = Judge(knobs, self._sides)
        self._totals = (0, 0, 0, 0)
        if rollout.phase is not Phase.PROMOTED:
            return
        self._is_at_record = True
        share = self.record.highest_share(self.knobs.false_alarm / LEVEL_PART)
        if share is not None:
            self.judge.watch(share)

    def disturbed(self) -> None:
        """A pool's endpoints are others now: what comes is a stratum of its own."""
        self.judge.step()

    # ---- a tick ----

    def look(self, now: float, *, is_blind: bool) -> Seen:
        """Read what has happened since the last look, and have it judged."""
        readings = (self._read(self._candidate), self._read(self.old))
        candidate, active = (
            counts.between(before, after)
            for before, after in zip(self._last, readings, strict=True)
        )
        tick = Tick(
            at_s=now - self._began,
            length_s=now - self._last_at,
            active=active,
            candidate=candidate,
        )
        self._last, self._last_at = readings, now
        return self.judge_tick(tick, is_blind=is_blind)

    def judge_tick(self, tick: Tick, *, is_blind: bool = False) -> Seen:
        verdict = self.judge.observe(tick)
        if is_blind and verdict.call is not Call.FAIL:
            words = f"no worker has reported its counters for {BLIND_S:.0f} s"
            verdict = Verdict(call=Call.HOLD, reason="blind", words=words, tests=verdict.tests)
        if not self._is_at_record:
            self.record.add(tick.length_s, tick.active.requests, tick.active.errors)
        self._recent.append((tick.candidate.requests, tick.candidate.errors))
        new, old = tick.candidate, tick.active
        counted = (new.requests, new.errors, old.requests, old.errors)
        requests, errors, old_requests, old_errors = (
            int(x + y) for x, y in zip(self._totals, counted, strict=True)
        )
        self._totals = (requests, errors, old_requests, old_errors)
        answer = self._ask(new, old)
        judged = Judged(verdict.call.value)
        if self._asked is not None:
            # The judge has failed it already; the question is what the old pool says.
            judged = Judged.FAIL if answer is Reply.BETTER else Judged.CONTINUE
        return Seen(
            tick=tick,
            verdict=verdict,
            judged=judged,
            still_fails=self._still_fails(),
            old_is_no_better=answer is Reply.NO_BETTER,
            totals=self._totals,
        )

    def _ask(self, candidate: Counts, active: Counts) -> Reply:
        if self._asked is None:
            return Reply.UNDECIDED
        new = (candidate.requests, candidate.errors, active.requests, active.errors)
        self._asked = [x + y for x, y in zip(self._asked, new, strict=True)]
        return reply(self._asked)

    def _still_fails(self) -> bool:
        """Without traffic nothing speaks for a recovery."""
        requests = sum(each for each, _ in self._recent)
        errors = sum(each for _, each in self._recent)
        return requests == 0 or errors >= STILL_FAILS * requests

    def patience(self) -> tuple[float, float]:
        """From when on who leaves left because it is slow, and when an attempt hangs; in seconds."""
        slow_s, slowest_s = (self.judge.usual_s(quantile) for quantile in (0.9, 0.99))
        if slow_s is None or slowest_s is None:
            return 0.0, STALL_S
        return slow_s, max(STALL_S, STALL_TIMES * slowest_s)

    # ---- over a restart ----

    def save(self) -> dict[str, Any]:
        return {
            "rollout": self.rollout_id,
            "judge": self.judge.save(),
            "record": self.record.save(),
            "is_at_record": self._is_at_record,
            "at_s": self._last_at - self._began,
            "totals": list(self._totals),
            "knobs": asdict(self.knobs),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from what `save` gave; ValueError when it is another rollout's, or unreadable."""
        try:
            if saved["rollout"] != self.rollout_id:
                raise ValueError("the judge's state of another rollout")
            knobs = _knobs(saved["knobs"])  # those it began with, whatever the file says now
            judge = Judge.restored(saved["judge"], knobs, self._sides)
            rows: Sequence[Any] = saved["record"]
            self.record.load(list(rows))
            self._is_at_record = bool(saved["is_at_record"])
            self._began = self._last_at - float(saved["at_s"])
            requests, errors, old_requests, old_errors = (int(each) for each in saved["totals"])
            self._totals = (requests, errors, old_requests, old_errors)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the state of a watch: {error!r}") from error
        self.judge, self.knobs = judge, knobs


def _knobs(saved: Mapping[str, Any]) -> Knobs:
    """Those of a later version are passed over."""
    return Knobs(**{each.name: saved[each.name] for each in fields(Knobs) if each.name in saved})
