"""Simulated traffic: what is asked for is what comes, and a seed is a run."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.judge.clients import Broken, Clients
from benchmarks.judge.traffic import Ticks, Traffic, always, during, from_second, stairs
from proxy.policy.judge import Counts, Tick
from proxy.stats import BINS, bin_upper_edge_s


def _all(traffic: Ticks, seed: int = 1) -> list[Tick]:
    return list(traffic.ticks(seed))


def _check_sums(counts: Counts) -> None:
    for total, by in (
        (counts.requests, counts.requests_by),
        (counts.errors, counts.errors_by),
        (counts.refused, counts.refused_by),
    ):
        assert by is not None
        assert sum(by) == total


@pytest.mark.parametrize(
    "traffic",
    [
        Traffic(rps=200, part=0.3, refused=(0.1, 0.2), slower=always(1.0), seconds=50),
        Clients(count=200, zipf=0.8, latency_sigma=0.5, seconds=50),
    ],
    ids=["independent", "clients"],
)
def test_counts_by_bucket_add_up_and_every_answer_has_a_latency(traffic: Ticks) -> None:
    for tick in _all(traffic):
        for counts in (tick.active, tick.candidate):
            _check_sums(counts)
            assert counts.latencies is not None
            assert counts.latency_counts is not None
            answered = counts.requests - counts.errors
            assert sum(counts.latencies) == sum(counts.latency_counts) == answered


def test_shares_and_rates_are_what_was_asked_for() -> None:
    traffic = Traffic(rps=400, part=0.25, active=always(0.1), refused=(0.0, 0.2), seconds=300)
    ticks = _all(traffic)
    own = sum(tick.candidate.requests for tick in ticks)
    others = sum(tick.active.requests for tick in ticks)
    assert own == pytest.approx(300 * 100, rel=0.03)
    assert sum(tick.active.errors for tick in ticks) / others == pytest.approx(0.1, rel=0.05)
    assert sum(tick.candidate.refused for tick in ticks) / own == pytest.approx(0.2, rel=0.05)


def test_a_seed_is_a_run() -> None:
    traffic = Traffic(slower=always(1.0), errors_wander=(0.2, 60.0), seconds=20)
    assert _all(traffic, 5) == _all(traffic, 5)
    assert _all(traffic, 5) != _all(traffic, 6)


def _median_s(ticks: Sequence[Tick], side: str) -> float:
    bins = [0.0] * BINS
    for tick in ticks:
        latencies = getattr(tick, side).latencies
        bins = [x + y for x, y in zip(bins, latencies, strict=True)]
    below, half = 0.0, sum(bins) / 2
    for index, count in enumerate(bins):
        below += count
        if below >= half:
            return bin_upper_edge_s(index)
    raise AssertionError("no latency at all")


def test_latencies_are_around_their_median_and_slower_where_told() -> None:
    ticks = _all(Traffic(rps=500, part=0.5, slower=always(2.0), seconds=60))
    assert _median_s(ticks, "active") == pytest.approx(0.050, rel=0.12)
    assert _median_s(ticks, "candidate") == pytest.approx(0.100, rel=0.12)


def test_rates_change_after_the_second_they_name() -> None:
    change, pulse = from_second(1, 2, 10), during(0, 9, 10, 20)
    assert [change(10), change(11)] == [1, 2]
    assert [pulse(second) for second in (10, 11, 20, 21)] == [0, 9, 9, 0]
    steps = stairs((0, 1), (10, 2), (20, 3))
    assert [steps(second) for second in (1, 10, 11, 20, 21)] == [1, 1, 2, 2, 3]


def test_a_client_sticks_to_its_pool() -> None:
    """Few clients: the buckets of the one pool are never those of the other."""
    ticks = _all(Clients(count=4, part=0.5, rps=50, seconds=30), 3)
    sides = [
        [sum(by) for by in zip(*(getattr(t, side).requests_by for t in ticks), strict=True)]
        for side in ("active", "candidate")
    ]
    assert all(sum(side) > 100 for side in sides)
    assert not any(own and other for own, other in zip(*sides, strict=True))


def test_a_broken_client_fails_on_its_pool_while_it_is_there() -> None:
    broken = Broken(10.0, 5, 15, "candidate")
    ticks = _all(Clients(share=0.0, broken=broken, seconds=20))
    failed = [tick.at_s for tick in ticks if tick.candidate.errors]
    assert (min(failed), max(failed)) == (6, 15)
    assert not any(tick.active.errors for tick in ticks)
    assert all(sum(1 for each in tick.candidate.errors_by or () if each) <= 1 for tick in ticks)
