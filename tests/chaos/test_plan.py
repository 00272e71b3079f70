"""A plan holds what it promises, whatever the seed."""

from __future__ import annotations

import itertools

import pytest

from tests.chaos import plan
from tests.chaos.fault_proxy import KINDS

POOLS = (4, 2)
SEEDS = range(50)


def test_the_same_seed_gives_the_same_plan_and_another_one_another() -> None:
    assert plan.make(7, 60, POOLS) == plan.make(7, 60, POOLS)
    assert plan.make(7, 60, POOLS).events != plan.make(8, 60, POOLS).events


@pytest.mark.parametrize("seconds", [0, 25, 60, 600])
def test_every_trouble_is_over_well_before_the_calm(seconds: float) -> None:
    for seed in SEEDS:
        made = plan.make(seed, seconds, POOLS)
        assert max(event.ends_s for event in made.events) <= made.calm_s - plan.SETTLE_S + 0.001
        assert made.ends_s == made.calm_s + plan.CALM_S
        assert made.ends_s == seconds or seconds < 20


def test_the_first_pool_is_restarted_one_by_one_before_anything_else() -> None:
    made = plan.make(1, 60, POOLS)
    rolling = [event for event in made.events if made.part(event.at_s) == "rolling restart"]
    assert [event.endpoint for event in rolling] == [0, 1, 2, 3] * 2
    assert [event.what for event in rolling] == ["restart"] * 4 + ["kill"] * 4
    assert all(one.ends_s < other.at_s for one, other in itertools.pairwise(rolling)), (
        "one is back before the next one goes"
    )


def test_never_more_than_half_of_a_pool_is_in_trouble_and_no_endpoint_twice_at_once() -> None:
    for seed in SEEDS:
        events = plan.make(seed, 120, POOLS).events
        for event in events:
            at_once = [
                other.endpoint for other in events if other.at_s <= event.at_s <= other.ends_s
            ]
            assert len(at_once) == len(set(at_once))
            assert sum(number < 4 for number in at_once) <= 2
            assert sum(number >= 4 for number in at_once) <= 1


def test_a_minute_has_every_kind_of_trouble_in_both_pools() -> None:
    for seed in SEEDS:
        made = plan.make(seed, 60, POOLS)
        drawn = [event for event in made.events if made.part(event.at_s) == "trouble"]
        assert {event.what for event in drawn} == set(plan.TROUBLES)
        assert {event.endpoint >= 4 for event in drawn} == {True, False}


def test_every_fault_of_the_proxy_is_a_trouble_but_pass() -> None:
    faults = [plan.fault(what) for what in plan.TROUBLES]
    assert {fault.kind for fault in faults if fault} == set(KINDS) - {"pass"}
