"""What is said of a case's runs, and when a bound is broken."""

from __future__ import annotations

import pytest

from benchmarks.judge.measure import Broken, Case, Cell, Healthy, Run, measure
from benchmarks.judge.traffic import Traffic, always


def _cell(expected: Healthy | Broken, *failed: float | None) -> Cell:
    cell = Cell(expected)
    for at_s in failed:
        cell.add(Run(failed_s=at_s, errors=7.0))
    return cell


def test_a_healthy_case_is_broken_only_by_more_than_chance() -> None:
    one, many = [None] * 99 + [50.0], [None] * 80 + [50.0] * 20
    assert _cell(Healthy(0.01), *one).broken_bound == ""
    assert _cell(Healthy(0.01), *many).broken_bound == "at most 1% may be turned back"
    assert _cell(Healthy(None), *many).broken_bound == ""
    assert _cell(Healthy(0.01), *many).in_words == "20.0 %"


def test_a_broken_case_has_to_be_found_often_enough_and_soon_enough() -> None:
    expected = Broken(0.99, 20, since=100)
    assert _cell(expected, *[110.0] * 20).broken_bound == ""
    assert "have to be found" in _cell(expected, *[110.0] * 10, *[None] * 10).broken_bound
    assert "median" in _cell(expected, *[150.0] * 20).broken_bound
    early = _cell(Broken(0.5, 20, since=100), *[50.0] * 2, *[110.0] * 18)
    assert "before anything is wrong" in early.broken_bound
    assert early.in_words == "90 %, 10 / 10 s, 7 errors, 2 too early"


def test_what_is_never_found_misses_its_median() -> None:
    assert _cell(Broken(0.0, 20), None, None).broken_bound != ""
    assert _cell(Broken(), None, None).in_words == "0 %"


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (Healthy(0.05), "5 %"),
        (Healthy(None), "-"),
        (Broken(0.99, 1_800), "99 %, 1,800 s"),
        (Broken(), "-"),
    ],
)
def test_bounds_are_said_in_words(expected: Healthy | Broken, words: str) -> None:
    assert Cell(expected).bound_in_words == words


def test_a_run_is_measured_from_the_second_in_which_it_broke() -> None:
    dead = Traffic(rps=400, part=0.5, candidate=lambda s: float(s > 60), active=always(0.0))
    cell = measure(Case("dead", dead, Broken(1.0, 3, since=60)), 2)
    assert cell.found == 2
    assert all(0 < after_s <= 3 for after_s in cell.after_s)
    assert all(errors > 100 for errors in cell.errors)
