from __future__ import annotations

import pytest

from proxy.control.admin.problem import Problem
from proxy.control.admin.query import Query


def errors_of(*pairs: tuple[str, str]) -> tuple[str, ...]:
    query = Query(pairs)
    query.number("limit", 100, least=1, most=1000)
    query.seconds("wait", 0.0)
    query.text("service")
    try:
        query.done()
    except Problem as problem:
        return problem.errors
    return ()


def test_what_is_absent_has_its_default() -> None:
    query = Query([])
    assert query.number("limit", 100, least=1, most=1000) == 100
    assert query.seconds("wait", 2.5) == 2.5
    assert query.text("service") is None
    query.done()


def test_values_are_read_by_their_kind() -> None:
    query = Query([("limit", "7"), ("wait", "1m"), ("service", "shop")])
    assert query.number("limit", 100, least=1, most=1000) == 7
    assert query.seconds("wait", 0.0) == 60.0
    assert query.text("service") == "shop"
    query.done()


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("limit", "0", "limit: 0 is out of range (expected 1 to 1000)"),
        ("limit", "1001", "out of range"),
        ("limit", "-1", "limit: '-1' is no whole number"),
        ("limit", "\u00b2", "no whole number"),
        ("limit", "9" * 5000, "no whole number"),
        ("limit", "", "no whole number"),
        ("wait", "30", "wait: '30' is no duration"),
        ("waits", "30s", "waits: unknown parameter (did you mean wait?)"),
    ],
)
def test_what_is_wrong_is_named(key: str, value: str, error: str) -> None:
    (found,) = errors_of((key, value))
    assert error in found


def test_all_that_is_wrong_is_said_at_once_and_a_repeated_one_too() -> None:
    assert len(errors_of(("limit", "x"), ("wait", "y"), ("z", ""), ("service", "a"))) == 3
    assert errors_of(("wait", "1s"), ("wait", "2s")) == ("wait: given 2 times",)
