"""Seeded runs of endpoints in trouble: whatever happens to them, the policy's promises hold.

A failure names its seed and step; `World(seed)` gives the same run again.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.policy.endpoint_simulation import ViolationError, World

SEEDS = range(32)
STEPS = 400


def run(seed: int) -> World:
    world = World(seed)
    for step in range(STEPS):
        try:
            world.step()
        except ViolationError as violation:
            raise AssertionError(f"seed {seed}, step {step}: {violation}") from violation
    return world


@pytest.mark.parametrize("first", SEEDS[::8])
def test_no_endpoint_starves_shares_hold_no_pool_is_emptied_and_retries_stay_in_their_budget(
    first: int,
) -> None:
    happened: Counter[str] = Counter()
    for seed in range(first, first + 8):
        happened += run(seed).happened
    # A run in which nothing happens would hold everything.
    for what in ("ejected", "readmitted", "down", "up", "panic", "fallback", "retried"):
        assert happened[what] > 5, f"{what}: {happened}"
    assert happened["shares held"] > 5, happened


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = run(7), run(7)
    assert first.happened == second.happened
    assert (first.requests, first.retries) == (second.requests, second.retries)
