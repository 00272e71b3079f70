"""The rollout machine: a frozen value, events, and a table of what each phase makes of them.

The weights are a function of the value. A phase and an event that are not in the table
are refused with a sentence. Time comes with the events; nothing here waits or looks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from proxy.control.filling import Filling
from proxy.control.refusal import Refused
from proxy.control.rollout.plan import Plan
from proxy.model import WHOLE

ASK_S = 5.0
ASK_SHARE = 2_000
"""What the old pool gets while it is asked whether turning back would help."""
ASK_AGAIN_S = 300.0
"""After it was no better, a candidate that fails is left alone for so long: each question is
one more chance to be undecided, and undecided turns back."""


class Phase(Enum):
    STEADY = "steady"
    WARMING = "warming"
    BAKING = "baking"
    PAUSED = "paused"
    MANUAL = "manual"
    PROMOTED = "promoted"
    ASKING = "asking"
    ROLLED_BACK = "rolled_back"
    STUCK = "stuck"


class Kind(Enum):
    """What can happen to a rollout."""

    READY = "ready"
    NOT_READY = "not ready in time"
    TICK = "tick"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    ROLL_BACK = "rollback"
    WEIGHTS = "weights by hand"
    UNLOCK = "unlock"
    SUPERSEDED = "the file changed"
    HOOK_REFUSED = "a hook refused"
    PLAN_CHANGED = "the plan changed"
    RESTARTED = "restarted"
    REJUDGE = "rejudge"


class Why(Enum):
    """Why a rollout is paused, or a FAIL is not acted on."""

    NONE = ""
    OPERATOR = "operator"
    GATE = "gate"
    STARVED = "starved"
    HOOK = "hook"
    ON_FAIL = "on_fail"
    RESTART = "restart"
    NO_HELP = "turning back would not help"


class End(Enum):
    """What a rollout that is over came to."""

    NONE = ""
    FINISHED = "finished"
    NOT_READY = "not_ready"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"


class Judged(Enum):
    """What the judge says of a tick."""

    NOTHING = "nothing"
    CONTINUE = "CONTINUE"
    PASS = "PASS"  # noqa: S105 - no password
    HOLD = "HOLD"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Everything that is to be remembered of one rollout. `now` and `_at` are wall seconds."""

    id: int
    old: str
    """The pool that was active when it began."""
    candidate: str
    release: str | None = None
    plan: Plan
    phase: Phase = Phase.WARMING
    step: int = 0
    """Counted from 0; of no meaning before the first weight."""
    manual_weight: int = 0
    baked_s: float = 0.0
    """Judged time in this step."""
    had: int = 0
    """The candidate's requests since this step began."""
    began_at: float = 0.0
    step_at: float = 0.0
    phase_at: float = 0.0
    why: Why = Why.NONE
    reason: str = ""
    """For people: of the pause, the rollback, the abort, the hold."""
    end: End = End.NONE
    before: Phase | None = None
    """What it was before it was stuck or asked."""
    who: str = ""
    undo: Filling | None = None
    """What a deploy found in the candidate's pool: put back if the new one is never ready."""

    @property
    def is_over(self) -> bool:
        return self.phase in {Phase.STEADY, Phase.ROLLED_BACK}

    @property
    def is_last_step(self) -> bool:
        return self.step == len(self.plan.steps) - 1

    @property
    def candidate_is_active(self) -> bool:
        """Whether the candidate is the pool in charge by now."""
        phase = self.before if self.phase in {Phase.STUCK, Phase.ASKING} else self.phase
        return phase is Phase.PROMOTED

    @property
    def weight(self) -> int:
        """The candidate's share of new traffic, in hundredths of a percent."""
        if self.phase is Phase.ASKING:
            return WHOLE - ASK_SHARE
        phase = self.before if self.phase is Phase.STUCK else self.phase
        if phase in {Phase.BAKING, Phase.PAUSED}:
            return self.manual_weight or self.plan.weight(self.step)
        if phase is Phase.MANUAL:
            return self.manual_weight
        return WHOLE if phase is Phase.PROMOTED else 0

    def shares(self) -> dict[str, int]:
        return {self.old: WHOLE - self.weight, self.candidate: self.weight}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    kind: Kind
    now: float
    who: str = "proxy"
    reason: str = ""
    # of a tick
    length_s: float = 0.0
    requests: int = 0
    """The candidate's in this tick."""
    judged: Judged = Judged.NOTHING
    old_is_available: bool = True
    still_fails: bool = True
    """Whether the candidate goes on failing, for a rollout that is stuck."""
    old_is_no_better: bool = False
    """What the live tests say of the old pool while it is asked."""
    # of the others
    weight: int = 0
    lock: bool = False
    force: bool = False
    plan: Plan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    rollout: Rollout
    lock: bool = False
    """The candidate's release may not start again until it is unlocked."""
    voids: bool = False
    """Sticky cookies of the candidate are void: everybody moves at once."""
    hook: str = ""
    """The hook to call: started, step, promoted or rolled_back."""
    restarts_judge: bool = False
    """The judge is told that the weights have changed."""
    new_judge: bool = False
    """Another judge begins, with no evidence yet: what was proven before is overruled."""


Move = Callable[[Rollout, Event], Outcome]


def advance(rollout: Rollout, event: Event) -> Outcome:
    """What the event makes of the rollout; Refused, with a sentence, where it makes no sense."""
    known = TABLE.get((rollout.phase, event.kind))
    if known is None:
        raise Refused(
            f"rollout {rollout.id} is {rollout.phase.value}; "
            f"{event.kind.value} makes no sense now (it takes {_taken(rollout.phase)})"
        )
    move, targets = known
    outcome = move(rollout, event)
    after = outcome.rollout
    assert after.phase in targets, f"{rollout.phase} + {event.kind} led to {after.phase}"
    if after.phase is not rollout.phase:
        after = replace(after, phase_at=event.now)
    return replace(outcome, rollout=after)


def _taken(phase: Phase) -> str:
    verbs = (Kind.PAUSE, Kind.RESUME, Kind.PROMOTE, Kind.ABORT, Kind.ROLL_BACK, Kind.UNLOCK)
    taken = [kind.value for kind in verbs if (phase, kind) in TABLE]
    if phase in {Phase.STEADY, Phase.ROLLED_BACK, Phase.PROMOTED}:
        taken.append("a new start")
    return ", ".join(taken)


# ---- moves ----


def _ready(rollout: Rollout, event: Event) -> Outcome:
    after = _in_step(replace(rollout, phase=Phase.BAKING), 0, event.now)
    return Outcome(rollout=after, hook="started", restarts_judge=True)


def _ended(rollout: Rollout, event: Event) -> Outcome:
    """Nothing was sent, or it is all over."""
    end = rollout.end
    if rollout.phase is Phase.WARMING:
        end = End.NOT_READY if event.kind is Kind.NOT_READY else End.ABORTED
    return Outcome(rollout=replace(rollout, phase=Phase.STEADY, reason=event.reason, end=end))


def _tick_baking(rollout: Rollout, event: Event) -> Outcome:
    if event.judged is Judged.FAIL:
        return _failed(rollout, event)
    rollout = _counted(rollout, event)
    if event.judged not in _JUDGED:
        return Outcome(rollout=rollout)
    if _may_advance(rollout, event):
        return _next(rollout, event)
    limit_s = rollout.plan.starve_limit_s
    if rollout.had < rollout.plan.min_requests and event.now - rollout.step_at >= limit_s:
        return _starved(rollout, event)
    return Outcome(rollout=rollout)


_JUDGED = frozenset({Judged.CONTINUE, Judged.PASS})
"""Nothing advances or starves on a HOLD, or without a verdict."""


def _counted(rollout: Rollout, event: Event) -> Rollout:
    """Judged time is time with traffic on the candidate, and no HOLD."""
    is_judged = event.requests > 0 and event.judged in _JUDGED
    return replace(
        rollout,
        baked_s=rollout.baked_s + (event.length_s if is_judged else 0.0),
        had=rollout.had + event.requests,
    )


def _may_advance(rollout: Rollout, event: Event) -> bool:
    plan, step = rollout.plan, rollout.plan.steps[rollout.step]
    if rollout.had < plan.min_requests:
        return False
    is_proven = plan.advance == "evidence" and event.judged is Judged.PASS
    return is_proven or rollout.baked_s >= step.bake_s


def _starved(rollout: Rollout, event: Event) -> Outcome:
    plan = rollout.plan
    words = f"only {rollout.had} of {plan.min_requests} requests in {plan.starve_limit_s:.0f} s"
    if plan.on_starved == "promote":
        return _promoted(rollout, replace(event, reason=words))
    if plan.on_starved == "roll_back":
        if not event.old_is_available:
            return Outcome(rollout=rollout)  # the candidate has everybody now, and soon enough
        return _rolled_back(rollout, replace(event, reason=words, lock=False))
    return _paused_for(rollout, Why.STARVED, words)


def _next(rollout: Rollout, event: Event) -> Outcome:
    if rollout.plan.steps[rollout.step].pause:
        return _paused_for(rollout, Why.GATE, "this step waits for a person")
    return _go_on(rollout, event)


def _go_on(rollout: Rollout, event: Event) -> Outcome:
    if rollout.is_last_step:
        return _promoted(rollout, event)
    after = _in_step(replace(rollout, phase=Phase.BAKING), rollout.step + 1, event.now)
    return Outcome(rollout=after, hook="step", restarts_judge=True)


def _in_step(rollout: Rollout, step: int, now: float) -> Rollout:
    return replace(
        rollout,
        step=step,
        manual_weight=0,
        baked_s=0.0,
        had=0,
        step_at=now,
        why=Why.NONE,
        reason="",
        before=None,
    )


def _promoted(rollout: Rollout, event: Event) -> Outcome:
    after = replace(
        rollout,
        phase=Phase.PROMOTED,
        step=len(rollout.plan.steps) - 1,
        manual_weight=0,
        why=Why.NONE,
        reason=event.reason,
        before=None,
    )
    return Outcome(rollout=after, hook="promoted", restarts_judge=True)


def _failed(rollout: Rollout, event: Event) -> Outcome:
    if rollout.plan.on_fail == "pause":
        if rollout.phase is Phase.PAUSED and rollout.why is Why.ON_FAIL:
            return Outcome(rollout=rollout)
        return _paused_for(rollout, Why.ON_FAIL, event.reason)
    if not event.old_is_available:
        return _stuck(rollout, event)
    return _rolled_back(rollout, replace(event, lock=True))


def _stuck(rollout: Rollout, event: Event) -> Outcome:
    after = replace(rollout, phase=Phase.STUCK, before=rollout.phase, reason=event.reason)
    return Outcome(rollout=after)


def _rolled_back(rollout: Rollout, event: Event) -> Outcome:
    after = replace(
        rollout,
        phase=Phase.ROLLED_BACK,
        why=Why.NONE,
        reason=event.reason,
        end=End.ROLLED_BACK,
        before=None,
    )
    return Outcome(rollout=after, lock=event.lock, voids=True, hook="rolled_back")


def _by_hand_back(rollout: Rollout, event: Event) -> Outcome:
    if not event.old_is_available and not event.force:
        raise Refused(
            f"{rollout.old} has nothing available, so turning back would help nobody"
            " (--force turns back all the same)"
        )
    return _rolled_back(rollout, event)


def _aborted(rollout: Rollout, event: Event) -> Outcome:
    if not event.old_is_available and not event.force:
        raise Refused(f"{rollout.old} has nothing available (--force aborts all the same)")
    after = replace(
        rollout,
        phase=Phase.STEADY,
        why=Why.NONE,
        reason=event.reason,
        end=End.ABORTED,
        before=None,
    )
    return Outcome(rollout=after, voids=True)


def _tick_paused(rollout: Rollout, event: Event) -> Outcome:
    """The bake clock stands; a candidate that fails keeps hurting users all the same."""
    return _failed(rollout, event) if event.judged is Judged.FAIL else Outcome(rollout=rollout)


def _tick_promoted(rollout: Rollout, event: Event) -> Outcome:
    since_s = event.now - rollout.phase_at
    if rollout.why is Why.NO_HELP:
        return _in_vain(rollout, since_s)
    if event.judged is Judged.FAIL:
        if not event.old_is_available:
            return _stuck(rollout, event)
        if rollout.plan.ask:
            return _asked(rollout, event)
        return _rolled_back(rollout, replace(event, lock=True))
    if since_s >= rollout.plan.keep_old_s:
        after = replace(rollout, phase=Phase.STEADY, why=Why.NONE, reason="", end=End.FINISHED)
        return Outcome(rollout=after)
    return Outcome(rollout=rollout)


def _in_vain(rollout: Rollout, since_s: float) -> Outcome:
    """The old pool was no better. Another judge begins after a while: what the present one
    has seen is the outage of both, which says nothing of the candidate.
    """
    if since_s < ASK_AGAIN_S:
        return Outcome(rollout=rollout)
    after = replace(rollout, why=Why.NONE, reason="")
    return Outcome(rollout=after, restarts_judge=True, new_judge=True)


def _asked(rollout: Rollout, event: Event) -> Outcome:
    after = replace(
        rollout, phase=Phase.ASKING, before=Phase.PROMOTED, why=Why.NONE, reason=event.reason
    )
    return Outcome(rollout=after, restarts_judge=True)


def _tick_asking(rollout: Rollout, event: Event) -> Outcome:
    if not event.old_is_available:
        at_all = replace(rollout, phase=Phase.PROMOTED)
        return replace(_stuck(at_all, replace(event, reason=rollout.reason)), restarts_judge=True)
    if event.old_is_no_better:
        words = f"{Why.NO_HELP.value}: {rollout.old} fails as well"
        after = replace(rollout, phase=Phase.PROMOTED, before=None, why=Why.NO_HELP, reason=words)
        return Outcome(rollout=after, restarts_judge=True)
    is_over = event.now - rollout.phase_at >= ASK_S
    if event.judged is Judged.FAIL or is_over:
        return _rolled_back(rollout, replace(event, reason=rollout.reason, lock=True))
    return Outcome(rollout=rollout)


def _tick_stuck(rollout: Rollout, event: Event) -> Outcome:
    assert rollout.before is not None, "it was something else before"
    if not event.still_fails:
        return _recovered(rollout, rollout.before, event.now)
    if event.old_is_available:
        return _rolled_back(rollout, replace(event, reason=rollout.reason, lock=True))
    return Outcome(rollout=rollout)


def _recovered(rollout: Rollout, before: Phase, now: float) -> Outcome:
    """Back to what it was; the judge that failed it would fail it for ever."""
    after = replace(rollout, phase=before, before=None)
    if before is Phase.BAKING:
        after = _in_step(after, rollout.step, now)
    after = replace(after, reason="it recovered by itself")
    return Outcome(rollout=after, restarts_judge=True, new_judge=True)


def _paused(rollout: Rollout, event: Event) -> Outcome:
    return _paused_for(rollout, Why.OPERATOR, event.reason)


def _paused_for(rollout: Rollout, why: Why, reason: str) -> Outcome:
    return Outcome(rollout=replace(rollout, phase=Phase.PAUSED, why=why, reason=reason))


def _resumed(rollout: Rollout, event: Event) -> Outcome:
    if rollout.why is Why.GATE and not rollout.manual_weight:
        return _go_on(rollout, event)
    if rollout.why is Why.ON_FAIL:  # a person overrules the judge that failed it
        return replace(_afresh(rollout, event), new_judge=True)
    if rollout.manual_weight:
        return _afresh(rollout, event)
    after = replace(rollout, phase=Phase.BAKING, why=Why.NONE, reason="", step_at=event.now)
    return Outcome(rollout=after)


def _afresh(rollout: Rollout, event: Event) -> Outcome:
    """To the first step with a weight at or above the present one, with no bake yet."""
    step = rollout.step
    if rollout.manual_weight:
        step = rollout.plan.step_at_or_above(rollout.manual_weight)
    after = _in_step(replace(rollout, phase=Phase.BAKING), step, event.now)
    return Outcome(rollout=after, hook="step", restarts_judge=True)


def _promoted_by_hand(rollout: Rollout, event: Event) -> Outcome:
    return _promoted(rollout, event)


def _weights(rollout: Rollout, event: Event) -> Outcome:
    """By hand: nothing is an abort, everything a promotion."""
    if event.weight == 0:
        return _aborted(rollout, event)
    if event.weight == WHOLE:
        return _promoted(rollout, event)
    after = replace(
        rollout,
        phase=Phase.MANUAL,
        manual_weight=event.weight,
        why=Why.OPERATOR,
        reason=event.reason,
    )
    return Outcome(rollout=after, restarts_judge=True)


def _superseded(rollout: Rollout, event: Event) -> Outcome:
    reason = event.reason or "superseded by the file"
    after = replace(
        rollout,
        phase=Phase.STEADY,
        why=Why.NONE,
        reason=reason,
        end=End.SUPERSEDED,
        before=None,
    )
    return Outcome(rollout=after)


def _hook_refused(rollout: Rollout, event: Event) -> Outcome:
    return _paused_for(rollout, Why.HOOK, event.reason)


def _plan_changed(rollout: Rollout, event: Event) -> Outcome:
    """Other values in the file. Steps that are done stay done; a weight that is kept stays."""
    plan = event.plan
    assert plan is not None, "a change of plan brings the plan"
    if rollout.phase is Phase.WARMING:
        return Outcome(rollout=replace(rollout, plan=plan))
    if rollout.candidate_is_active:
        return Outcome(rollout=replace(rollout, plan=plan, step=len(plan.steps) - 1))
    weight, step = rollout.weight, rollout.step
    if plan.steps != rollout.plan.steps:
        step = plan.step_at_or_above(weight)
    after = replace(rollout, plan=plan, step=step)
    if after.weight == weight:
        return Outcome(rollout=after)
    if rollout.phase is Phase.BAKING:
        return Outcome(rollout=_in_step(after, step, event.now), restarts_judge=True)
    return Outcome(rollout=replace(after, manual_weight=weight))


def _restarted(rollout: Rollout, event: Event) -> Outcome:
    """The proxy was started again: time while it was down is no bake, and starves nobody."""
    if rollout.plan.on_restart == "pause" and rollout.phase is Phase.BAKING:
        return _paused_for(rollout, Why.RESTART, "the proxy was started again")
    if rollout.phase in {Phase.WARMING, Phase.ASKING}:  # what has seconds gets them all again
        is_asked = rollout.phase is Phase.ASKING
        return Outcome(rollout=replace(rollout, phase_at=event.now), restarts_judge=is_asked)
    return Outcome(rollout=replace(rollout, step_at=event.now))


def _rejudged(rollout: Rollout, event: Event) -> Outcome:
    """Another judge, with the guard's present settings, and so this step's bake from zero."""
    after = replace(rollout, baked_s=0.0, had=0, step_at=event.now)
    return Outcome(rollout=after, restarts_judge=True, new_judge=True)


_P = Phase
TABLE: dict[tuple[Phase, Kind], tuple[Move, tuple[Phase, ...]]] = {
    (_P.WARMING, Kind.READY): (_ready, (_P.BAKING,)),
    (_P.WARMING, Kind.NOT_READY): (_ended, (_P.STEADY,)),
    (_P.WARMING, Kind.ABORT): (_ended, (_P.STEADY,)),
    (_P.WARMING, Kind.ROLL_BACK): (_ended, (_P.STEADY,)),
    (_P.WARMING, Kind.SUPERSEDED): (_superseded, (_P.STEADY,)),
    (_P.WARMING, Kind.PLAN_CHANGED): (_plan_changed, (_P.WARMING,)),
    (_P.WARMING, Kind.RESTARTED): (_restarted, (_P.WARMING,)),
    (_P.BAKING, Kind.TICK): (
        _tick_baking,
        (_P.BAKING, _P.PAUSED, _P.PROMOTED, _P.ROLLED_BACK, _P.STUCK),
    ),
    (_P.BAKING, Kind.PAUSE): (_paused, (_P.PAUSED,)),
    (_P.BAKING, Kind.PROMOTE): (_promoted_by_hand, (_P.PROMOTED,)),
    (_P.BAKING, Kind.ABORT): (_aborted, (_P.STEADY,)),
    (_P.BAKING, Kind.ROLL_BACK): (_by_hand_back, (_P.ROLLED_BACK,)),
    (_P.BAKING, Kind.WEIGHTS): (_weights, (_P.MANUAL, _P.STEADY, _P.PROMOTED)),
    (_P.BAKING, Kind.SUPERSEDED): (_superseded, (_P.STEADY,)),
    (_P.BAKING, Kind.HOOK_REFUSED): (_hook_refused, (_P.PAUSED,)),
    (_P.BAKING, Kind.PLAN_CHANGED): (_plan_changed, (_P.BAKING,)),
    (_P.BAKING, Kind.RESTARTED): (_restarted, (_P.BAKING, _P.PAUSED)),
    (_P.BAKING, Kind.REJUDGE): (_rejudged, (_P.BAKING,)),
    (_P.PAUSED, Kind.TICK): (_tick_paused, (_P.PAUSED, _P.ROLLED_BACK, _P.STUCK)),
    (_P.PAUSED, Kind.RESUME): (_resumed, (_P.BAKING, _P.PROMOTED)),
    (_P.PAUSED, Kind.PROMOTE): (_promoted_by_hand, (_P.PROMOTED,)),
    (_P.PAUSED, Kind.ABORT): (_aborted, (_P.STEADY,)),
    (_P.PAUSED, Kind.ROLL_BACK): (_by_hand_back, (_P.ROLLED_BACK,)),
    (_P.PAUSED, Kind.WEIGHTS): (_weights, (_P.MANUAL, _P.STEADY, _P.PROMOTED)),
    (_P.PAUSED, Kind.SUPERSEDED): (_superseded, (_P.STEADY,)),
    (_P.PAUSED, Kind.PLAN_CHANGED): (_plan_changed, (_P.PAUSED,)),
    (_P.PAUSED, Kind.RESTARTED): (_restarted, (_P.PAUSED,)),
    (_P.PAUSED, Kind.REJUDGE): (_rejudged, (_P.PAUSED,)),
    (_P.MANUAL, Kind.TICK): (_tick_paused, (_P.MANUAL, _P.PAUSED, _P.ROLLED_BACK, _P.STUCK)),
    (_P.MANUAL, Kind.RESUME): (_afresh, (_P.BAKING,)),
    (_P.MANUAL, Kind.PROMOTE): (_promoted_by_hand, (_P.PROMOTED,)),
    (_P.MANUAL, Kind.ABORT): (_aborted, (_P.STEADY,)),
    (_P.MANUAL, Kind.ROLL_BACK): (_by_hand_back, (_P.ROLLED_BACK,)),
    (_P.MANUAL, Kind.WEIGHTS): (_weights, (_P.MANUAL, _P.STEADY, _P.PROMOTED)),
    (_P.MANUAL, Kind.SUPERSEDED): (_superseded, (_P.STEADY,)),
    (_P.MANUAL, Kind.PLAN_CHANGED): (_plan_changed, (_P.MANUAL,)),
    (_P.MANUAL, Kind.RESTARTED): (_restarted, (_P.MANUAL,)),
    (_P.MANUAL, Kind.REJUDGE): (_rejudged, (_P.MANUAL,)),
    (_P.PROMOTED, Kind.TICK): (
        _tick_promoted,
        (_P.PROMOTED, _P.ASKING, _P.ROLLED_BACK, _P.STUCK, _P.STEADY),
    ),
    (_P.PROMOTED, Kind.ABORT): (_aborted, (_P.STEADY,)),
    (_P.PROMOTED, Kind.ROLL_BACK): (_by_hand_back, (_P.ROLLED_BACK,)),
    (_P.PROMOTED, Kind.SUPERSEDED): (_superseded, (_P.STEADY,)),
    (_P.PROMOTED, Kind.PLAN_CHANGED): (_plan_changed, (_P.PROMOTED,)),
    (_P.PROMOTED, Kind.RESTARTED): (_restarted, (_P.PROMOTED,)),
    (_P.PROMOTED, Kind.REJUDGE): (_rejudged, (_P.PROMOTED,)),
    (_P.ASKING, Kind.TICK): (_tick_asking, (_P.ASKING, _P.PROMOTED, _P.ROLLED_BACK, _P.STUCK)),
    (_P.ASKING, Kind.ROLL_BACK): (_by_hand_back, (_P.ROLLED_BACK,)),
    (_P.ASKING, Kind.SUPERSEDED): (_superseded, (_P.STEADY,)),
    (_P.ASKING, Kind.PLAN_CHANGED): (_plan_changed, (_P.ASKING,)),
    (_P.ASKING, Kind.RESTARTED): (_restarted, (_P.ASKING,)),
    (_P.STUCK, Kind.TICK): (
        _tick_stuck,
        (_P.STUCK, _P.ROLLED_BACK, _P.BAKING, _P.PAUSED, _P.MANUAL, _P.PROMOTED),
    ),
    (_P.STUCK, Kind.ABORT): (_aborted, (_P.STEADY,)),
    (_P.STUCK, Kind.ROLL_BACK): (_by_hand_back, (_P.ROLLED_BACK,)),
    (_P.STUCK, Kind.SUPERSEDED): (_superseded, (_P.STEADY,)),
    (_P.STUCK, Kind.PLAN_CHANGED): (_plan_changed, (_P.STUCK,)),
    (_P.STUCK, Kind.RESTARTED): (_restarted, (_P.STUCK,)),
    (_P.ROLLED_BACK, Kind.UNLOCK): (_ended, (_P.STEADY,)),
}
"""Phase and event -> what is done, and the phases it may lead to. What is missing is refused."""
