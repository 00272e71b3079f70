"""Rollouts in force: what operators ask of them, what the guard makes of them, what follows.

The house of the guard's clerk: it reads counters and states for it, and takes its changes
through the one door.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol, TypeVar, cast, get_args

import structlog

from proxy.control import verbs
from proxy.control.decision import Author, Decision
from proxy.control.declared import guard_rules, hooks, plan
from proxy.control.filling import Filling
from proxy.control.fleet import Fleet, Sample
from proxy.control.given import check_steps
from proxy.control.guard import counts
from proxy.control.guard.clerk import Clerk
from proxy.control.guard.rules import Rules
from proxy.control.guard.ticks import Row
from proxy.control.guard.watch import BLIND_S, Seen
from proxy.control.hooks import ASKING, Hook, Hooks, Moment
from proxy.control.ledger import Ledger
from proxy.control.lookout import Lookout
from proxy.control.percent import Shares, percent
from proxy.control.refusal import NotFound, Refused
from proxy.control.rollout import change as changes
from proxy.control.rollout.machine import Event, Kind, Outcome, Phase, Rollout
from proxy.control.rollout.plan import Plan, Step
from proxy.control.setup import Step as LedgerStep
from proxy.control.state import Change, ServiceState
from proxy.control.store import Record
from proxy.model import WHOLE
from proxy.stats import B_SLOW_MS, B_STALL_MS, W_HEARTBEAT_MS

T = TypeVar("T")
Steps = list[tuple[int, float, bool]]
"""Weight in hundredths of a percent, bake in seconds, whether a person has to go on."""

VERBS = {
    "pause": Kind.PAUSE,
    "resume": Kind.RESUME,
    "promote": Kind.PROMOTE,
    "abort": Kind.ABORT,
    "rejudge": Kind.REJUDGE,
}

SAMPLES_S = 0.25
"""A rollback waits no longer for the names of a few failures."""
MOST_SAMPLES = 5
MOST_REMEMBERED = 1_000
"""More than all workers remember of a pool."""

log = structlog.get_logger("turnout.control")


class Door(Protocol):
    """The controller, as far as rollouts need it."""

    async def in_turn(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work when nobody else changes anything, to its end."""
        ...

    async def commit(self, name: str, change: Change) -> list[Record]:
        """Settle, store and apply a change of one service; its decisions as they were recorded."""
        ...

    async def warm(self, before: ServiceState, change: Change) -> None:
        """Have connections opened ahead to pools that get more."""
        ...

    async def problems(self, state: ServiceState, pool: str) -> Mapping[str, str | None]:
        """Why each endpoint of a pool cannot take traffic, asked now; None where it can."""
        ...


class Rollouts:
    def __init__(self, ledger: Ledger, lookout: Lookout, fleet: Fleet, door: Door) -> None:
        self._ledger = ledger
        self._lookout = lookout
        self._fleet = fleet
        self._door = door
        self.hooks = Hooks(self._hooks_of, _report)
        self.clerk = Clerk(self)

    # ---- what operators ask for; called in turn ----

    def planned(
        self, state: ServiceState, steps: Steps | None, *, now: bool, ready_timeout_s: float
    ) -> Plan:
        """The plan of the file, with other steps if they are given; `now` is everything at once."""
        own = plan(self._ledger.setup.services[state.name])
        own = replace(own, ready_timeout_s=ready_timeout_s)
        if now:
            return replace(own, steps=(Step(weight=WHOLE),), holdback=0, min_requests=0)
        if steps is None:
            return own
        check_steps(steps)
        return replace(
            own,
            steps=tuple(Step(weight=weight, bake_s=bake_s, pause=p) for weight, bake_s, p in steps),
        )

    async def start(
        self, state: ServiceState, to: str, author: Author, own: Plan, *, force: bool
    ) -> None:
        await self._door.commit(state.name, changes.begin(state, to, own, author, force=force))

    async def deploy(
        self,
        state: ServiceState,
        pool: str | None,
        filling: Filling,
        author: Author,
        own: Plan,
        *,
        force: bool,
    ) -> None:
        """Fill the idle pool, and begin a rollout to it; the old filling is kept for the undo."""
        to = pool or self._idle_pool(state)
        if (running := state.rolling) and running.phase is not Phase.PROMOTED:
            raise Refused(changes.running_in_words(running))
        if to == state.in_charge:
            raise Refused(f"{to} is the active pool of {state.name}; deploy into the other one")
        filled = verbs.set_pool(state, to, filling, author)
        begun = changes.begin(filled.state, to, own, author, force=force)
        rollout = begun.state.rollout
        assert rollout is not None, "it has just begun"
        after = replace(begun.state, rollout=replace(rollout, undo=state.filling(to)))
        decisions = (*filled.decisions, *begun.decisions)
        await self._door.commit(state.name, Change(state=after, decisions=decisions))

    @staticmethod
    def _idle_pool(state: ServiceState) -> str:
        others = state.other_pools(state.in_charge)
        if not others:
            raise Refused(f"{state.name} has one pool only; a deploy needs a second one to fill")
        return others[0]

    def switched(self, state: ServiceState, change: Change, to: str, author: Author) -> Change:
        """A plain switch is watched as well, while the old pool is one swap away."""
        service = self._ledger.setup.services[state.name]
        is_watched = (
            to != state.in_charge
            and service.guard.mode != "off"
            and bool(state.usable(state.in_charge))
        )
        if not is_watched:
            return changes.superseded(change, f"everything to {to} by hand", author)
        own = changes.at_once(service.rollout.keep_old, ask=service.guard.ask)
        return changes.switched(state, change, to, own, author)

    async def move(
        self, state: ServiceState, verb: str, author: Author, *, force: bool = False
    ) -> None:
        await self._happen(state, replace(self._event(VERBS[verb], state, author), force=force))

    async def weights(self, state: ServiceState, shares: Shares, author: Author) -> None:
        """Weights by hand while a rollout is under way."""
        event = self._event(Kind.WEIGHTS, state, author)
        rollout = state.rollout
        assert rollout is not None, "it is under way"
        for pool, share in shares.items():
            if share and pool not in {rollout.old, rollout.candidate}:
                raise Refused(f"{changes.running_in_words(rollout)}; {pool} has no part in it")
        await self._happen(state, replace(event, weight=shares.get(rollout.candidate, 0)))

    def weighted(self, state: ServiceState, change: Change, author: Author) -> Change:
        """Weights by hand with no step to go on with: everything to another pool is a switch."""
        to = change.state.in_charge
        is_for_good = change.state.active is None or change.state.active.until is None
        if to != state.in_charge and is_for_good:
            return self.switched(state, change, to, author)
        return changes.superseded(change, "weights by hand", author)

    @staticmethod
    def filled(
        state: ServiceState, change: Change, pool: str, filling: Filling, author: Author
    ) -> Change:
        """Other endpoints are taken as they come; another release is not what is being judged."""
        rollout = state.rolling
        if rollout is None or pool not in {rollout.old, rollout.candidate}:
            return change
        is_other = filling.release != state.filling(pool).release
        if pool == rollout.old and rollout.phase is Phase.PROMOTED:
            if is_other or not filling.members:
                reason = f"{pool} is no longer what {rollout.candidate} replaced"
                return changes.superseded(change, reason, author)
        elif is_other:
            raise Refused(
                f"{changes.running_in_words(rollout)}; another release is another rollout"
            )
        return change

    async def roll_back(
        self, state: ServiceState, author: Author, *, lock: bool, force: bool
    ) -> None:
        event = self._event(Kind.ROLL_BACK, state, author)
        await self._happen(state, replace(event, lock=lock, force=force))

    async def unlock(self, state: ServiceState, author: Author) -> None:
        if state.lockout is None:
            raise Refused(f"nothing of {state.name} is locked out")
        if state.rollout is not None and state.rollout.phase is Phase.ROLLED_BACK:
            await self._happen(state, self._event(Kind.UNLOCK, state, author))
            return
        decision = Decision(
            what="unlock",
            who=author.who,
            service=state.name,
            before=state.lockout.release,
            why=author.reason or "by hand",
        )
        change = Change(state=replace(state, lockout=None), decisions=(decision,))
        await self._door.commit(state.name, change)

    def _event(self, kind: Kind, state: ServiceState, author: Author) -> Event:
        rollout = state.rollout
        if rollout is None:
            raise Refused(f"{state.name} has no rollout (turnout rollout start begins one)")
        return Event(
            kind=kind,
            now=author.at,
            who=author.who,
            reason=author.reason,
            old_is_available=self.available(state.name, rollout.old) > 0,
        )

    async def _happen(self, state: ServiceState, event: Event) -> None:
        """An operator's event; we have the door already."""
        outcome = await self._make(state.name, lambda now: self.clerk.move(now, event))
        self.clerk.follow(state.name, outcome, event)

    async def _make(
        self, service: str, move: Callable[[ServiceState], tuple[Change, Outcome]]
    ) -> Outcome:
        state = self._lookout.state(service)
        change, outcome = move(state)
        if outcome.rollout.phase is Phase.STEADY:
            change = self._undone(state, change, outcome.rollout)
        if not outcome.voids:  # a rollback waits for nothing
            await self._door.warm(state, change)
        records = await self._door.commit(service, change)
        if outcome.hook and records:
            self.hooks.tell(service, _moment(outcome.hook), records[0])
        return outcome

    @staticmethod
    def _undone(state: ServiceState, change: Change, rollout: Rollout) -> Change:
        """Nothing was sent to the candidate: its pool is as it was before the deploy."""
        was = state.rollout
        if rollout.undo is None or was is None or was.phase is not Phase.WARMING:
            return change
        author = Author(who="proxy", at=rollout.phase_at, reason="the deploy was given up")
        try:
            undone = verbs.set_pool(change.state, rollout.candidate, rollout.undo, author)
        except Refused:  # it was empty, and has to have something by now
            return change
        return Change(state=undone.state, decisions=(*change.decisions, *undone.decisions))

    # ---- the house of the clerk ----

    def states(self) -> Mapping[str, ServiceState]:
        return self._ledger.setup.states

    def rules(self, service: str) -> Rules:
        known = self._ledger.setup.services.get(service)
        return guard_rules(known) if known is not None else Rules(mode="off")

    def read(self, service: str, pool: str) -> list[int]:
        return counts.read(self._fleet.totals, self._ledger.book.pool(service, pool))

    def outcomes(self, service: str, pool: str) -> tuple[int, int]:
        return counts.outcomes(self._fleet.totals, self._ledger.book.pool(service, pool))

    def wall(self) -> float:
        return self._ledger.now().wall

    def monotonic(self) -> float:
        return self._ledger.now().monotonic

    def is_blind(self) -> bool:
        beats = self._fleet.totals.each(W_HEARTBEAT_MS).values()
        latest: int = max(beats, default=0)
        return self.monotonic() * 1000.0 - latest > BLIND_S * 1000.0

    def available(self, service: str, pool: str) -> int:
        try:
            problems = self._lookout.problems(self._lookout.state(service), pool)
        except (NotFound, ValueError):
            return 0
        return sum(problem is None for problem in problems.values())

    async def readiness(self, service: str, rollout: Rollout) -> tuple[bool, str]:
        state = self._lookout.state(service)
        problems = await self._door.problems(state, rollout.candidate)
        ready = sum(problem is None for problem in problems.values())
        wanted = rollout.plan.min_ready or len(problems)
        said = "; ".join(f"{at}: {problem}" for at, problem in problems.items() if problem)
        return ready >= max(1, min(wanted, len(problems))), said or "it has no endpoint"

    def note(self, service: str, state: ServiceState) -> None:
        setup = self._ledger.setup
        if service in setup.states:
            self._ledger.setup = replace(setup, states={**setup.states, service: state})

    def patience(self, service: str, slow_s: float, stall_s: float) -> None:
        words, slot = self._fleet.board.words, self._ledger.book.service(service)
        words[slot + B_SLOW_MS] = int(slow_s * 1000.0)
        words[slot + B_STALL_MS] = int(stall_s * 1000.0)

    async def save(self, progress: Mapping[str, dict[str, Any] | None]) -> None:
        await self._ledger.store.write_guard(progress)

    async def change(
        self, service: str, move: Callable[[ServiceState], tuple[Change, Outcome]]
    ) -> Outcome:
        return await self._door.in_turn(lambda: self._make(service, move))

    async def record(self, decision: Decision) -> None:
        async def work() -> None:
            step = LedgerStep(setup=self._ledger.setup, decisions=(decision,), is_housekeeping=True)
            await self._ledger.commit(step)

        await self._door.in_turn(work)

    async def samples(self, service: str, pool: str, *, are_refusals: bool) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(SAMPLES_S):
                found = await self._fleet.samples(service, pool, MOST_REMEMBERED)
        except TimeoutError:
            return []
        now = time.monotonic()
        of_kind = [each for each in found if each.is_refusal == are_refusals]
        return [_aged(each, now) for each in of_kind[:MOST_SAMPLES]]

    async def leave(self, service: str, moment: str, rollout: Rollout) -> str | None:
        if moment not in ASKING:
            return None
        record = {"rollout": rollout.id, "candidate": rollout.candidate, "step": rollout.step + 1}
        asked = {**record, "release": rollout.release, "weight": percent(rollout.weight)}
        return await self.hooks.ask(service, _moment(moment), asked)

    async def write_ticks(self, rows: Sequence[Row]) -> None:
        if rows:
            await self._ledger.store.write_ticks(rows)

    def _hooks_of(self, service: str) -> tuple[Hook, ...]:
        known = self._ledger.setup.services.get(service)
        return hooks(known) if known is not None else ()

    # ---- looking ----

    def seen(self, service: str) -> Seen | None:
        return self.clerk.seen(service)


def _moment(hook: str) -> Moment:
    assert hook in get_args(Moment), "the machine knows no other"
    return cast("Moment", hook)


def _aged(sample: Sample, now: float) -> dict[str, Any]:
    """Return what a decision keeps: its readers know nothing of this machine's clock."""
    told = asdict(sample)
    told["age_s"] = round(now - told.pop("at"), 3)
    return told


def _report(name: str, error: BaseException) -> None:
    log.error("task_failed", task=name, exc_info=error)
