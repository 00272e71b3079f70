"""E-values have a mean of at most 1 while the candidate is no worse; shown by enumeration."""

from __future__ import annotations

from math import comb, exp

import pytest

from proxy.policy.judge.evidence import (
    against_record,
    divergence,
    of_excess,
    of_slowness,
)

A, D = 1.2, 0.0005
SIZES = [(1, 19), (5, 5), (10, 40), (19, 1), (30, 30)]
SHARES = [0.0005, 0.01, 0.1, 0.3, 0.6]


def chances(count: int, share: float) -> list[float]:
    return [comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)]


@pytest.mark.parametrize("ratio", [1.5, 2.5, 5.0, 15.0, 60.0])
@pytest.mark.parametrize(("own", "active"), SIZES)
def test_betting_on_more_errors_earns_nothing_on_average(
    own: int, active: int, ratio: float
) -> None:
    for share in SHARES:
        worst = min(1.0, A * share + D)
        mean = sum(
            p * q * exp(of_excess(ratio, failed, own, others, active, A, D))
            for failed, p in enumerate(chances(own, worst))
            for others, q in enumerate(chances(active, share))
        )
        assert mean <= 1 + 1e-9, (share, mean)


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.6, 0.8])
@pytest.mark.parametrize(("own", "active"), SIZES)
def test_betting_on_fewer_errors_earns_nothing_while_it_is_worse(
    own: int, active: int, ratio: float
) -> None:
    for share in SHARES[:-1]:
        least = min(1.0, 2.0 * share + 2 * D)
        mean = sum(
            p * q * exp(of_excess(ratio, failed, own, others, active, 2.0, 2 * D))
            for failed, p in enumerate(chances(own, least))
            for others, q in enumerate(chances(active, share))
        )
        assert mean <= 1 + 1e-9, (share, mean)


@pytest.mark.parametrize("odds", [1.3, 3.0, 30.0])
@pytest.mark.parametrize(("own", "active"), SIZES)
def test_betting_on_slow_answers_earns_nothing_at_any_share(
    own: int, active: int, odds: float
) -> None:
    for share in SHARES:
        mean = sum(
            p * q * exp(of_slowness(odds, slow, own, others, active))
            for slow, p in enumerate(chances(own, share))
            for others, q in enumerate(chances(active, share))
        )
        assert mean <= 1 + 1e-9, (share, mean)


@pytest.mark.parametrize("ratio", [1.5, 5.0, 60.0])
def test_betting_against_a_record_earns_nothing_while_it_is_kept(ratio: float) -> None:
    for count in (1, 10, 60):
        for share in SHARES:
            mean = sum(
                p * exp(against_record(ratio, failed, count, share))
                for failed, p in enumerate(chances(count, share))
            )
            assert mean <= 1 + 1e-9, (count, share, mean)


def test_what_has_no_traffic_on_one_side_is_no_evidence() -> None:
    assert of_excess(5.0, 3, 10, 0, 0, A, D) == 0
    assert of_excess(5.0, 0, 0, 3, 10, A, D) == 0
    assert of_slowness(3.0, 0, 10, 0, 10) == 0


def test_more_errors_are_more_evidence() -> None:
    found = [of_excess(5.0, failed, 20, 1, 400, A, D) for failed in range(10)]
    assert found == sorted(found)
    assert found[0] < 0 < found[9]


def test_divergence_is_zero_where_both_shares_are_one() -> None:
    assert divergence(50, 0.3, 0.3) == pytest.approx(0)
    assert divergence(50, 0.0, 0.2) > 0
    assert divergence(50, 1.0, 0.2) > 0
