"""Traffic of clients that come again and stick to a pool: some busy, some slow, some broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import exp
from random import Random
from typing import Literal

from benchmarks.judge.chance import poisson
from benchmarks.judge.latencies import LOGS
from proxy.policy.judge import BUCKETS, Counts, Tick
from proxy.stats import BINS, latency_bin


@dataclass(frozen=True)
class Broken:
    """A client whose requests all fail."""

    rps: float
    since: float
    until: float
    pool: Literal["candidate", "any"]
    """`any`: it sticks to a pool as the weights will have it."""


@dataclass(kw_only=True)
class Clients:
    rps: float = 100.0
    part: float = 0.05
    share: float = 0.001
    """Of errors, the same on both pools."""
    count: int = 1_000
    zipf: float = 0.0
    """How unequally busy they are: the n-th one n ** -zipf times as busy as the first."""
    error_sigma: float = 0.0
    """How unequally often they fail: deviation of the logarithm."""
    heavy: tuple[float, float] | None = None
    """This part of the clients fails this share of its requests."""
    latency_sigma: float | None = None
    """How unequally slow they are; None: no latencies at all."""
    broken: Broken | None = None
    seconds: int = 3_600

    def ticks(self, seed: int) -> Iterator[Tick]:
        draw = Random(f"clients {seed}")
        population = _Population(self, draw)
        for second in range(1, self.seconds + 1):
            sides = (_Side(), _Side())
            population.ask(sides, poisson(draw, self.rps))
            population.break_(sides, second)
            active, candidate = (side.counts(self.latency_sigma is not None) for side in sides)
            yield Tick(at_s=float(second), length_s=1.0, active=active, candidate=candidate)


class _Side:
    """One pool in one tick."""

    def __init__(self) -> None:
        self.requests = [0] * BUCKETS
        self.errors = [0] * BUCKETS
        self.bins: list[int] = [0] * BINS
        self.sums, self.squares = [0.0] * BUCKETS, [0.0] * BUCKETS

    def counts(self, has_latency: bool) -> Counts:  # noqa: FBT001
        counts = Counts(
            requests=sum(self.requests),
            errors=sum(self.errors),
            requests_by=self.requests,
            errors_by=self.errors,
            refused_by=[0] * BUCKETS,
        )
        if has_latency:
            counts.latencies = self.bins
            counts.latency_counts = [x - y for x, y in zip(self.requests, self.errors, strict=True)]
            counts.log_sums, counts.log_squares = self.sums, self.squares
        return counts


class _Population:
    """The clients of one run."""

    def __init__(self, clients: Clients, draw: Random) -> None:
        count = clients.count
        self._clients = clients
        self._draw = draw
        self._ids = range(count)
        self._busy = list(accumulate((place + 1) ** -clients.zipf for place in range(count)))
        self._bucket = [draw.randrange(BUCKETS) for _ in range(count)]
        self._side = [int(draw.random() < clients.part) for _ in range(count)]
        self._share = [self._share_of(draw) for _ in range(count)]
        sigma = clients.latency_sigma or 0.0
        self._median_s = [0.050 * exp(draw.gauss(0.0, sigma)) for _ in range(count)]
        broken = clients.broken
        self._broken_side = int(
            broken is not None and (broken.pool == "candidate" or draw.random() < clients.part)
        )
        self._broken_bucket = draw.randrange(BUCKETS)

    def _share_of(self, draw: Random) -> float:
        clients = self._clients
        sigma = clients.error_sigma
        share = clients.share * exp(draw.gauss(0.0, sigma) - sigma * sigma / 2)
        if clients.heavy and draw.random() < clients.heavy[0]:
            share = max(share, clients.heavy[1])
        return min(1.0, share)

    def ask(self, sides: tuple[_Side, _Side], count: int) -> None:
        random = self._draw.random
        has_latency = self._clients.latency_sigma is not None
        for client in self._draw.choices(self._ids, cum_weights=self._busy, k=count):
            side, bucket = sides[self._side[client]], self._bucket[client]
            side.requests[bucket] += 1
            if random() < self._share[client]:
                side.errors[bucket] += 1
            elif has_latency:
                bin_ = latency_bin(self._median_s[client] * exp(self._draw.gauss(0.0, 0.5)))
                side.bins[bin_] += 1
                side.sums[bucket] += LOGS[bin_]
                side.squares[bucket] += LOGS[bin_] ** 2

    def break_(self, sides: tuple[_Side, _Side], second: int) -> None:
        broken = self._clients.broken
        if broken is None or not broken.since < second <= broken.until:
            return
        count = poisson(self._draw, broken.rps)
        side = sides[self._broken_side]
        side.requests[self._broken_bucket] += count
        side.errors[self._broken_bucket] += count
