"""Looks at what is in force, for those who ask: services, decisions, drains, readiness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.control import views
from proxy.control.declared import drain_rules
from proxy.control.drain_view import Subject, drain_view
from proxy.control.drains import DrainRules
from proxy.control.ejections import Ejections
from proxy.control.fleet import Fleet, InFlight
from proxy.control.guard.watch import Seen
from proxy.control.health import HealthBook
from proxy.control.ledger import Ledger
from proxy.control.refusal import NotFound
from proxy.control.state import ServiceState
from proxy.model import Service

View = dict[str, Any]

MOST_ITEMS = 1_000


class Lookout:
    """Answers from memory and counters; changes nothing."""

    def __init__(
        self, ledger: Ledger, fleet: Fleet, health: HealthBook, ejections: Ejections
    ) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._health = health
        self._ejections = ejections
        self.seen: Callable[[str], Seen | None] = lambda _: None
        """What the guard saw last of a service."""

    def state(self, name: str) -> ServiceState:
        """Return the state of a service, one that is leaving too."""
        state = self._ledger.setup.states.get(name)
        if state is None:
            known = ", ".join(sorted(self._ledger.setup.states)) or "none"
            raise NotFound(f"there is no service {name} (known: {known})")
        return state

    def rules(self, name: str) -> DrainRules:
        return drain_rules(self._ledger.setup.services[name])

    def service(self, name: str) -> View:
        state = self.state(name)
        shown = self._shown(name)
        view = views.service_view(shown, state, self.rules(name), self.gaze())
        view["applied"] = self._ledger.apply_problem is None
        return view

    def etag(self, name: str) -> str:
        return f'"{self.state(name).revision}"'

    def decisions(self, service: str | None, since: int, limit: int) -> list[View]:
        """Decisions with an id above `since`, oldest first; without `since` the newest ones."""
        found = [
            each
            for each in self._ledger.decisions
            if each["id"] > since and service in {None, each["service"]}
        ]
        if limit <= 0:
            return []
        return found[:limit] if since > 0 else found[-limit:]

    def not_ready(self) -> list[str]:
        """A sentence for each reason why traffic should not come yet."""
        problem, gaze = self._ledger.apply_problem, self.gaze()
        reasons = [problem] if problem else []
        reasons += self._workers_behind()
        for service in self._ledger.snapshot.services:
            why = views.why_unavailable(service, gaze) if service.routes else None
            if why is not None:
                reasons.append(f"{service.name} has no available endpoint{why}")
        return reasons

    def problems(self, state: ServiceState, pool: str) -> dict[str, str | None]:
        """Why each endpoint of a pool that is not drained by hand cannot take traffic; None if it can."""
        gaze, usable = self.gaze(), state.usable(pool)
        (shown,) = (each for each in self._shown(state.name).pools if each.name == pool)
        return {
            endpoint.address: gaze.problem(state.name, shown, endpoint)
            for endpoint in shown.endpoints
            if endpoint.address in usable
        }

    def gaze(self) -> views.Gaze:
        """What a view is made from, now."""
        ledger = self._ledger
        return views.Gaze(
            totals=self._fleet.totals,
            gauges=ledger.gauges,
            board=self._fleet.board,
            health=self._health,
            now=ledger.now(),
            ejection=self._ejections.of,
            seen=self.seen,
            guard_mode=lambda name: ledger.setup.services[name].guard.mode,
        )

    def _shown(self, name: str) -> Service:
        return next(each for each in self._ledger.snapshot.services if each.name == name)

    def _workers_behind(self) -> list[str]:
        workers = [each for each in self._fleet.workers() if each.up]
        if not workers:
            return ["no worker is up"]
        revision = self._ledger.snapshot.revision
        return [
            f"worker {each.slot} is at revision {each.revision}, not yet at {revision}"
            for each in workers
            if each.revision < revision
        ]

    def drain_done(self, state: ServiceState, subject: Subject) -> bool:
        return bool(self._drain_view(state, subject, [])["done"])

    async def drain_view(self, state: ServiceState, subject: Subject) -> View:
        """The drain object with what is in flight, item by item."""
        items: list[InFlight] = []
        if subject.drain.is_running:
            listed = await self._fleet.in_flight(state.name, subject.pool, MOST_ITEMS)
            items = [each for each in listed if subject.endpoint in {None, each.endpoint}]
        return self._drain_view(state, subject, items)

    def _drain_view(self, state: ServiceState, subject: Subject, items: list[InFlight]) -> View:
        service = self._ledger.setup.services.get(state.name)
        # The service may have left altogether while somebody waited for it.
        rules = drain_rules(service) if service else DrainRules()
        gauges, now = self._ledger.gauges, self._ledger.now().wall
        return drain_view(state, subject, rules, gauges, now=now, items=items)
