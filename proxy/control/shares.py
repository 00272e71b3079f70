"""Deals what is limited over all workers: connections, rate, concurrency, what a pool can take.

Every turn of the pulse it reads what each worker uses and what it waits for, and writes the
shares on the board. A limit has its shares before a snapshot that names it is applied: to a
worker an endpoint without shares would be an endpoint without room.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from proxy import stats
from proxy.model import Endpoint, Limits, Pool, Service, Snapshot
from proxy.policy.adaptive import WINDOW_EXCHANGES, WINDOW_S, Gradient, median_s
from proxy.policy.rate import TokenBucket
from proxy.policy.shares import Caps
from proxy.stats import Board, Totals

_REFUSED = {reason: stats.S_LIMITED + index for index, reason in enumerate(stats.LIMITS)}


class Shares:
    """All shares of the snapshot in force, or about to be."""

    def __init__(self, totals: Totals, board: Board) -> None:
        self._readings = Readings(totals, board.workers)
        self._board = board
        self._snapshot = Snapshot(revision=0)
        self._now = 0.0
        self._caps: dict[int, Caps] = {}
        """By the index of their first word on the board."""
        self._buckets: dict[int, Bucket] = {}
        self._pools: dict[int, AdaptivePool] = {}

    def prepare(self, snapshot: Snapshot) -> None:
        """Deal the first shares of what is new in a snapshot, before any worker has it."""
        self._snapshot = snapshot
        self._deal()

    def beat(self, now: float) -> None:
        """One turn at monotonic seconds."""
        self._now = now
        self._deal()

    def concurrency_limit(self, pool: Pool) -> int | None:
        """What the pool can take, where that is being found."""
        adaptive = self._pools.get(pool.slot)
        return None if adaptive is None else adaptive.limit

    def _deal(self) -> None:
        self._readings.turn()
        for service in self._snapshot.services:
            self._deal_service(service)
            for pool in service.pools:
                self._deal_pool(service.limits, pool)
                for endpoint in pool.endpoints:
                    self._deal_endpoint(service.limits, endpoint)

    def _deal_service(self, service: Service) -> None:
        slot, limits, read = service.slot, service.limits, self._readings
        self._deal_rate(slot, limits)
        if limits.concurrency:
            used = read.values(slot + stats.S_EXCHANGES)
            wanted = read.since(slot + _REFUSED["concurrency"])
            self._deal_caps(slot, stats.LOT_CONCURRENCY, limits.concurrency, Use(used, wanted))
        else:
            self._forget(slot, stats.LOT_CONCURRENCY)

    def _deal_rate(self, slot: int, limits: Limits) -> None:
        if not limits.rate:
            self._buckets.pop(slot, None)
            return
        bucket = self._buckets.get(slot)
        if bucket is None:
            bucket = self._buckets[slot] = Bucket(self._board.workers)
        grants = bucket.deal(self._now, slot, limits, self._readings)
        self._board.deal(slot, stats.LOT_RATE, grants)

    def _deal_pool(self, limits: Limits, pool: Pool) -> None:
        slot, read = pool.slot, self._readings
        if not limits.adaptive:
            self._pools.pop(slot, None)
            self._forget(slot, stats.LOT_POOL_CONCURRENCY)
            return
        used = read.values(slot + stats.P_IN_FLIGHT + stats.REQUEST)
        adaptive = self._pools.get(slot)
        if adaptive is None:
            adaptive = self._pools[slot] = AdaptivePool(slot, sum(used), read)
        most = limits.connections * len(pool.endpoints)
        adaptive.observe(self._now, sum(used), read)
        limit = min(adaptive.limit, most) if most else adaptive.limit
        # A request that meets no share is refused at once: every worker needs some.
        limit = max(limit, self._board.workers)
        wanted = read.since(slot + stats.P_LIMITED)
        self._deal_caps(slot, stats.LOT_POOL_CONCURRENCY, limit, Use(used, wanted))

    def _deal_endpoint(self, limits: Limits, endpoint: Endpoint) -> None:
        slot, read = endpoint.slot, self._readings
        if not limits.connections:
            self._forget(slot, stats.LOT_CONNECTIONS)
            return
        used = read.values(slot + stats.E_OPEN)
        wanted = read.values(slot + stats.E_PENDING)
        idle = read.values(slot + stats.E_IDLE) if any(wanted) else None
        use = Use(used, wanted, idle)
        self._deal_caps(slot, stats.LOT_CONNECTIONS, limits.connections, use)

    def _deal_caps(self, slot: int, lot: int, limit: int, use: Use) -> None:
        key = slot + lot * self._board.workers
        caps = self._caps.get(key)
        if caps is None:
            caps = self._caps[key] = Caps(self._board.workers)
        before = caps.shares
        if caps.deal(limit, *use) is not before:
            self._board.deal(slot, lot, caps.shares)

    def _forget(self, slot: int, lot: int) -> None:
        self._caps.pop(slot + lot * self._board.workers, None)


class Use(NamedTuple):
    """What each worker uses of a limit, what it waits for, what of the former rests."""

    used: list[int]
    wanted: list[int]
    idle: list[int] | None = None


class Readings:
    """What each worker has counted, by its place among the workers."""

    def __init__(self, totals: Totals, workers: int) -> None:
        self._totals = totals
        self._workers = workers
        self._places: dict[Hashable, int] = {}
        self._before: dict[int, list[int]] = {}
        self.restarted: list[int] = []
        """Places whose worker has come or gone since the last turn: its counts begin from zero."""

    def turn(self) -> None:
        """See who is there."""
        places = self._totals.slots()
        changed = {*places.items()} ^ {*self._places.items()}
        self.restarted = sorted({place for _, place in changed})
        self._places = places

    def values(self, index: int) -> list[int]:
        """Return what each has in a word now; nobody has less than nothing."""
        return self._totals.of_slots(index, self._workers)

    def since(self, index: int) -> list[int]:
        """Return how much each has counted in a word since this was last asked."""
        values = self.values(index)
        before = self._before.get(index, values)
        self._before[index] = values
        return [max(0, now - then) for now, then in zip(values, before, strict=True)]


class Bucket:
    """The rate of one service."""

    def __init__(self, workers: int) -> None:
        self._tokens = TokenBucket(workers)
        self._is_new = True

    def deal(self, now: float, slot: int, limits: Limits, read: Readings) -> list[int]:
        begun = read.values(slot + stats.S_BEGUN)
        asked = [
            let_in + refused
            for let_in, refused in zip(
                read.since(slot + stats.S_BEGUN), read.since(slot + _REFUSED["rate"]), strict=True
            )
        ]
        if self._is_new:
            self._is_new = False
            self._tokens.granted = list(begun)
        for place in read.restarted:
            self._tokens.restarted(place)
        return self._tokens.deal(now, limits.rate, limits.burst or limits.rate, begun, asked)


class AdaptivePool:
    """The limit of one pool, found from its latency."""

    def __init__(self, slot: int, in_flight: int, read: Readings) -> None:
        self._slot = slot
        self._gradient = Gradient(in_flight)
        self._since: float | None = None
        self._most = 0
        self._read_bins(read)
        self._bins = [0] * stats.BINS

    @property
    def limit(self) -> int:
        return self._gradient.limit

    def observe(self, now: float, in_flight: int, read: Readings) -> None:
        """Gather a window, and let the gradient judge it when it is long enough."""
        self._most = max(self._most, in_flight)
        if self._since is None:
            self._since = now
        if now - self._since < WINDOW_S:
            return
        ended = self._read_bins(read)
        self._bins = [old + new for old, new in zip(self._bins, ended, strict=True)]
        if sum(self._bins) < WINDOW_EXCHANGES:
            self._since = now - WINDOW_S / 2  # a little more
            return
        self._gradient.window(median_s(self._bins), self._most)
        self._since, self._most = now, in_flight
        self._bins = [0] * stats.BINS

    def _read_bins(self, read: Readings) -> list[int]:
        first = self._slot + stats.P_DURATION_BINS
        return [sum(read.since(first + index)) for index in range(stats.BINS)]
