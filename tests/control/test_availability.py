from __future__ import annotations

import itertools

import pytest

from proxy.control.availability import STATES, facts, problem
from proxy.stats import ASKS_TO_DRAIN, DOWN, EJECTED, UNCHECKED


@pytest.mark.parametrize(
    ("bits", "without", "state", "is_available"),
    [
        (0, "", "available", True),
        (UNCHECKED, "", "unchecked", False),
        (DOWN, "", "down", False),
        (EJECTED, "", "ejected", False),
        (ASKS_TO_DRAIN, "", "draining", False),
        (0, "reach", "unreachable", False),
        (DOWN | EJECTED, "", "down", False),
        (DOWN | ASKS_TO_DRAIN, "", "down", False),
        (DOWN, "drain", "draining", False),
        (DOWN, "pool", "down", False),
        (0, "pool", "draining", False),
        (0, "drain", "draining", False),
        (0, "room", "full", False),
        (DOWN, "room", "down", False),
    ],
)
def test_the_most_telling_fact_names_the_state(
    bits: int, without: str, state: str, *, is_available: bool
) -> None:
    found = facts(
        bits,
        has_checks=True,
        draining=without == "drain",
        pool_draining=without == "pool",
        reachable=without != "reach",
        full=without == "room",
    )
    assert (found.state, found.available) == (state, is_available)


def test_only_where_nothing_speaks_against_it_is_an_endpoint_available() -> None:
    switches = [False, True]
    for bits, checks, draining, pool, reachable in itertools.product(
        range(16), switches, switches, switches, switches
    ):
        found = facts(
            bits, has_checks=checks, draining=draining, pool_draining=pool, reachable=reachable
        )
        assert found.state in STATES
        assert found.available == (found.state == "available")
        if checks:
            assert found.available == (not bits and not draining and not pool and reachable)


def test_without_checks_an_endpoint_is_up_while_it_can_be_reached() -> None:
    for reachable in (False, True):
        found = facts(0, has_checks=False, draining=False, pool_draining=False, reachable=reachable)
        assert (found.up, found.checked, found.available) == (reachable, None, reachable)


@pytest.mark.parametrize(
    ("bits", "reachable", "last", "said"),
    [
        (0, True, "200 in 1 ms", None),
        (DOWN, True, "503 in 3 ms", "503 in 3 ms"),
        (UNCHECKED, True, None, "not checked yet"),
        (EJECTED, True, "200 in 1 ms", "ejected"),
        (ASKS_TO_DRAIN, True, "200 in 1 ms", "asks to be drained"),
        (0, False, "200 in 1 ms", "could not be connected to"),
    ],
)
def test_a_problem_is_told_in_words_and_a_pools_drain_is_none(
    bits: int, last: str | None, said: str | None, *, reachable: bool
) -> None:
    found = facts(bits, has_checks=True, draining=False, pool_draining=True, reachable=reachable)
    assert problem(found, last) == said
