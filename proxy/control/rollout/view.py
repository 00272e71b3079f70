"""A rollout, its guard and a lockout as the admin API shows them."""

from __future__ import annotations

from typing import Any

from proxy.control.decision import iso_utc
from proxy.control.guard.watch import Seen
from proxy.control.percent import percent
from proxy.control.rollout.machine import Phase, Rollout
from proxy.control.state import Lockout

View = dict[str, Any]

_BAKING = frozenset({Phase.BAKING, Phase.PAUSED})


def rollout_view(rollout: Rollout | None) -> View | None:
    if rollout is None:
        return None
    plan = rollout.plan
    bake_left = None
    if rollout.phase in _BAKING:
        bake_left = round(max(0.0, plan.steps[rollout.step].bake_s - rollout.baked_s), 1)
    return {
        "id": rollout.id,
        "phase": rollout.phase.value,
        "step": rollout.step + 1,
        "steps": [
            {"weight": percent(each.weight), "bake_s": each.bake_s, "pause": each.pause}
            for each in plan.steps
        ],
        "weight": percent(rollout.weight),
        "bake_left_s": bake_left,
        "reason": rollout.reason or None,
        "end": rollout.end.value or None,
        "candidate": rollout.candidate,
        "old": rollout.old,
        "release": rollout.release,
        "paused": rollout.why.value or None if rollout.phase is Phase.PAUSED else None,
        "requests": rollout.had,
        "min_requests": plan.min_requests,
        "began_at": iso_utc(rollout.began_at),
        "phase_at": iso_utc(rollout.phase_at),
        "who": rollout.who,
    }


def guard_view(mode: str, rollout: Rollout | None, seen: Seen | None) -> View:
    """The mode, and what the last tick of the rollout showed."""
    view: View = {"mode": mode, "verdict": None, "reason": "", "words": "", "tests": []}
    if rollout is None or seen is None:
        return view
    verdict, tick = seen.verdict, seen.tick
    view |= {
        "verdict": verdict.call.value,
        "reason": verdict.reason,
        "words": verdict.words,
        "tests": [
            {"name": each.name, "evidence": round(each.evidence, 2), "bar": round(each.bar, 2)}
            for each in verdict.tests
        ],
        "sides": {
            rollout.candidate: _side(tick.candidate.requests, tick.candidate.errors),
            rollout.old: _side(tick.active.requests, tick.active.errors),
        },
        "totals": {
            rollout.candidate: _side(*seen.totals[:2]),
            rollout.old: _side(*seen.totals[2:]),
        },
    }
    return view


def _side(requests: int, errors: int) -> View:
    return {"requests": requests, "errors": errors}


def lockout_view(lockout: Lockout | None, now: float) -> View | None:
    """What is locked out; nothing where its time is over."""
    if lockout is None or lockout.is_over(now):
        return None
    return {
        "release": lockout.release,
        "since": iso_utc(lockout.at),
        "until": None if lockout.until is None else iso_utc(lockout.until),
        "reason": lockout.reason,
        "rollout": lockout.rollout,
    }
