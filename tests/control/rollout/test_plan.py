"""The plan: what a step weighs, and where a weight belongs."""

from __future__ import annotations

import pytest

from proxy.control.rollout.plan import Plan, Step
from proxy.model import WHOLE


def _plan(*weights: int, holdback: int = 100) -> Plan:
    return Plan(steps=tuple(Step(weight=weight) for weight in weights), holdback=holdback)


def test_only_the_last_step_holds_clients_back() -> None:
    plan = _plan(9_950, WHOLE)
    assert [plan.weight(step) for step in range(2)] == [9_950, 9_900]


def test_without_a_holdback_the_last_step_is_everything() -> None:
    assert _plan(WHOLE, holdback=0).weight(0) == WHOLE


@pytest.mark.parametrize(
    ("weight", "step"), [(1, 0), (100, 0), (101, 1), (5_000, 1), (5_001, 2), (WHOLE, 2)]
)
def test_a_weight_belongs_to_the_first_step_that_is_not_lower(weight: int, step: int) -> None:
    assert _plan(100, 5_000, WHOLE).step_at_or_above(weight) == step


def test_above_every_step_it_belongs_to_the_last() -> None:
    assert _plan(100, 5_000).step_at_or_above(7_000) == 1
