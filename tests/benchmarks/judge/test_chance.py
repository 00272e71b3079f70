"""Chance: counts with the mean and spread that they should have, and intervals from the book."""

from __future__ import annotations

from random import Random
from statistics import fmean, pvariance

import pytest

from benchmarks.judge.chance import poisson, quantile, rounded, spread, wandering, wilson


@pytest.mark.parametrize("mean", [0.05, 0.9, 6.0, 30.0, 950.0])
def test_a_poisson_count_has_its_mean_and_as_much_variance(mean: float) -> None:
    draw = Random(1)
    counts = [poisson(draw, mean) for _ in range(20_000)]
    assert fmean(counts) == pytest.approx(mean, rel=0.04)
    assert pvariance(counts) == pytest.approx(mean, rel=0.08)


@pytest.mark.parametrize("mean", [0.5, 40.0, 60.0, 950.0])
def test_spread_over_buckets_none_is_preferred_and_the_sum_is_as_likely(mean: float) -> None:
    draw = Random(2)
    rows = [spread(draw, mean) for _ in range(4_000)]
    sums = [sum(row) for row in rows]
    assert fmean(sums) == pytest.approx(mean, rel=0.05)
    assert pvariance(sums) == pytest.approx(mean, rel=0.15)
    by_bucket = [sum(row[bucket] for row in rows) for bucket in range(32)]
    each = 4_000 * mean / 32
    assert all(abs(count - each) < 4 * each**0.5 for count in by_bucket)


def test_nothing_comes_of_nothing() -> None:
    assert poisson(Random(1), 0.0) == 0
    assert spread(Random(1), 0.0) == [0] * 32


def test_a_path_wanders_as_far_as_it_is_told() -> None:
    path = wandering(Random(3), 50_000, 0.1, 20.0)
    assert fmean(path) == pytest.approx(1.0, abs=0.03)
    assert pvariance(path) ** 0.5 == pytest.approx(0.1, rel=0.15)


def test_rates_share_tables_to_three_digits() -> None:
    assert rounded(12.3456) == 12.3
    assert rounded(0.00123456) == 0.00123


@pytest.mark.parametrize(
    ("found", "of", "low", "high"),
    [(0, 400, 0.0, 0.0095), (8, 10, 0.4902, 0.9433), (50, 100, 0.4038, 0.5962), (0, 0, 0, 1)],
)
def test_the_interval_is_wilsons(found: int, of: int, low: float, high: float) -> None:
    assert wilson(found, of) == pytest.approx((low, high), abs=1e-4)


def test_a_quantile_is_one_of_the_numbers() -> None:
    numbers = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert [quantile(numbers, part) for part in (0.0, 0.5, 0.9, 1.0)] == [1, 3, 5, 5]
