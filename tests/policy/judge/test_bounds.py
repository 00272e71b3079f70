"""The bounds of `make judge`, on a seeded run or three of each case that is quick enough."""

from __future__ import annotations

import pytest

from benchmarks.judge.measure import Broken, Case, Healthy, measure
from benchmarks.judge.suites import SUITES

SEED = 7


def _is_for_every_day(case: Case) -> bool:
    """Not what is only reported, nor a thousand requests a second for long."""
    expected = case.expected
    is_long = isinstance(expected, Healthy) or expected.since > 0
    if is_long and "1000 a second" in case.name:
        return False
    if isinstance(expected, Healthy):
        return expected.most is not None
    return expected.least >= 0.9


CASES = [
    pytest.param(case, id=f"{name}: {case.name}")
    for name, suite in SUITES.items()
    for case in suite.cases()
    if _is_for_every_day(case)
]


@pytest.mark.parametrize("case", CASES)
def test_what_is_broken_is_found_in_time_and_what_is_healthy_is_left_alone(case: Case) -> None:
    is_healthy = isinstance(case.expected, Healthy)
    cell = measure(case, 1 if is_healthy else 3, SEED)
    assert cell.broken_bound == ""
    assert (cell.found, cell.early) == (0 if is_healthy else 3, 0)


def test_every_suite_has_a_case_for_every_day() -> None:
    seen = {str(param.id).partition(":")[0] for param in CASES}
    assert seen == set(SUITES)


def test_the_same_seed_gives_the_same_cell() -> None:
    case = next(each for each in SUITES["start"].cases() if "to 5 %, 100 " in each.name)
    assert isinstance(case.expected, Broken)
    first, second = measure(case, 3), measure(case, 3)
    assert first == second
    assert measure(case, 3, seed=50) != first
