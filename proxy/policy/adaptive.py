"""Adaptive concurrency: how many exchanges a pool can take before they only wait for each other.

The method is Gradient2 of Netflix's concurrency-limits library (Netflix Technology Blog,
"Performance Under Load", 2018; class Gradient2Limit): where the latency of late is above
that of long, a queue has formed, and the limit shrinks by their ratio; where it is not, the
limit grows by the queue that is allowed.

    gradient = clip(TOLERANCE * long / short, 0.5, 1)
    limit    = (1 - SMOOTHING) * limit + SMOOTHING * (limit * gradient + sqrt(limit))

`long` and `short` are exponential averages. The limit stays as it is while less than half of
it is used, so that it neither grows nor falls on traffic that says nothing about it. The
latency is a median, which event streams and downloads do not move.

A service that has become slower for good and one that has queued for ten minutes look the
same: the long average follows both, and the limit grows with it. That is the method's price
for needing no trials with the users' requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from proxy.stats import bin_upper_edge_s

WINDOW_S = 1.0
"""Exchanges are gathered for this long at least..."""
WINDOW_EXCHANGES = 10
"""... and until there are so many."""
INITIAL = 100
LEAST = 10
MOST = 10_000
TOLERANCE = 1.5
"""Latency may rise by so much before it counts as queueing."""
SMOOTHING = 0.2
SHORT_WINDOWS = 5
LONG_WINDOWS = 600
RECOVERY = 0.95
"""After an overload the long average is brought down by this a window, else it would take hours."""


class Average:
    """Exponential average over about `windows` values; of the first ones it is the mean."""

    __slots__ = ("_count", "_windows", "value")

    def __init__(self, windows: int) -> None:
        self._windows = windows
        self._count = 0
        self.value = 0.0

    def add(self, value: float) -> None:
        self._count += 1
        self.value += (value - self.value) * max(1.0 / self._count, 2.0 / (self._windows + 1))


class Gradient:
    """The limit of one pool."""

    __slots__ = ("_limit", "_long", "_short")

    def __init__(self, in_flight: int = 0) -> None:
        """Begin well above what is in flight already."""
        self._limit = float(min(MOST, max(INITIAL, 2 * in_flight)))
        self._long = Average(LONG_WINDOWS)
        self._short = Average(SHORT_WINDOWS)

    @property
    def limit(self) -> int:
        return int(self._limit)

    def window(self, latency_s: float, in_flight: int) -> None:
        """Take in a window: its median latency (above 0), and the most exchanges in flight."""
        self._short.add(latency_s)
        self._long.add(latency_s)
        short, long = self._short.value, self._long.value
        if long > 2 * short:
            self._long.value *= RECOVERY
        if in_flight * 2 < self._limit:
            return
        gradient = max(0.5, min(1.0, TOLERANCE * long / short))
        wanted = self._limit * gradient + sqrt(self._limit)
        limit = (1.0 - SMOOTHING) * self._limit + SMOOTHING * wanted
        self._limit = max(float(LEAST), min(float(MOST), limit))


def median_s(bins: Sequence[int]) -> float:
    """Median of a latency histogram (proxy.stats) in seconds; 0 when it is empty."""
    half = sum(bins) / 2
    if not half:
        return 0.0
    below = 0
    for index, count in enumerate(bins):
        if below + count >= half:
            lower = bin_upper_edge_s(index - 1) if index else 0.0
            return lower + (bin_upper_edge_s(index) - lower) * (half - below) / count
        below += count
    raise AssertionError("some bin holds the middle")
