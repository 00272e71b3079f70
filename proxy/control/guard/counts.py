"""From cumulative counters in shared memory to what a pool did in one tick."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.policy.judge import Counts
from proxy.stats import (
    BINS,
    J_ERRORS,
    J_LATENCIES,
    J_LOG_SQUARES,
    J_LOG_SUMS,
    J_REFUSED,
    J_REQUESTS,
    J_UNTIMED,
    JUDGE_BUCKETS,
    JUDGED_WORDS,
    P_JUDGED,
    Totals,
)


def read(totals: Totals, pool_slot: int) -> list[int]:
    """The judge's counters of a pool, summed over all workers that ever lived."""
    return totals.counters(pool_slot + P_JUDGED, JUDGED_WORDS)


def outcomes(totals: Totals, pool_slot: int) -> tuple[int, int]:
    """Requests and errors of a pool, cumulative."""
    start = pool_slot + P_JUDGED
    requests = totals.counters(start + J_REQUESTS, JUDGE_BUCKETS)
    return sum(requests), sum(totals.counters(start + J_ERRORS, JUDGE_BUCKETS))


def between(before: Sequence[int], after: Sequence[int]) -> Counts:
    """What was counted from one reading to the next."""
    grown = [new - old for new, old in zip(after, before, strict=True)]
    requests, errors = _by_bucket(grown, J_REQUESTS), _by_bucket(grown, J_ERRORS)
    refused = _by_bucket(grown, J_REFUSED)
    return Counts(
        requests=sum(requests),
        errors=sum(errors),
        refused=sum(refused),
        requests_by=requests,
        errors_by=errors,
        refused_by=refused,
        latencies=grown[J_LATENCIES : J_LATENCIES + BINS],
        latency_counts=[
            all_ - without
            for all_, without in zip(requests, _by_bucket(grown, J_UNTIMED), strict=True)
        ],
        log_sums=_by_bucket(grown, J_LOG_SUMS),
        log_squares=_by_bucket(grown, J_LOG_SQUARES),
    )


def _by_bucket(words: Sequence[int], first: int) -> Sequence[int]:
    return words[first : first + JUDGE_BUCKETS]
