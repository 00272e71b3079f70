"""The record of the pool that gave everything up, and the bets against it."""

from __future__ import annotations

import random

import pytest

from proxy.policy.judge.knobs import Knobs
from proxy.policy.judge.record import AgainstRecord, Record, upper_bound


@pytest.mark.parametrize(
    ("errors", "requests", "level", "bound"),
    [
        (0, 100, 0.05, 0.029513),  # 1 - level ** (1/n)
        (1, 10, 0.025, 0.445016),
        (5, 50, 0.025, 0.218135),
        (10, 10, 0.05, 1.0),
        (0, 1_000_000, 0.0025, 5.9915e-06),
    ],
)
def test_the_bound_is_clopper_and_pearsons(
    errors: int, requests: int, level: float, bound: float
) -> None:
    assert upper_bound(errors, requests, level) == pytest.approx(bound, rel=1e-4)


def test_the_bound_is_too_low_as_seldom_as_it_says() -> None:
    draw = random.Random(3)
    share, count, trials = 0.02, 400, 600
    too_low = sum(
        upper_bound(sum(draw.random() < share for _ in range(count)), count, 0.05) < share
        for _ in range(trials)
    )
    assert too_low <= 0.05 * trials + 3 * (0.05 * trials) ** 0.5


def test_it_remembers_a_quarter_of_an_hour_of_traffic_and_no_silence() -> None:
    record = Record()
    for _ in range(100):
        record.add(1.0, 10, 5)
    for _ in range(5000):
        record.add(1.0, 0, 0)
    assert record.requests == 1000
    for _ in range(1000):
        record.add(1.0, 10, 0)
    assert record.errors == 0
    assert 9_000 <= record.requests <= 9_200


def test_without_traffic_nothing_is_known() -> None:
    assert Record().highest_share(0.0025) is None


def test_a_share_within_the_record_earns_nothing_and_a_larger_one_does() -> None:
    draw = random.Random(5)
    for share, is_found in ((0.01, False), (0.10, True)):
        bets = AgainstRecord(Knobs(), 0.01)
        for block in range(120):
            errors = sum(draw.random() < share for _ in range(40))
            bets.bet_block(40, errors, 1.0)
            if block % 30 == 29:
                bets.bet_half_minute(1200, 1200 * share, 30.0)
        assert (bets.wealth.log >= bets.bar) is is_found


def test_saved_and_loaded_it_goes_on_the_same() -> None:
    one, two = Record(), Record()
    for second in range(95):
        one.add(1.0, second, 1)
    two.load(one.save())
    one.add(1.0, 7, 1)
    two.add(1.0, 7, 1)
    assert one.save() == two.save()
