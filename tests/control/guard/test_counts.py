"""What a pool did between two readings of counters that only grow."""

from __future__ import annotations

from proxy.control.guard import counts
from proxy.stats import (
    J_ERRORS,
    J_LATENCIES,
    J_LOG_SQUARES,
    J_LOG_SUMS,
    J_REFUSED,
    J_REQUESTS,
    J_UNTIMED,
    JUDGED_WORDS,
    P_JUDGED,
    CounterBlock,
    Totals,
)

SLOT = 128


def test_what_has_grown_is_told_by_client_and_in_sum() -> None:
    before = [5] * JUDGED_WORDS
    after = list(before)
    for index, grown in {
        J_REQUESTS: 3,
        J_REQUESTS + 31: 4,
        J_ERRORS + 31: 2,
        J_REFUSED + 1: 1,
        J_UNTIMED + 31: 2,
        J_LOG_SUMS: 51,
        J_LOG_SQUARES: 867,
        J_LATENCIES + 17: 3,
    }.items():
        after[index] += grown
    found = counts.between(before, after)
    assert (found.requests, found.errors, found.refused) == (7, 2, 1)
    assert found.requests_by is not None
    assert (found.requests_by[0], found.requests_by[31]) == (3, 4)
    assert found.latencies is not None
    assert found.latencies[17] == sum(found.latencies) == 3
    assert found.log_sums is not None
    assert found.log_squares is not None
    assert (found.log_sums[0], found.log_squares[0]) == (51, 867)
    assert found.latency_counts is not None
    assert (found.latency_counts[0], found.latency_counts[31]) == (3, 2)


def test_a_reading_sums_the_workers_and_those_that_are_no_more(block: CounterBlock) -> None:
    totals = Totals()
    totals.add("first", block.words, 0)
    block.words[SLOT + P_JUDGED + J_REQUESTS] = 7
    before = counts.read(totals, SLOT)
    totals.retire("first")
    assert counts.read(totals, SLOT) == before
    assert counts.between(before, counts.read(totals, SLOT)).requests == 0
    assert before[J_REQUESTS] == 7
