"""Ejections by outcomes: the workers' counts go to the policy, what it says goes onto the board."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import structlog

from proxy import stats
from proxy.control.config.sections.traffic import EjectionConfig
from proxy.control.ledger import Ledger
from proxy.model import Endpoint, Pool
from proxy.policy.ejection import Ejected, EjectionRules, Event, PoolEjection, Seen, Standing
from proxy.stats import Board, Totals

log = structlog.get_logger("turnout.control")

_OUT = stats.UNCHECKED | stats.DOWN | stats.ASKS_TO_DRAIN
_COUNTS = (stats.E_GOOD, stats.E_BAD, stats.E_TRIPS)


class Ejections:
    """Watches all pools; what it knows of an endpoint is kept as long as the endpoint is listed."""

    def __init__(self, ledger: Ledger, totals: Totals, board: Board) -> None:
        self._ledger = ledger
        self._totals = totals
        self._board = board
        self._pools: dict[tuple[str, str], _PoolWatch] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        """Ejections since the start by service and pool; a pool that is gone keeps its count."""

    def beat(self, now: float) -> None:
        """Look at every pool of the snapshot in force."""
        setup = self._ledger.setup
        before, self._pools = self._pools, {}
        for service in self._ledger.snapshot.services:
            config = setup.services[service.name].ejection
            for pool in service.pools:
                key = (service.name, pool.name)
                watch = before.pop(key, None) or _PoolWatch(service.name, pool.name, self._board)
                self._pools[key] = watch
                self.counts[key] += watch.look(now, pool, config, self._totals)
        for watch in before.values():
            watch.end()

    def of(self, service: str, pool: str, address: str) -> Ejected | None:
        """The ejection of an endpoint, if it is ejected now."""
        watch = self._pools.get((service, pool))
        return watch.ejected.get(address) if watch is not None else None


class _PoolWatch:
    def __init__(self, service: str, pool: str, board: Board) -> None:
        self._service = service
        self._pool = pool
        self._release: str | None = None
        self._board = board
        self._policy = PoolEjection(EjectionRules())
        self._slots: dict[str, int] = {}
        self._counted: dict[str, tuple[int, ...]] = {}
        self.ejected: dict[str, Ejected] = {}

    def look(self, now: float, pool: Pool, config: EjectionConfig | None, totals: Totals) -> int:
        """Judge the pool, and obey; the number of endpoints ejected."""
        self._adopt(pool)
        self._follow_release(now, pool.release)
        if config is None:
            self._counted.clear()
            return self._obey(now, self._policy.readmit_all(now, "ejection is off"))
        self._policy.rules = rules(config)
        seen = {each.address: self._seen(each, totals, now) for each in pool.endpoints}
        return self._obey(now, self._policy.observe(now, seen))

    def end(self) -> None:
        """The pool is gone: leave nothing on the board."""
        self._adopt(Pool(name=self._pool))

    def _adopt(self, pool: Pool) -> None:
        listed = {each.address: each.slot for each in pool.endpoints}
        for address in [each for each in self._slots if each not in listed]:
            self._board.mark(self._slots[address], stats.EJECTED, on=False)
            self._counted.pop(address, None)
            self.ejected.pop(address, None)
        self._slots = listed

    def _follow_release(self, now: float, release: str | None) -> None:
        """What the release before did says nothing of the one that has its addresses now."""
        before, self._release = self._release, release
        if before == release:
            return
        self._obey(now, self._policy.readmit_all(now, "another release"))
        self._policy = PoolEjection(self._policy.rules)
        self._counted.clear()

    def _seen(self, endpoint: Endpoint, totals: Totals, now: float) -> Seen:
        counts = tuple(totals.counter(endpoint.slot + word) for word in _COUNTS)
        before = self._counted.get(endpoint.address, counts)
        self._counted[endpoint.address] = counts
        good, bad, trips = (after - then for after, then in zip(counts, before, strict=True))
        return Seen(good, bad, trips, self._standing(endpoint, totals, now))

    def _standing(self, endpoint: Endpoint, totals: Totals, now: float) -> Standing:
        if endpoint.drain is not None:
            return Standing.LEAVING
        if self._board.state(endpoint.slot) & _OUT:
            return Standing.OUT
        until_ms = totals.each(endpoint.slot + stats.E_UNREACHABLE_MS).values()
        if until_ms and all(each > now * 1000.0 for each in until_ms):
            return Standing.UNREACHABLE
        return Standing.AVAILABLE

    def _obey(self, now: float, events: Iterable[Event]) -> int:
        ejected = 0
        for event in events:
            slot, named = self._slots[event.address], self._named(event.address)
            if isinstance(event, Ejected):
                ejected += 1
                self.ejected[event.address] = event
                self._board.mark(slot, stats.EJECTED, on=True)
                log.warning(
                    "endpoint_ejected",
                    **named,
                    why=event.why,
                    for_s=event.time_s,
                    times=event.times,
                )
            else:
                self.ejected.pop(event.address, None)
                self._board.mark(slot, stats.EJECTED, on=False)
                self._board.set_readmitted(slot, now)
                log.info("endpoint_readmitted", **named, why=event.why)
        return ejected

    def _named(self, address: str) -> dict[str, str]:
        return {"service": self._service, "pool": self._pool, "endpoint": address}


def rules(config: EjectionConfig) -> EjectionRules:
    """What the file says, in the policy's words."""
    return EjectionRules(
        consecutive_failures=config.consecutive_failures,
        failure_share=config.failure_share,
        min_requests=config.min_requests,
        window_s=config.window,
        base_time_s=config.base_time,
        max_time_s=config.max_time,
        max_percent=config.max_percent,
    )
