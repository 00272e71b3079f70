"""Deals every service's retry budget to the workers, a few times a second.

A worker may begin retries as long as it has begun fewer than it was granted since it
was started: what it has used, as read here, and its share of what remains. So whatever
the workers do until the next beat, together they stay within the budget.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy import stats
from proxy.model import Service, Snapshot
from proxy.policy.budget import WINDOW_S, RetryBudget, deal
from proxy.stats import Board, Totals

FADING = 0.8
"""What is left of a worker's demand from one beat to the next: half of it after 0.3 s."""
EAGERNESS = 20.0
"""A retry that was done or missed speaks for more demand than so many requests."""


class _Window:
    """A service's budget, and what its workers seem to want."""

    def __init__(self, service: Service, workers: int) -> None:
        self.budget = RetryBudget(service.retry.budget, service.retry.floor)
        self.pools: set[int] = set()
        """Areas of all pools it ever had: what was counted there stays counted."""
        self.demand = [0.0] * workers
        self.wanted = [0.0] * workers

    def adopt(self, service: Service) -> None:
        self.budget.share = service.retry.budget
        self.budget.floor = service.retry.floor
        self.pools.update(pool.slot for pool in service.pools)

    def look(self, worker: int, wanted: float) -> None:
        """Bring a worker's demand up to date from what it has counted since its start."""
        news = max(0.0, wanted - self.wanted[worker])
        self.wanted[worker] = wanted
        self.demand[worker] = self.demand[worker] * FADING + news


class RetryBudgets:
    """`beat` is for the pulse."""

    def __init__(self, totals: Totals, board: Board, snapshot: Callable[[], Snapshot]) -> None:
        self._totals = totals
        self._board = board
        self._snapshot = snapshot
        self._windows: dict[str, _Window] = {}

    def beat(self, now: float) -> None:
        """Read the counts, and deal what remains."""
        services = self._snapshot().services
        for service in services:
            self._deal(service, now)
        listed = {service.name for service in services}
        for name, window in list(self._windows.items()):
            if name not in listed and now - window.budget.last_look > WINDOW_S:
                del self._windows[name]

    def _deal(self, service: Service, now: float) -> None:
        totals, slot, workers = self._totals, service.slot, self._board.workers
        window = self._windows.get(service.name)
        if window is None:
            window = self._windows[service.name] = _Window(service, workers)
        window.adopt(service)
        requests = [0] * workers
        retries: dict[int, int] = {}
        for worker, words in totals.by_slot().items():
            retries[worker] = int(words[slot + stats.S_RETRIES])
            requests[worker] = sum(
                sum(words[pool : pool + stats.P_FAILURES].tolist()) for pool in window.pools
            )
            missed = int(words[slot + stats.S_RETRY_OUTCOMES + stats.NO_BUDGET])
            window.look(worker, requests[worker] + EAGERNESS * (retries[worker] + missed))
        window.budget.note(
            now,
            sum(requests) + sum(totals.dead(pool, stats.P_FAILURES) for pool in window.pools),
            sum(retries.values()) + totals.dead(slot + stats.S_RETRIES, 1),
        )
        remaining = window.budget.remaining(now) if service.retry.attempts else 0
        living = sorted(retries)
        shares = deal(remaining, [window.demand[worker] for worker in living])
        granted = [0] * workers  # a worker that is not there gets none: its successor begins at 0
        for worker, share in zip(living, shares, strict=True):
            granted[worker] = retries[worker] + share
        self._board.deal(slot, stats.LOT_RETRIES, granted)
