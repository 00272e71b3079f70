"""What the judge is given once a second: what both pools' counters have grown by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.stats import JUDGE_BUCKETS

BUCKETS = JUDGE_BUCKETS

Numbers = Sequence[float]


@dataclass(slots=True, kw_only=True)
class Counts:
    """What one pool's counters grew by in one tick, summed over all workers.

    First attempts only. The lists by client bucket have BUCKETS numbers, the histogram
    `stats.BINS`; None where they are not known. `log_sums` and `log_squares` are sums of the
    logarithm of the latency (to any base, of any unit) and of its square, over attempts that
    were no errors.
    """

    requests: int = 0
    errors: int = 0
    refused: int = 0
    """Answers of class 4xx; they are no errors."""
    requests_by: Numbers | None = None
    errors_by: Numbers | None = None
    refused_by: Numbers | None = None
    latencies: Numbers | None = None
    latency_counts: Numbers | None = None
    log_sums: Numbers | None = None
    log_squares: Numbers | None = None


@dataclass(slots=True, kw_only=True)
class Tick:
    at_s: float
    """The tick's end, in seconds since the rollout began."""
    length_s: float
    active: Counts
    candidate: Counts


def added(one: Numbers, other: Numbers) -> list[float]:
    return [x + y for x, y in zip(one, other, strict=True)]
