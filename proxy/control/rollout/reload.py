"""What a changed file means for the rollout that is under way. Pure."""

from __future__ import annotations

from dataclasses import replace

from proxy.control.rollout.change import happen
from proxy.control.rollout.machine import Event, Kind, Phase, Rollout
from proxy.control.rollout.plan import Plan
from proxy.control.state import Change, ServiceState, same_shares

FILE = "file"


def reload_rollout(
    before: ServiceState, change: Change, *, was: Plan, plan: Plan, now: float
) -> Change:
    """Add to what the file has changed what follows for the rollout.

    Other weights or another active pool in the file end it, and the file wins. Another release
    in the candidate's pool is another rollout: this one is aborted. Other steps than the file had
    hold from here on, unless this rollout was given its own.
    """
    after, rollout = change.state, change.state.rolling
    if rollout is None:
        return change
    event = Event(kind=Kind.SUPERSEDED, now=now, who=FILE)
    if _has_moved(before, after):
        event = replace(event, reason="superseded: the file gives other weights")
    elif _is_other_release(before, after, rollout):
        event = replace(event, kind=Kind.ABORT, force=True, reason="another release in the file")
    elif plan != was and rollout.plan.steps == was.steps and rollout.phase is not Phase.PROMOTED:
        merged = replace(
            plan, ready_timeout_s=rollout.plan.ready_timeout_s, min_ready=rollout.plan.min_ready
        )
        event = replace(event, kind=Kind.PLAN_CHANGED, plan=merged)
    else:
        return change
    moved, _ = happen(after, event)
    return Change(state=moved.state, decisions=(*change.decisions, *moved.decisions))


def _has_moved(before: ServiceState, after: ServiceState) -> bool:
    old, new = before.file, after.file
    return new.active != old.active or not same_shares(new.shares, old.shares)


def _is_other_release(before: ServiceState, after: ServiceState, rollout: Rollout) -> bool:
    pool = rollout.candidate
    was, is_now = before.filling(pool).release, after.filling(pool).release
    return was != is_now and rollout.phase is not Phase.PROMOTED
