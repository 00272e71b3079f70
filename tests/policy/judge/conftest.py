"""Traffic for the judge: seeded counts of two pools, tick by tick, without a library."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from proxy.policy.judge import BUCKETS, Counts, Judge, Tick, Verdict
from proxy.policy.judge.verdict import Call
from proxy.stats import BINS, latency_bin

Rate = Callable[[float], float]


def drawn(random_: random.Random, count: int, share: float) -> int:
    """How many of `count` happen with chance `share`: exact, and quick for rare ones."""
    if share <= 0 or count <= 0:
        return 0
    if share >= 1:
        return count
    if share > 0.2:
        return sum(random_.random() < share for _ in range(count))
    found, place, scale = 0, 0, math.log1p(-share)
    while True:
        place += 1 + int(math.log(1.0 - random_.random()) / scale)
        if place > count:
            return found
        found += 1


@dataclass(kw_only=True)
class Traffic:
    """Requests per second, the candidate's part of them, and what fails when (by seconds)."""

    rps: float = 100.0
    part: float = 0.05
    candidate: Rate = lambda _: 0.001
    active: Rate = lambda _: 0.001
    refused: tuple[float, float] = (0.0, 0.0)
    slower: Rate | None = None
    """Factor of the candidate's latency; None: no latencies at all."""
    seconds: int = 600

    def ticks(self, seed: int) -> Iterator[Tick]:
        random_ = random.Random(seed)
        for second in range(1, self.seconds + 1):
            total = max(0, round(random_.gauss(self.rps, math.sqrt(self.rps))))
            own = drawn(random_, total, self.part)
            yield Tick(
                at_s=float(second),
                length_s=1.0,
                active=self._counts(
                    random_, total - own, self.active(second), self.refused[0], 1.0
                ),
                candidate=self._counts(
                    random_,
                    own,
                    self.candidate(second),
                    self.refused[1],
                    self.slower(second) if self.slower else 1.0,
                ),
            )

    def _counts(
        self, random_: random.Random, requests: int, share: float, refused: float, slower: float
    ) -> Counts:
        errors = drawn(random_, requests, share)
        counts = Counts(
            requests=requests,
            errors=errors,
            refused=drawn(random_, requests - errors, refused),
            requests_by=dealt(random_, requests),
        )
        counts.errors_by = dealt(random_, counts.errors)
        counts.refused_by = dealt(random_, counts.refused)
        if self.slower is not None:
            _add_latencies(random_, counts, requests - errors, slower)
        return counts


def dealt(random_: random.Random, count: int) -> list[float]:
    buckets = [0.0] * BUCKETS
    for _ in range(count):
        buckets[random_.randrange(BUCKETS)] += 1
    return buckets


def _add_latencies(random_: random.Random, counts: Counts, count: int, slower: float) -> None:
    """Log-normal around 50 ms, as it often is."""
    bins = [0.0] * BINS
    numbers, sums, squares = ([0.0] * BUCKETS for _ in range(3))
    for _ in range(count):
        seconds = 0.05 * slower * math.exp(random_.gauss(0.0, 0.5))
        bins[latency_bin(seconds)] += 1
        bucket = random_.randrange(BUCKETS)
        numbers[bucket] += 1
        sums[bucket] += math.log(seconds)
        squares[bucket] += math.log(seconds) ** 2
    counts.latencies = bins
    counts.latency_counts, counts.log_sums, counts.log_squares = numbers, sums, squares


@dataclass(frozen=True)
class Ended:
    verdict: Verdict
    at_s: float
    passed_at_s: float | None
    errors: int
    """The candidate's, until then."""


def judged(judge: Judge, ticks: Iterator[Tick]) -> Ended:
    """Feed the judge until it fails the candidate, or the traffic ends."""
    passed: float | None = None
    errors = 0
    for tick in ticks:
        errors += tick.candidate.errors
        verdict = judge.observe(tick)
        if verdict.call is Call.PASS and passed is None:
            passed = tick.at_s
        if verdict.call is Call.FAIL:
            break
    return Ended(verdict, tick.at_s, passed, errors)


@pytest.fixture
def traffic() -> type[Traffic]:
    return Traffic


@pytest.fixture
def run() -> Callable[[Judge, Iterator[Tick]], Ended]:
    return judged
