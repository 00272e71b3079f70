"""What changes by itself: drains come to an end, times run out, the last of a service leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from proxy.control import drains, hold, verbs
from proxy.control.config.schema import ServiceConfig
from proxy.control.decision import Decision
from proxy.control.declared import drain_rules
from proxy.control.ledger import Ledger
from proxy.control.refusal import Refusal
from proxy.control.setup import Step
from proxy.control.state import ServiceState

DRAIN_TICK_S = 0.04
TTL_TICK_S = 0.25
RETRY_S = 1.0

log = structlog.get_logger("turnout.control")


class Upkeep:
    """Looks at the ledger from time to time and commits, in turn with everybody else."""

    def __init__(self, ledger: Ledger, lock: asyncio.Lock, draw_offset: Callable[[], int]) -> None:
        self._ledger = ledger
        self._draw_offset = draw_offset
        self._lock = lock
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Something has changed: perhaps a drain to look after."""
        self._woken.set()

    async def run(self) -> None:
        """Work for ever; ends by being cancelled."""
        pause: float | None = 0.0
        while True:
            await self._pause(pause)
            try:
                await self.tick()
                pause = self._next_pause()
            except Refusal as refusal:
                log.warning("upkeep_put_off", detail=refusal.detail)
                pause = RETRY_S
            except Exception:
                log.exception("upkeep_failed")
                pause = RETRY_S

    async def tick(self) -> None:
        """Do what is due now."""
        if self._ledger.apply_problem:
            async with self._lock:
                await self._ledger.apply()
        if self._ledger.until_new_tickets_s == 0:
            async with self._lock:
                await self._ledger.change_tickets()
        if self._due() is None:
            return
        async with self._lock:
            step = self._due()  # again: the lock may have been long in coming
            if step is not None:
                await self._ledger.commit(step)

    def _due(self) -> Step | None:
        """Return the step that brings everything up to now; None when it is."""
        if self._ledger.apply_problem:
            return None  # an old snapshot may be in force somewhere: nothing is surely empty
        setup, now = self._ledger.setup, self._ledger.now().wall
        states: dict[str, ServiceState] = {}
        decisions: list[Decision] = []
        for name, state in setup.states.items():
            after, records = self._brought_up(state, now)
            decisions += records
            if not (after.is_removed and not after.leaving):
                states[name] = after
        if all(states.get(name) is state for name, state in setup.states.items()):
            return None
        whole = replace(
            setup,
            states=states,
            services=_only(setup.services, states),
            rings={name: ring for name, ring in setup.rings.items() if name in states},
        )
        return Step(
            setup=whole,
            decisions=tuple(decisions),
            is_housekeeping=all(each.what == "drained" for each in decisions),
        )

    def _brought_up(
        self, state: ServiceState, now: float
    ) -> tuple[ServiceState, tuple[Decision, ...]]:
        rules = drain_rules(self._ledger.setup.services[state.name])
        records: tuple[Decision, ...] = ()
        if expired := verbs.expire(state, now):
            after = drains.settle(state, expired.state, rules, now=now, offset=self._draw_offset())
            state, records = after, expired.decisions
        held = self._ledger.gauges.held(state.name)
        if expired := hold.expire(state, now, held=held):
            state, records = expired.state, (*records, *expired.decisions)
        state = hold.finish(state, now, held=held) or state
        if finished := drains.finish(state, rules, self._ledger.gauges, now):
            state, records = finished.state, (*records, *finished.decisions)
        return state, records

    async def _pause(self, seconds: float | None) -> None:
        """Wait; for good when `seconds` is None, until somebody wakes us."""
        self._woken.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    def _next_pause(self) -> float | None:
        states = self._ledger.setup.states.values()
        if self._ledger.apply_problem:
            return RETRY_S
        if any(drains.running_drains(state) or state.is_removed for state in states):
            return DRAIN_TICK_S
        if any(verbs.next_expiry(state) is not None or hold.next_look(state) for state in states):
            return TTL_TICK_S
        return self._ledger.until_new_tickets_s


def _only(
    services: Mapping[str, ServiceConfig], states: Mapping[str, ServiceState]
) -> dict[str, ServiceConfig]:
    return {name: service for name, service in services.items() if name in states}
