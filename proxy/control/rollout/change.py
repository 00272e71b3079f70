"""What a rollout means for a service's state: its beginning, and each move of its machine.

Pure. The weights of a step follow from the rollout itself (`ServiceState.shares`); who is in
charge, cookies that are void and lockouts are set here, with one decision for each move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from proxy.control import verbs
from proxy.control.decision import Author, Decision, because
from proxy.control.filling import release_key
from proxy.control.percent import percents
from proxy.control.refusal import Invalid, Refused
from proxy.control.rollout.machine import Event, Kind, Outcome, Phase, Rollout, advance
from proxy.control.rollout.plan import Plan, Step
from proxy.control.state import Change, Lockout, ServiceState
from proxy.model import WHOLE


def begin(
    state: ServiceState, to: str, plan: Plan, author: Author, *, force: bool = False
) -> Change:
    """Begin a rollout: nothing is sent to the candidate before it is ready.

    A lockout ends when the candidate is ready (see `happen`): it was of another release, is over,
    or is overruled by `force`. Until then the deploy may still come to nothing.
    """
    check_start(state, to, author, force=force)
    number = state.rollouts + 1
    rollout = Rollout(
        id=number,
        old=state.in_charge,
        candidate=to,
        release=state.filling(to).release,
        plan=plan,
        began_at=author.at,
        step_at=author.at,
        phase_at=author.at,
        who=author.who,
    )
    # Cookies from when the candidate was active before would make its first step larger.
    epochs = dict(state.epochs) | {to: state.epochs.get(to, 0) + 1}
    after = replace(state, rollout=rollout, rollouts=number, epochs=epochs)
    why = because(f"rollout {number} to {to}{', forced' if force else ''}", author.reason)
    record = _record(state, after, author, why, {"force": force})
    return Change(state=after, decisions=(record,))


def check_start(state: ServiceState, to: str, author: Author, *, force: bool) -> None:
    """Refuse a start that makes no sense, or one of a release that was rolled back."""
    if to not in state.pools:
        raise Invalid(f"to: {state.name} has no pool {to} (it has {', '.join(state.pools)})")
    # While the last one is only watched, a team that releases often goes on with the next.
    if (running := state.rolling) and running.phase is not Phase.PROMOTED:
        raise Refused(running_in_words(running))
    if to == state.in_charge:
        raise Refused(f"{to} is the active pool of {state.name} already")
    if not state.usable(to):
        raise Refused(_cannot_take(state, to))
    if not force:
        check_lockout(state, to, author.at)


def _cannot_take(state: ServiceState, to: str) -> str:
    drained = state.filling(to).addresses()
    if not drained:
        return f"{to} has no endpoint that could take traffic (turnout deploy fills it)"
    return (
        f"{to} has no endpoint that could take traffic: {', '.join(drained)} drained by hand "
        f"(turnout drain {state.name}/{to}/{drained[0]} --undo)"
    )


def check_lockout(state: ServiceState, to: str, now: float) -> None:
    lockout = state.lockout
    key = release_key(state.filling(to))
    if lockout is None or lockout.release != key:
        return
    if lockout.is_over(now):
        return
    since = f"rollout {lockout.rollout} was rolled back" if lockout.rollout else "a rollback"
    why = f" ({lockout.reason})" if lockout.reason else ""
    raise Refused(
        f"{key} is locked out since {since}{why}; deploy another release, or turnout unlock {state.name}"
    )


def running_in_words(rollout: Rollout) -> str:
    release = f" of {rollout.release}" if rollout.release else ""
    return (
        f"rollout {rollout.id}{release} to {rollout.candidate} is {rollout.phase.value}"
        " (turnout rollout abort, promote or pause it, or wait)"
    )


def switched(state: ServiceState, change: Change, to: str, plan: Plan, author: Author) -> Change:
    """After a plain switch: the pool that got everything is watched as after a rollout."""
    number = state.rollouts + 1
    rollout = Rollout(
        id=number,
        old=state.in_charge,
        candidate=to,
        release=state.filling(to).release,
        plan=plan,
        phase=Phase.PROMOTED,
        step=len(plan.steps) - 1,
        began_at=author.at,
        step_at=author.at,
        phase_at=author.at,
        reason="switched at once",
        who=author.who,
    )
    after = replace(change.state, rollout=rollout, rollouts=number, lockout=None)
    return replace(change, state=after)


def superseded(change: Change, reason: str, author: Author) -> Change:
    """A change that makes the watch over the rollout before it pointless ends it."""
    if change.state.rolling is None:
        return change
    event = Event(kind=Kind.SUPERSEDED, now=author.at, who=author.who, reason=reason)
    moved, _ = happen(change.state, event)
    return Change(state=moved.state, decisions=(*change.decisions, *moved.decisions))


def at_once(keep_old_s: float, *, ask: bool) -> Plan:
    """The plan of a switch: one step with everything."""
    steps = (Step(weight=WHOLE),)
    return Plan(steps=steps, holdback=0, keep_old_s=keep_old_s, ask=ask, min_requests=0)


def happen(
    state: ServiceState,
    event: Event,
    *,
    lockout_s: float | None = None,
    numbers: Mapping[str, Any] | None = None,
) -> tuple[Change, Outcome]:
    """Have something happen to the rollout; a move that changes nothing makes no record.

    `lockout_s`: how long a release that is rolled back stays locked, None for good.
    """
    rollout = state.rollout
    if rollout is None:
        raise Refused(f"{state.name} has no rollout (turnout rollout start begins one)")
    outcome = advance(rollout, event)
    after = replace(state, rollout=outcome.rollout)
    author = Author(who=event.who, reason=event.reason, at=event.now)
    after = _with_pools(state, after, rollout, outcome, author)
    if outcome.lock:
        after = _locked(after, outcome.rollout, event.now, lockout_s)
    if event.kind in {Kind.UNLOCK, Kind.READY}:
        after = replace(after, lockout=None)
    if not _is_news(rollout, outcome.rollout) and event.kind is Kind.TICK:
        return Change(state=after), outcome
    record = _record(state, after, author, _why(event, outcome.rollout), dict(numbers or {}))
    return Change(state=after, decisions=(record,)), outcome


def _is_news(before: Rollout, after: Rollout) -> bool:
    """Whether more has moved than the clock."""
    same = replace(before, baked_s=after.baked_s, had=after.had)
    return same != after


def _with_pools(
    before: ServiceState, after: ServiceState, was: Rollout, outcome: Outcome, author: Author
) -> ServiceState:
    """Who is in charge from now on, once the rollout has come to something."""
    rollout = outcome.rollout
    if rollout.phase is Phase.PROMOTED and was.phase not in {
        Phase.PROMOTED,
        Phase.ASKING,
        Phase.STUCK,
    }:
        after = verbs.with_everything_to(after, rollout.candidate, author)
        after = replace(after, previous_active=rollout.old)
    if outcome.voids:
        after = verbs.with_everything_to(after, rollout.old, author)
        after = replace(after, previous_active=None)
        epoch = before.epochs.get(rollout.candidate, 0) + 1
        after = replace(after, epochs=dict(after.epochs) | {rollout.candidate: epoch})
    return after


def _locked(
    state: ServiceState, rollout: Rollout, now: float, lockout_s: float | None
) -> ServiceState:
    key = release_key(state.filling(rollout.candidate))
    until = None if lockout_s is None else now + lockout_s
    lockout = Lockout(release=key, at=now, until=until, reason=rollout.reason, rollout=rollout.id)
    return replace(state, lockout=lockout)


def check_not_back(state: ServiceState) -> None:
    """Refuse to go back where the last rollout has been turned back already."""
    rollout = state.rollout
    if rollout is None or rollout.phase is not Phase.ROLLED_BACK:
        return
    if state.is_all_on(rollout.old):
        raise Refused(
            f"rollout {rollout.id} is rolled back already: {rollout.old} has everything"
            f" of {state.name}, and there is nothing to go back to"
        )


def locked_by_hand(state: ServiceState, change: Change, author: Author) -> Change:
    """After a plain rollback: what the pool that was left runs may not start again."""
    left = next(
        pool for pool, share in state.shares.items() if share and change.state.shares[pool] == 0
    )
    lockout = Lockout(release=release_key(state.filling(left)), at=author.at, reason=author.reason)
    return replace(change, state=replace(change.state, lockout=lockout))


def _why(event: Event, rollout: Rollout) -> str:
    if event.kind is Kind.TICK:
        return rollout.reason or f"step {rollout.step + 1} of {len(rollout.plan.steps)}"
    said = "by hand" if event.kind is Kind.ROLL_BACK else event.kind.value
    return because("forced" if event.force else said, event.reason)


def _record(
    before: ServiceState,
    after: ServiceState,
    author: Author,
    why: str,
    numbers: dict[str, Any],
) -> Decision:
    rollout = after.rollout
    assert rollout is not None, "it is what is recorded"
    was = before.rollout if before.rollout and before.rollout.id == rollout.id else None
    return Decision(
        what="rollback" if rollout.phase is Phase.ROLLED_BACK else "rollout",
        who=author.who,
        service=before.name,
        before={
            "phase": was.phase.value if was else Phase.STEADY.value,
            "weights": percents(before.shares),
        },
        after={"phase": rollout.phase.value, "weights": percents(after.shares)},
        why=why,
        numbers={
            "rollout": rollout.id,
            "candidate": rollout.candidate,
            "release": rollout.release,
            "step": rollout.step + 1,
            **numbers,
        },
    )
