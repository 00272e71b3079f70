"""Credit: single clients count about once, what everybody sees counts whole."""

from __future__ import annotations

from proxy.policy.judge.credit import Credit, clearly_above_one
from proxy.policy.judge.tick import BUCKETS


def _errors(**by: int) -> list[float]:
    buckets = [0.0] * BUCKETS
    for name, count in by.items():
        buckets[int(name[1:])] = float(count)
    return buckets


def test_a_client_that_fails_alone_counts_about_once() -> None:
    credit = Credit(1.0, 3.0)
    given = 0.0
    for _ in range(100):
        credit.saw([10.0] * BUCKETS)
        given += credit.give(_errors(b7=5), 5, clip=True)
    assert given <= 2


def test_an_error_that_everybody_sees_is_not_clipped() -> None:
    credit = Credit(1.0, 3.0)
    given = 0.0
    for _ in range(50):
        credit.saw([10.0] * BUCKETS)
        given += credit.give([2.0] * BUCKETS, 2 * BUCKETS, clip=True)
    assert given > 0.9 * 50 * 2 * BUCKETS


def test_it_never_gives_more_than_there_was() -> None:
    credit = Credit(5.0, 4.0, 3.0)
    credit.saw([10.0] * BUCKETS)
    assert credit.give(_errors(b1=2), 2, clip=True) == 2


def test_without_clipping_all_counts() -> None:
    credit = Credit(1.0, 3.0)
    credit.saw(_errors(b0=100))
    assert credit.give(_errors(b0=60), 60, clip=False) == 60


def test_errors_on_few_clients_are_fewer_observations() -> None:
    spread, gathered = Credit(1.0, 3.0), Credit(1.0, 3.0)
    for credit, errors in ((spread, [3.0] * BUCKETS), (gathered, _errors(b0=48, b1=48))):
        credit.saw([100.0] * BUCKETS)
        credit.give(errors, sum(errors), clip=False)
    assert spread.dispersion() == 1.0
    assert gathered.dispersion() > 5


def test_chance_alone_is_no_dispersion() -> None:
    assert clearly_above_one(1.3, 31) == 1.0
    assert clearly_above_one(3.0, 31) == 3.0


def test_saved_and_loaded_it_goes_on_the_same() -> None:
    one, two = Credit(1.0, 3.0), Credit(1.0, 3.0)
    one.saw([10.0] * BUCKETS)
    one.give(_errors(b3=4), 4, clip=True)
    two.load(one.save())
    given = []
    for credit in (one, two):
        credit.saw([10.0] * BUCKETS)
        given.append(credit.give(_errors(b3=4, b9=1), 5, clip=True))
    assert given[0] == given[1]
