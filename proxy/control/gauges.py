"""What the workers have in flight and have cut, read from their counters by name."""

from __future__ import annotations

from proxy.control.drains import Cut
from proxy.control.slots import SlotBook
from proxy.model import Endpoint, Limits
from proxy.stats import (
    CLASSES,
    E_IDLE,
    E_IN_FLIGHT,
    E_OPEN,
    E_PENDING,
    P_CUT,
    P_IN_FLIGHT,
    S_HELD,
    S_HELD_BYTES,
    Totals,
)


class FleetGauges:
    """Sums over all workers; counts what was cut from the moment a drain is first seen."""

    def __init__(self, totals: Totals, book: SlotBook) -> None:
        self._totals = totals
        self._book = book
        self._bases: dict[tuple[str, str, float], list[int]] = {}

    def pool(self, service: str, pool: str) -> tuple[int, int, int]:
        slot = self._book.pool(service, pool)
        request, stream, tunnel = self._totals.gauges(slot + P_IN_FLIGHT, len(CLASSES))
        return _positive(request), _positive(stream), _positive(tunnel)

    def endpoint(self, service: str, pool: str, address: str) -> int:
        slot = self._book.endpoint(service, pool, address)
        return _positive(self._totals.gauge(slot + E_IN_FLIGHT))

    def held(self, service: str) -> int:
        """Requests that wait during a hold, or for their turn in a release."""
        return _positive(self._totals.gauge(self._book.service(service) + S_HELD))

    def held_bytes(self, service: str) -> int:
        return _positive(self._totals.gauge(self._book.service(service) + S_HELD_BYTES))

    def watch(self, service: str, pool: str, since: float) -> None:
        """Remember what had been cut before the drain that begins now."""
        self._bases.setdefault((service, pool, since), self._cut(service, pool))

    def cut_since(self, service: str, pool: str, since: float) -> Cut:
        base = self._bases.get((service, pool, since), [0] * len(CLASSES))
        request, stream, tunnel = (
            _positive(now - then) for now, then in zip(self._cut(service, pool), base, strict=True)
        )
        return request, stream, tunnel

    def forget(self, running: set[tuple[str, str, float]]) -> None:
        """Drop the marks of all drains but the running ones."""
        self._bases = {key: base for key, base in self._bases.items() if key in running}

    def _cut(self, service: str, pool: str) -> list[int]:
        return self._totals.counters(self._book.pool(service, pool) + P_CUT, len(CLASSES))


def is_full(endpoint: Endpoint, limits: Limits, totals: Totals) -> bool:
    """Whether its connections are all in use, and as many requests wait for one as may."""
    if not limits.connections or not limits.pending:
        return False
    workers = max(1, len(totals.slots()))
    places = workers * max(1, limits.pending // workers)
    return (
        totals.gauge(endpoint.slot + E_PENDING) >= places
        and totals.gauge(endpoint.slot + E_OPEN) >= limits.connections
        and not totals.gauge(endpoint.slot + E_IDLE)
    )


def _positive(value: int) -> int:
    # Two workers' memory is read a moment apart; a sum may look negative in between.
    return max(0, value)
