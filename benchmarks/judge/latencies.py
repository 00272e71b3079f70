"""Latencies of simulated answers: log-normal, with a tail or a stall where asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from math import erf, log, sqrt

from proxy.stats import BINS, bin_upper_edge_s

_EDGES = [bin_upper_edge_s(index) for index in range(BINS - 1)]
LOGS = [log(_EDGES[0])] + [0.5 * (log(below) + log(above)) for below, above in pairwise(_EDGES)]
LOGS.append(log(_EDGES[-1]))
"""The logarithm of a latency in the middle of each bin."""
_PARTS = 16


@dataclass(frozen=True)
class Shape:
    """Of one pool in one second."""

    scale: float = 1.0
    """Times as slow as usual."""
    tail: tuple[float, float] | None = None
    """This part of the answers is so many times as slow."""
    stall_s: float = 0.0
    """Every answer waits up to this long as well."""
    median_s: float = 0.050
    sigma: float = 0.5

    @property
    def cumulative(self) -> list[float]:
        return _cumulative(self)


@lru_cache(maxsize=5_000)
def _cumulative(shape: Shape) -> list[float]:
    """How likely a latency is in each bin, as running sums."""
    part, factor = shape.tail or (0.0, 1.0)
    below = [
        (1.0 - part) * _below(shape, edge, 1.0) + part * _below(shape, edge, factor)
        for edge in _EDGES
    ]
    below.append(1.0)
    steps = [max(0.0, above - under) for under, above in pairwise([0.0, *below])]
    return list(accumulate(steps))


def _below(shape: Shape, edge: float, factor: float) -> float:
    """How likely a latency is below the edge, over all waits of a stall."""
    median = shape.median_s * shape.scale * factor
    waits = [0.0]
    if shape.stall_s:
        waits = [shape.stall_s * (index + 0.5) / _PARTS for index in range(_PARTS)]
    return sum(_normal(edge - wait, median, shape.sigma) for wait in waits) / len(waits)


def _normal(seconds: float, median: float, sigma: float) -> float:
    if seconds <= 0.0:
        return 0.0
    return 0.5 * (1.0 + erf(log(seconds / median) / (sigma * sqrt(2.0))))
