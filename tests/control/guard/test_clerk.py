"""The clerk's recording of ticks; how it moves rollouts is tested with the controller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from proxy.control.guard import clerk as module
from proxy.control.guard.clerk import KEEP_S, Clerk, House
from proxy.control.guard.rules import Rules
from proxy.control.guard.tape import decode
from proxy.control.guard.ticks import Row
from proxy.control.guard.watch import Watch
from proxy.control.refusal import Unavailable
from proxy.control.rollout.machine import Phase, Rollout
from proxy.control.rollout.plan import Plan, Step
from proxy.policy.judge import Knobs
from proxy.stats import JUDGED_WORDS

ROLLOUT = Rollout(
    id=3, old="blue", candidate="green", plan=Plan(steps=(Step(weight=10_000),)), phase=Phase.BAKING
)


class Shelf:
    """As much of a house as recording needs: a clock, and a store that may be full."""

    def __init__(self) -> None:
        self.now = 100.0
        self.kept: list[Row] = []
        self.is_full = False
        self.writes = 0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def rules(self, _: str) -> Rules:
        return Rules(mode="observe")

    async def write_ticks(self, rows: Sequence[Row]) -> None:
        self.writes += 1
        if self.is_full:
            raise Unavailable("full")
        self.kept += rows


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def clerk(shelf: Shelf) -> Clerk:
    return Clerk(cast("House", shelf))


def tick(clerk: Clerk, shelf: Shelf, count: int = 1) -> None:
    watch = Watch(ROLLOUT, Knobs(), lambda _: [0] * JUDGED_WORDS, shelf.now)
    for _ in range(count):
        shelf.now += 1.0
        seen = watch.look(shelf.now, is_blind=False)
        clerk._tape("shop", ROLLOUT, seen, watch.knobs)


async def test_ticks_are_kept_every_few_seconds_and_each_of_them_once(
    clerk: Clerk, shelf: Shelf
) -> None:
    for _ in range(12):
        tick(clerk, shelf)
        await clerk._save()
    shelf.now += KEEP_S
    await clerk._save()
    assert [row.at for row in shelf.kept] == [100.0 + each for each in range(1, 13)]
    assert shelf.writes <= 4
    assert {(row.service, row.rollout) for row in shelf.kept} == {("shop", 3)}
    assert decode(shelf.kept[0].data).mode == "observe"


async def test_the_last_ticks_are_kept_although_nobody_watches_any_more(
    clerk: Clerk, shelf: Shelf
) -> None:
    tick(clerk, shelf, 3)
    clerk._forget("shop")
    shelf.now += KEEP_S
    await clerk._save()
    assert len(shelf.kept) == 3


async def test_what_a_full_store_does_not_take_is_kept_later_within_a_bound(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 5)
    clerk = Clerk(cast("House", shelf))
    shelf.is_full = True
    tick(clerk, shelf, 8)
    shelf.now += KEEP_S
    await clerk._save()
    assert shelf.kept == []
    shelf.is_full = False
    shelf.now += KEEP_S
    await clerk._save()
    assert [row.at for row in shelf.kept] == [104.0, 105.0, 106.0, 107.0, 108.0]


async def test_nothing_is_written_where_nothing_was_recorded(clerk: Clerk, shelf: Shelf) -> None:
    shelf.now += KEEP_S
    await clerk._save()
    assert shelf.writes == 0
