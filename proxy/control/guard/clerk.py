"""The clerk of the guard: once a second every rollout gets a tick, and what follows is done.

A tick that moves only clocks is noted in memory and saved now and then; one that moves the
rollout goes through the one door like everybody's change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

from proxy.control.decision import Decision
from proxy.control.guard.rules import Rules
from proxy.control.guard.watch import Seen, Watch
from proxy.control.refusal import Refusal
from proxy.control.rollout.change import happen
from proxy.control.rollout.machine import Event, Judged, Kind, Outcome, Phase, Rollout
from proxy.control.state import Change, ServiceState

TICK_S = 1.0
SAVE_S = 5.0
"""How often the clocks and the judge's state are made durable while nothing else is."""

log = structlog.get_logger("turnout.guard")


class House(Protocol):
    """What the clerk needs of the control plane around it."""

    def states(self) -> Mapping[str, ServiceState]: ...

    def rules(self, service: str) -> Rules: ...

    def read(self, service: str, pool: str) -> list[int]:
        """The judge's counters of a pool, cumulative."""
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

    async def save(self, progress: Mapping[str, dict[str, Any]]) -> None:
        """Make the watches' states durable; Refusal when the store does not take them."""
        ...

    async def change(
        self, service: str, move: Callable[[ServiceState], tuple[Change, Outcome]]
    ) -> Outcome:
        """Make a change through the one door; the move sees the state as it is then."""
        ...

    async def record(self, decision: Decision) -> None:
        """Keep a decision that changes nothing."""
        ...


class Clerk:
    def __init__(self, house: House, saved: Mapping[str, dict[str, Any]] | None = None) -> None:
        self._house = house
        self._saved = dict(saved or {})
        self._watches: dict[str, Watch] = {}
        self._seen: dict[str, Seen] = {}
        self._would: dict[str, int] = {}
        """Rollouts that would have been turned back, under `observe`."""
        self._saved_at = 0.0
        self.rollbacks: dict[tuple[str, str], int] = {}
        """How many by service and cause, since the start."""

    def seen(self, service: str) -> Seen | None:
        """What the last tick of the service's present rollout showed."""
        return self._seen.get(service)

    async def run(self) -> None:
        """Tick for ever; ends by being cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + TICK_S, loop.time())
            await asyncio.sleep(due - loop.time())
            await self.tick()

    async def tick(self) -> None:
        for service, state in list(self._house.states().items()):
            rollout = state.rolling
            if rollout is None:
                self._forget(service)
                continue
            try:
                await self._tick(service, state, rollout)
            except Refusal as refusal:  # somebody else moved it meanwhile, or the store is full
                log.warning("guard_put_off", service=service, detail=refusal.detail)
            except Exception:
                log.exception("guard_failed", service=service)
        await self._save()

    # ---- one service ----

    async def _tick(self, service: str, state: ServiceState, rollout: Rollout) -> None:
        now = self._house.wall()
        if rollout.phase is Phase.WARMING:
            await self._look_if_ready(service, rollout, now)
            return
        watch = self._watch(service, rollout)
        seen = watch.look(self._house.monotonic(), is_blind=self._house.is_blind())
        self._seen[service] = seen
        event = self._event(service, rollout, seen, now)
        change, _ = happen(state, event)
        if not change.decisions:
            self._house.note(service, change.state)
            return
        await self.happen(service, event, seen)

    async def happen(self, service: str, event: Event, seen: Seen | None = None) -> Outcome:
        """Have the event happen through the one door, and everything that follows from it."""
        lockout_s = self._house.rules(service).lockout_s
        numbers = in_numbers(seen) if seen is not None else {}
        outcome = await self._house.change(
            service, lambda state: happen(state, event, lockout_s=lockout_s, numbers=numbers)
        )
        self._follow(service, outcome, event)
        return outcome

    def _follow(self, service: str, outcome: Outcome, event: Event) -> None:
        rollout = outcome.rollout
        if outcome.new_judge:
            self._watch(service, rollout).begin_anew(rollout, self._house.rules(service).knobs)
        elif outcome.restarts_judge and not rollout.is_over:
            self._watch(service, rollout).stepped(rollout)
        if rollout.phase is Phase.ROLLED_BACK:
            cause = self._cause(service) if event.kind is Kind.TICK else "operator"
            key = (service, cause)
            self.rollbacks[key] = self.rollbacks.get(key, 0) + 1

    def _cause(self, service: str) -> str:
        seen = self._seen.get(service)
        return (
            seen.verdict.reason.removeprefix("guard: ")
            if seen and seen.verdict.reason
            else "starved"
        )

    async def _look_if_ready(self, service: str, rollout: Rollout, now: float) -> None:
        is_ready, words = await self._house.readiness(service, rollout)
        if is_ready:
            await self.happen(service, Event(kind=Kind.READY, now=now))
        elif now - rollout.phase_at >= rollout.plan.ready_timeout_s:
            reason = f"not ready within {rollout.plan.ready_timeout_s:g} s: {words}"
            await self.happen(service, Event(kind=Kind.NOT_READY, now=now, reason=reason))

    def _event(self, service: str, rollout: Rollout, seen: Seen, now: float) -> Event:
        mode = self._house.rules(service).mode
        judged = seen.judged
        if mode == "off":
            judged = Judged.CONTINUE
        elif mode == "observe" and judged is Judged.FAIL:
            self._note_would(service, rollout, seen)
            judged = Judged.CONTINUE
        return Event(
            kind=Kind.TICK,
            now=now,
            who="guard",
            reason=f"{seen.verdict.reason}: {seen.verdict.words}" if judged is Judged.FAIL else "",
            length_s=seen.tick.length_s,
            requests=seen.tick.candidate.requests,
            judged=judged,
            old_is_available=self._house.available(service, rollout.old) > 0,
            still_fails=seen.still_fails,
            old_is_no_better=seen.old_is_no_better,
        )

    def _note_would(self, service: str, rollout: Rollout, seen: Seen) -> None:
        if self._would.get(service) == rollout.id:
            return
        self._would[service] = rollout.id
        log.warning("would_have_rolled_back", service=service, words=seen.verdict.words)
        self._pending = Decision(
            what="guard",
            who="guard",
            service=service,
            why=f"would have rolled back: {seen.verdict.reason}: {seen.verdict.words}",
            numbers=in_numbers(seen),
        )

    # ---- watches ----

    def _watch(self, service: str, rollout: Rollout) -> Watch:
        watch = self._watches.get(service)
        if watch is not None and watch.rollout_id == rollout.id:
            return watch
        house = self._house
        watch = Watch(
            rollout,
            house.rules(service).knobs,
            lambda pool: house.read(service, pool),
            house.monotonic(),
        )
        self._take_up(service, watch, rollout)
        self._watches[service] = watch
        return watch

    def _take_up(self, service: str, watch: Watch, rollout: Rollout) -> None:
        """After a restart: go on with what was known, or say that it is lost."""
        saved = self._saved.pop(service, None)
        if saved is None:
            return
        try:
            watch.load(saved)
        except ValueError as error:
            watch.is_evidence_lost = True
            log.warning("evidence_lost", service=service, rollout=rollout.id, error=str(error))

    def _forget(self, service: str) -> None:
        self._watches.pop(service, None)

    async def _save(self) -> None:
        now = self._house.monotonic()
        if now - self._saved_at < SAVE_S or not self._watches:
            return
        self._saved_at = now
        try:
            await self._house.save({name: each.save() for name, each in self._watches.items()})
        except Refusal as refusal:
            log.warning("guard_not_saved", detail=refusal.detail)


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
