"""What a changed file means for the rollout that is under way. Pure."""

from __future__ import annotations

from dataclasses import fields, replace

from proxy.control.decision import Author, Decision
from proxy.control.filling import release_key
from proxy.control.percent import percents
from proxy.control.rollout.change import happen
from proxy.control.rollout.machine import Event, Kind, Phase, Rollout
from proxy.control.rollout.plan import Plan
from proxy.control.state import Change, ServiceState, same_shares
from proxy.control.verbs import with_everything_to

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
    merged = _merged(rollout.plan, was, plan)
    gone = [pool for pool in (rollout.old, rollout.candidate) if pool not in after.pools]
    if gone:
        event = replace(event, reason=f"superseded: the file has no pool {gone[0]} any more")
    elif _has_moved(before, after):
        event = replace(event, reason="superseded: the file gives other weights")
    elif rollout.phase is Phase.PROMOTED and _has_other(before, after, rollout.old):
        event = replace(event, reason=f"superseded: another release in {rollout.old}")
    elif _is_other_release(before, after, rollout):
        event = replace(event, kind=Kind.ABORT, force=True, reason="another release in the file")
    elif merged != rollout.plan:
        event = replace(event, kind=Kind.PLAN_CHANGED, plan=merged)
    else:
        return change
    moved, _ = happen(after, event)
    return Change(state=moved.state, decisions=(*change.decisions, *moved.decisions))


def _has_moved(before: ServiceState, after: ServiceState) -> bool:
    old, new = before.file, after.file
    return new.active != old.active or not same_shares(new.shares, old.shares)


def _is_other_release(before: ServiceState, after: ServiceState, rollout: Rollout) -> bool:
    is_active = rollout.candidate_is_active
    return not is_active and _has_other(before, after, rollout.candidate)


def _has_other(before: ServiceState, after: ServiceState, pool: str) -> bool:
    return before.filling(pool).release != after.filling(pool).release


def _merged(own: Plan, was: Plan, plan: Plan) -> Plan:
    """The file's new values, but for what this rollout was given otherwise than by the file."""
    return replace(
        own,
        **{
            key.name: getattr(plan, key.name)
            for key in fields(Plan)
            if getattr(own, key.name) == getattr(was, key.name)
        },
    )


def keep_locked_out(before: ServiceState, change: Change, *, now: float) -> Change:
    """Whatever the file says, a release that is locked out gets nothing it had not before."""
    after, lockout = change.state, change.state.lockout
    if lockout is None or lockout.is_over(now):
        return change
    locked = [
        pool
        for pool, share in after.shares.items()
        if share > before.shares.get(pool, 0)
        and release_key(after.filling(pool)) == lockout.release
    ]
    others = [pool for pool in after.pools if pool not in locked and after.filling(pool).members]
    if not locked or not others:
        return change
    to = before.in_charge if before.in_charge in others else others[0]
    why = f"{lockout.release} is locked out: it gets nothing, whatever the file says"
    author = Author(who=FILE, reason=why, at=now)
    kept = with_everything_to(after, to, author)
    record = Decision(
        what="lockout",
        who=FILE,
        service=after.name,
        before=percents(after.shares),
        after=percents(kept.shares),
        why=why,
    )
    return Change(state=kept, decisions=(*change.decisions, record))
