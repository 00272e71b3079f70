"""The clerk of the guard: once a second every rollout gets a tick, and what follows is done.

A tick that moves only clocks is noted in memory and saved now and then; one that moves the
rollout goes through the one door like everybody's change.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from proxy.control.decision import Decision
from proxy.control.guard.rules import Rules
from proxy.control.guard.tape import Mark, encode, taped
from proxy.control.guard.ticks import Row
from proxy.control.guard.watch import Seen, Watch
from proxy.control.hooks import ASKING
from proxy.control.refusal import Refusal, Refused
from proxy.control.rollout.change import happen
from proxy.control.rollout.machine import TABLE, Event, Judged, Kind, Outcome, Phase, Rollout
from proxy.control.state import Change, ServiceState
from proxy.policy.judge import Call, Knobs, Verdict
from proxy.policy.judge.record import Record
from proxy.tasks import spawn

TICK_S = 1.0
SAVE_S = 1.0
"""How often the clocks and the judge's state are made durable while nothing else is."""
KEEP_S = 5.0
"""How often recorded ticks are."""

AT_ONCE_S = 0.05
"""A tick waits no longer for hooks."""
GUARD = "guard"
"""Who it is in a decision."""
LOST = "evidence lost"
MOST_ROWS = 600
"""Recorded ticks that wait for the store; the oldest go first."""

log = structlog.get_logger("turnout.guard")


class House(Protocol):
    """What the clerk needs of the control plane around it."""

    def states(self) -> Mapping[str, ServiceState]: ...

    def rules(self, service: str) -> Rules: ...

    def read(self, service: str, pool: str) -> list[int]:
        """The judge's counters of a pool, cumulative."""
        ...

    def outcomes(self, service: str, pool: str) -> tuple[int, int]:
        """Requests and errors of a pool, cumulative."""
        ...

    def wall(self) -> float: ...

    def monotonic(self) -> float: ...

    def is_blind(self) -> bool:
        """Whether no worker has reported for BLIND_S."""
        ...

    def available(self, service: str, pool: str) -> int:
        """How many endpoints of the pool can take traffic."""
        ...

    async def readiness(self, service: str, rollout: Rollout) -> tuple[bool, str]:
        """Whether the candidate is ready, and why it is not, endpoint by endpoint."""
        ...

    def note(self, service: str, state: ServiceState) -> None:
        """Keep a state in which only clocks have moved."""
        ...

    def patience(self, service: str, slow_s: float, stall_s: float) -> None:
        """Tell the workers from when on a request that waits is slow, and when it hangs; 0: never."""
        ...

    async def save(self, progress: Mapping[str, dict[str, Any] | None]) -> None:
        """Make the watches' states durable, None for one that is over; Refusal when they are not."""
        ...

    async def change(
        self, service: str, move: Callable[[ServiceState], tuple[Change, Outcome]]
    ) -> Outcome:
        """Make a change through the one door; the move sees the state as it is then."""
        ...

    async def record(self, decision: Decision) -> None:
        """Keep a decision that changes nothing."""
        ...

    async def samples(self, service: str, pool: str, *, are_refusals: bool) -> list[dict[str, Any]]:
        """A few of the pool's last failures, or answers of class 4xx; quickly, or none."""
        ...

    async def leave(self, service: str, moment: str, rollout: Rollout) -> str | None:
        """Ask the blocking hooks; None when the rollout may go on, else their words."""
        ...

    async def write_ticks(self, rows: Sequence[Row]) -> None:
        """Keep recorded ticks; Refusal when the store does not take them."""
        ...


@dataclass(slots=True)
class _Kept:
    """The record of a service's pool in charge, and what had been counted at the last look."""

    pool: str
    record: Record
    at: float
    requests: int
    errors: int


class _Leave:
    """The question to the blocking hooks whether a step may end, asked once."""

    def __init__(self, at: tuple[int, int]) -> None:
        self.at = at
        """Rollout and step."""
        self.answered = asyncio.Event()
        self.words: str | None = None
        """Who does not agree, and why."""

    @property
    def is_given(self) -> bool:
        return self.answered.is_set()


class Clerk:
    def __init__(self, house: House) -> None:
        self._house = house
        self._saved: dict[str, dict[str, Any]] = {}
        self._resumed: dict[str, int] = {}
        """Rollouts that were under way when we were started."""
        self._stored: set[str] = set()
        """Services of whose watch the store has something."""
        self._watches: dict[str, Watch] = {}
        self._seen: dict[str, Seen] = {}
        self._would: dict[str, int] = {}
        """Rollouts that would have been turned back, under `observe`."""
        self._records: dict[str, _Kept] = {}
        self._leaves: dict[str, _Leave] = {}
        self._ticking: set[str] = set()
        self._marks: dict[str, Mark] = {}
        """What has happened to a service's judge since its last tick."""
        self._rows: deque[Row] = deque(maxlen=MOST_ROWS)
        self._saved_at = self._kept_at = 0.0
        self.rollbacks: Counter[tuple[str, str]] = Counter()
        """How many by service and cause, since the start."""

    def remember(
        self, saved: Mapping[str, dict[str, Any]], states: Mapping[str, ServiceState]
    ) -> None:
        """What the store has of watches, and of the rollouts that were under way."""
        self._saved, self._stored = dict(saved), set(saved)
        self._resumed = {
            name: state.rolling.id
            for name, state in states.items()
            if state.rolling is not None and state.rolling.phase is not Phase.WARMING
        }

    def seen(self, service: str) -> Seen | None:
        """What the last tick of the service's last rollout showed."""
        return self._seen.get(service)

    async def run(self) -> None:
        """Tick for ever; ends by being cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + TICK_S, loop.time())
            await asyncio.sleep(due - loop.time())
            for service in list(self._house.states()):
                if service not in self._ticking:  # a slow hook of one must not hold up the others
                    spawn(self.tick(service), name=f"guard {service}", report=_report)
            await self._save()

    async def tick(self, service: str) -> None:
        """One look at one service."""
        self._ticking.add(service)
        try:
            state = self._house.states().get(service)
            rollout = state.rolling if state is not None else None
            if state is None or rollout is None:
                self._forget(service)
            elif rollout.phase is Phase.WARMING:
                await self._look_if_ready(service, rollout, self._house.wall())
            else:
                await self._look(service, state, rollout)
            if state is not None and (rollout is None or rollout.candidate_is_active):
                self._note_record(service, state)
        except Refusal as refusal:  # somebody else moved it meanwhile, or the store is full
            log.warning("guard_put_off", service=service, detail=refusal.detail)
        finally:
            self._ticking.discard(service)

    def _note_record(self, service: str, state: ServiceState) -> None:
        """Go on with the record of the pool in charge: the next release is held against it."""
        pool, now = state.in_charge, self._house.monotonic()
        requests, errors = self._house.outcomes(service, pool)
        known = self._records.get(service)
        if known is None or known.pool != pool:
            self._records[service] = _Kept(pool, Record(), now, requests, errors)
            return
        known.record.add(now - known.at, requests - known.requests, errors - known.errors)
        known.at, known.requests, known.errors = now, requests, errors

    # ---- one service ----

    async def _look(self, service: str, state: ServiceState, rollout: Rollout) -> None:
        house = self._house
        watch = self._watch(service, rollout)
        if watch.is_evidence_lost:
            watch.is_evidence_lost = False
            await self._say_lost(service, rollout)
            return
        seen = watch.look(house.monotonic(), is_blind=house.is_blind())
        self._seen[service] = seen
        house.patience(service, *watch.patience())
        event = self._event(service, rollout, seen, house.wall())
        self._tape(service, rollout, seen, watch.knobs)
        change, outcome = self.move(state, event)
        if not change.decisions:  # noted before anything is waited for: nobody else moved it yet
            house.note(service, change.state)
        if would := self._would_have(service, rollout, seen):
            await house.record(would)
        if not change.decisions:
            return
        if outcome.hook in ASKING and not outcome.rollout.is_over:
            leave = await self._leave(service, rollout, outcome)
            if leave is None:
                return  # still being asked; the next ticks go on judging meanwhile
            if leave.words:
                event = Event(kind=Kind.HOOK_REFUSED, now=house.wall(), reason=leave.words)
        await self.happen(service, rollout, event, seen)

    async def _say_lost(self, service: str, rollout: Rollout) -> None:
        if (rollout.phase, Kind.REJUDGE) in TABLE:
            event = Event(kind=Kind.REJUDGE, now=self._house.wall(), reason=LOST)
            await self.happen(service, rollout, event)
            return
        why = f"{LOST}: another judge begins while rollout {rollout.id} is {rollout.phase.value}"
        await self._house.record(Decision(what="guard", who=GUARD, service=service, why=why))

    async def _leave(self, service: str, rollout: Rollout, outcome: Outcome) -> _Leave | None:
        """What the blocking hooks say to the move into a step; None while they are being asked.

        They may take their time, and a release that fails meanwhile must not have it too.
        """
        at = (rollout.id, rollout.step)
        leave = self._leaves.get(service)
        if leave is None or leave.at != at:
            leave = self._leaves[service] = _Leave(at)
            asking = self._ask(service, outcome, leave)
            spawn(asking, name=f"hooks {service}", report=_report)
        if not leave.is_given:
            with suppress(TimeoutError):
                async with asyncio.timeout(AT_ONCE_S):
                    await leave.answered.wait()
        if not leave.is_given:
            return None
        del self._leaves[service]
        return leave

    async def _ask(self, service: str, outcome: Outcome, leave: _Leave) -> None:
        try:
            leave.words = await self._house.leave(service, outcome.hook, outcome.rollout)
        except Exception as error:
            leave.words = f"the hooks could not be asked: {error}"
            raise
        finally:
            leave.answered.set()

    def _tape(self, service: str, rollout: Rollout, seen: Seen, knobs: Knobs) -> None:
        mark = self._marks.pop(service, Mark.NONE)
        mode = self._house.rules(service).mode
        tick = taped(rollout, seen.tick, seen.verdict, mark=mark, mode=mode, knobs=knobs)
        row = Row(service=service, rollout=rollout.id, at=self._house.wall(), data=encode(tick))
        self._rows.append(row)

    def move(
        self, state: ServiceState, event: Event, numbers: Mapping[str, Any] | None = None
    ) -> tuple[Change, Outcome]:
        """What an event makes of a service; nothing has happened yet."""
        lockout_s = self._house.rules(state.name).lockout_s
        return happen(state, event, lockout_s=lockout_s, numbers=numbers)

    async def happen(
        self, service: str, rollout: Rollout, event: Event, seen: Seen | None = None
    ) -> Outcome:
        """Have the event happen to this rollout through the one door, and what follows from it."""
        numbers = in_numbers(seen) if seen is not None else {}
        if event.judged is Judged.FAIL:
            are_refusals = seen is not None and seen.verdict.reason == "4xx"
            numbers["samples"] = await self._house.samples(
                service, rollout.candidate, are_refusals=are_refusals
            )

        def move(state: ServiceState) -> tuple[Change, Outcome]:
            # Somebody may have ended it and begun another one while we were waiting.
            if state.rollout is None or state.rollout.id != rollout.id:
                raise Refused(f"rollout {rollout.id} of {service} is not the last one any more")
            return self.move(state, event, numbers)

        outcome = await self._house.change(service, move)
        self.follow(service, outcome, event)
        return outcome

    def follow(self, service: str, outcome: Outcome, event: Event) -> None:
        """What follows from a move that has been made."""
        rollout = outcome.rollout
        if outcome.new_judge or outcome.restarts_judge:
            self._marks[service] = Mark.ANEW if outcome.new_judge else Mark.STEP
        if outcome.new_judge:
            self._watch(service, rollout).begin_anew(rollout, self._house.rules(service).knobs)
        elif outcome.restarts_judge and not rollout.is_over:
            self._watch(service, rollout).stepped(rollout)
        if rollout.phase is Phase.ROLLED_BACK:
            cause = self._cause(service) if event.who == GUARD else "operator"
            self.rollbacks[service, cause] += 1

    def _cause(self, service: str) -> str:
        seen = self._seen.get(service)
        if seen is None or seen.verdict.call is not Call.FAIL:
            return "starved"
        return seen.verdict.reason.removeprefix("guard: ")

    async def _look_if_ready(self, service: str, rollout: Rollout, now: float) -> None:
        self._seen.pop(service, None)  # of the rollout before
        is_ready, words = await self._house.readiness(service, rollout)
        if is_ready:
            if refused := await self._house.leave(service, "started", rollout):
                event = Event(kind=Kind.NOT_READY, now=now, reason=f"not started: {refused}")
                await self.happen(service, rollout, event)
                return
            await self.happen(service, rollout, Event(kind=Kind.READY, now=now))
        elif now - rollout.phase_at >= rollout.plan.ready_timeout_s:
            reason = f"not ready within {rollout.plan.ready_timeout_s:g} s: {words}"
            event = Event(kind=Kind.NOT_READY, now=now, reason=reason)
            await self.happen(service, rollout, event)

    def _event(self, service: str, rollout: Rollout, seen: Seen, now: float) -> Event:
        mode, judged = self._house.rules(service).mode, seen.judged
        if mode == "off" or (mode == "observe" and judged is Judged.FAIL):
            judged = Judged.CONTINUE
        verdict = seen.verdict
        return Event(
            kind=Kind.TICK,
            now=now,
            who=GUARD,
            reason=in_a_phrase(verdict) if judged is Judged.FAIL else "",
            length_s=seen.tick.length_s,
            requests=seen.tick.candidate.requests,
            judged=judged,
            old_is_available=self._house.available(service, rollout.old) > 0,
            still_fails=seen.still_fails,
            old_is_no_better=seen.old_is_no_better,
        )

    def _would_have(self, service: str, rollout: Rollout, seen: Seen) -> Decision | None:
        """Under `observe`, the record of the first FAIL of a rollout."""
        if self._house.rules(service).mode != "observe" or seen.judged is not Judged.FAIL:
            return None
        if self._would.get(service) == rollout.id:
            return None
        self._would[service] = rollout.id
        return Decision(
            what="guard",
            who=GUARD,
            service=service,
            why=f"would have rolled back: {in_a_phrase(seen.verdict)}",
            numbers=in_numbers(seen),
        )

    # ---- watches ----

    def _watch(self, service: str, rollout: Rollout) -> Watch:
        watch = self._watches.get(service)
        if watch is not None and watch.rollout_id == rollout.id:
            return watch
        house = self._house
        self._seen.pop(service, None)  # of the rollout before
        watch = Watch(
            rollout,
            house.rules(service).knobs,
            lambda pool: house.read(service, pool),
            house.monotonic(),
        )
        known = self._records.get(service)
        if known is not None and known.pool == rollout.old:
            watch.record = known.record
            del self._records[service]  # the watch goes on with it, and gives it back
        if not self._take_up(service, watch, rollout) and rollout.candidate_is_active:
            watch.stepped(rollout)  # a plain switch: it began with everything
        self._watches[service] = watch
        return watch

    def _take_up(self, service: str, watch: Watch, rollout: Rollout) -> bool:
        """After a restart: go on with what was known, or say that it is lost."""
        saved = self._saved.pop(service, {})
        if self._resumed.pop(service, None) != rollout.id:
            return False  # it began since
        try:
            watch.load(saved["watch"])
        except (KeyError, TypeError, ValueError) as error:
            watch.is_evidence_lost = True
            log.warning("evidence_lost", service=service, rollout=rollout.id, error=repr(error))
        at = (saved.get("phase"), saved.get("step"))
        if rollout.phase is Phase.ASKING or at != (rollout.phase.value, rollout.step):
            watch.stepped(rollout)  # it moved after it was saved, or has to ask anew
        return True

    def disturbed(self, service: str) -> None:
        """The endpoints of the service's pools have changed: the judge is told of a step."""
        state = self._house.states().get(service)
        rollout = state.rolling if state is not None else None
        if rollout is None or rollout.phase is Phase.WARMING:
            return
        self._marks[service] = Mark.STEP
        self._watch(service, rollout).disturbed()

    def _forget(self, service: str) -> None:
        watch = self._watches.pop(service, None)
        if watch is None:
            return
        self._house.patience(service, 0.0, 0.0)
        state = self._house.states().get(service)
        if state is not None and state.in_charge == watch.old:  # else the candidate's goes on
            requests, errors = self._house.outcomes(service, watch.old)
            now = self._house.monotonic()
            self._records[service] = _Kept(watch.old, watch.record, now, requests, errors)

    async def _save(self) -> None:
        now = self._house.monotonic()
        if now - self._kept_at >= KEEP_S:
            self._kept_at = now
            await self._keep()
        if now - self._saved_at >= SAVE_S:
            self._saved_at = now
            await self.save()

    async def save(self) -> None:
        """Make durable how far every rollout has come, and forget those that are over."""
        states = self._house.states()
        over = {name for name in self._stored if name not in states or not states[name].rolling}
        progress: dict[str, dict[str, Any] | None] = dict.fromkeys(over)
        for name, watch in self._watches.items():
            rollout = states[name].rolling if name in states else None
            if rollout is not None and rollout.id == watch.rollout_id:
                progress[name] = {
                    "rollout": rollout.id,
                    "phase": rollout.phase.value,
                    "step": rollout.step,
                    "baked_s": rollout.baked_s,
                    "had": rollout.had,
                    "watch": watch.save(),
                }
        if not progress:
            return
        try:
            await self._house.save(progress)
            self._stored = (self._stored | progress.keys()) - over
        except Refusal as refusal:
            log.warning("guard_not_saved", detail=refusal.detail)

    async def _keep(self) -> None:
        """Record the ticks, also those of a rollout that has just ended: they are the ones to see."""
        rows = list(self._rows)
        if not rows:
            return
        try:
            await self._house.write_ticks(rows)
        except Refusal as refusal:  # they are tried again, up to MOST_ROWS of them
            log.warning("ticks_not_kept", detail=refusal.detail)
            return
        for row in rows:
            if self._rows and self._rows[0] is row:  # else it was pushed out meanwhile
                self._rows.popleft()


def resumed(rollout: Rollout, saved: Mapping[str, Any] | None) -> Rollout:
    """The rollout with its clocks as they were last saved, if that was in the same step."""
    if (
        saved is None
        or saved.get("rollout") != rollout.id
        or saved.get("phase") != rollout.phase.value
        or saved.get("step") != rollout.step
    ):
        return rollout
    return replace(rollout, baked_s=float(saved["baked_s"]), had=int(saved["had"]))


def _report(name: str, error: BaseException) -> None:
    log.error("guard_failed", task=name, exc_info=error)


def in_a_phrase(verdict: Verdict) -> str:
    """The reason and the numbers; the words of a test begin with its name."""
    if not verdict.words or verdict.words.startswith(verdict.reason):
        return verdict.words or verdict.reason
    return f"{verdict.reason}: {verdict.words}"


def in_numbers(seen: Seen) -> dict[str, Any]:
    """The verdict of a tick as a decision keeps it."""
    verdict = seen.verdict
    return {
        "verdict": verdict.call.value,
        "reason": verdict.reason,
        "words": verdict.words,
        "tests": [
            {"name": each.name, "evidence": round(each.evidence, 2), "bar": round(each.bar, 2)}
            for each in verdict.tests
        ],
    }
