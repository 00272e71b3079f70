"""Runs in which the rollout itself takes part: promoted, asked, turned back or not.

The candidate's share of the traffic follows from the rollout, as in the real thing; the
watch and the machine are the control plane's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.judge.measure import Case, Run
from benchmarks.judge.traffic import Traffic
from proxy.control.guard.watch import Seen, Watch
from proxy.control.rollout.machine import Event, Judged, Kind, Outcome, Phase, Rollout, advance
from proxy.control.rollout.plan import Plan, Step
from proxy.model import WHOLE
from proxy.policy.judge import Tick

PROMOTED_AT = 300
"""Until then both pools have half of the traffic, and the old one's record is made."""
PLAN = Plan(steps=(Step(weight=WHOLE // 2, bake_s=1e9), Step(weight=WHOLE)), keep_old_s=1e9)


class Loop:
    """A rollout under a watch, second by second."""

    def __init__(self, case: Case) -> None:
        self.rollout = Rollout(
            id=1, old="old", candidate="candidate", plan=PLAN, phase=Phase.BAKING
        )
        self.knobs = case.knobs
        self.watch = Watch(self.rollout, case.knobs, lambda _: [], 0.0)

    def ticks(self, traffic: Traffic, seed: int) -> Iterator[Tick]:
        live = replace(traffic, part=lambda _: self.rollout.weight / WHOLE)
        return live.ticks(seed)

    def take(self, tick: Tick) -> Seen:
        seen = self.watch.judge_tick(tick)
        self._happen(
            Event(
                kind=Kind.TICK,
                now=tick.at_s,
                reason=seen.verdict.reason,
                length_s=tick.length_s,
                requests=tick.candidate.requests,
                judged=seen.judged,
                old_is_no_better=seen.old_is_no_better,
            )
        )
        if tick.at_s == PROMOTED_AT:
            self._happen(Event(kind=Kind.PROMOTE, now=tick.at_s))
        return seen

    def _happen(self, event: Event) -> None:
        outcome: Outcome = advance(self.rollout, event)
        self.rollout = outcome.rollout
        if outcome.new_judge:
            self.watch.begin_anew(self.rollout, self.knobs)
        elif outcome.restarts_judge and not self.rollout.is_over:
            self.watch.stepped(self.rollout)


def run_asking(case: Case, seed: int) -> Run:
    """Until the rollout is turned back, or the traffic ends."""
    loop, run = Loop(case), Run()
    assert isinstance(case.traffic, Traffic), "its candidate's part follows the rollout"
    for tick in loop.ticks(case.traffic, seed):
        if tick.at_s > case.since:
            run.errors += tick.candidate.errors
        run.is_held |= loop.take(tick).judged is Judged.HOLD
        if loop.rollout.phase is Phase.ROLLED_BACK:
            run.failed_s, run.reason = tick.at_s, loop.rollout.reason
            break
    return run
