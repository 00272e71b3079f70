"""The pulse's dealing of retries: what every worker may do, from what all have done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.control.retry_budgets import RetryBudgets
from proxy.model import Pool, Retries, Service, Snapshot
from proxy.stats import (
    LOT_RETRIES,
    NO_BUDGET,
    P_ANSWERS,
    S_RETRIES,
    S_RETRY_OUTCOMES,
    Board,
    Totals,
    share_index,
)

SHOP, BLUE, GREEN = 100, 200, 500


def block() -> memoryview:
    return memoryview(bytearray(8 * 1000)).cast("q")


class Crew:
    """Three workers' memories, the board, and the snapshot in force."""

    def __init__(self) -> None:
        self.totals = Totals()
        self.board = Board(block(), 3)
        self.memories = [block() for _ in range(3)]
        for slot, memory in enumerate(self.memories):
            self.totals.add(("worker", slot), memory, slot)
        pools = (Pool(name="blue", slot=BLUE), Pool(name="green", slot=GREEN))
        self.shop = Service(name="shop", routes=(), pools=pools, active="blue", slot=SHOP)
        self.services: tuple[Service, ...] = (self.shop,)

    def snapshot(self) -> Snapshot:
        return Snapshot(revision=1, services=self.services)

    def granted(self) -> list[int]:
        return [
            int(self.board.words[share_index(SHOP, LOT_RETRIES, 3, worker)]) for worker in range(3)
        ]

    def answer(self, worker: int, count: int, pool: int = BLUE) -> None:
        self.memories[worker][pool + P_ANSWERS + 2] += count

    def try_again(self, worker: int, count: int) -> None:
        self.memories[worker][SHOP + S_RETRIES] += count


@pytest.fixture
def crew() -> Crew:
    return Crew()


@pytest.fixture
def budgets(crew: Crew) -> RetryBudgets:
    return RetryBudgets(crew.totals, crew.board, crew.snapshot)


def test_a_service_without_traffic_may_retry_as_often_as_its_floor_says(
    crew: Crew, budgets: RetryBudgets
) -> None:
    budgets.beat(0.0)
    assert crew.granted() == [1, 1, 1]


def test_what_is_granted_grows_with_what_was_used_and_never_beyond_the_budget(
    crew: Crew, budgets: RetryBudgets
) -> None:
    budgets.beat(0.0)
    for worker in range(3):
        crew.answer(worker, 100)
    crew.answer(0, 100, GREEN)
    budgets.beat(0.1)
    assert sum(crew.granted()) == 40
    crew.try_again(0, 10)
    budgets.beat(0.2)
    assert sum(crew.granted()) == 40
    assert crew.granted()[0] > 10
    crew.try_again(1, crew.granted()[1])
    crew.try_again(2, crew.granted()[2])
    crew.try_again(0, crew.granted()[0] - 10)
    budgets.beat(0.3)
    assert crew.granted() == [int(each[SHOP + S_RETRIES]) for each in crew.memories]
    budgets.beat(10.5)
    assert sum(crew.granted()) == 40 + 3, "what was used is forgotten, and the floor is left"


def test_the_busier_worker_gets_more(crew: Crew, budgets: RetryBudgets) -> None:
    budgets.beat(0.0)
    crew.answer(0, 900)
    crew.answer(1, 100)
    budgets.beat(0.1)
    first, second, idle = crew.granted()
    assert first + second + idle == 100
    assert first > 5 * second > 5 * idle >= 5


def test_a_worker_that_had_to_turn_a_request_away_comes_first(
    crew: Crew, budgets: RetryBudgets
) -> None:
    crew.shop = replace(crew.shop, retry=Retries(floor=1))
    crew.services = (crew.shop,)
    budgets.beat(0.0)
    assert sum(crew.granted()) == 1
    crew.memories[2][SHOP + S_RETRY_OUTCOMES + NO_BUDGET] += 1
    budgets.beat(0.1)
    assert crew.granted() == [0, 0, 1]


def test_a_dead_workers_retries_stay_spent_and_its_successor_begins_anew(
    crew: Crew, budgets: RetryBudgets
) -> None:
    budgets.beat(0.0)
    crew.answer(1, 1000)
    budgets.beat(0.1)
    crew.try_again(1, 50)
    budgets.beat(0.2)
    crew.totals.retire(("worker", 1), 1000)
    budgets.beat(0.3)
    assert crew.granted()[1] == 0, "nobody is there"
    assert sum(crew.granted()) == 50
    crew.memories[1] = block()
    crew.totals.add(("worker", "next"), crew.memories[1], 1)
    budgets.beat(0.4)
    assert sum(crew.granted()) == 50
    assert crew.granted()[1] >= 1


def test_nothing_is_granted_where_retries_are_off(crew: Crew, budgets: RetryBudgets) -> None:
    crew.services = (replace(crew.shop, retry=Retries(attempts=0)),)
    crew.answer(0, 1000)
    budgets.beat(0.0)
    assert crew.granted() == [0, 0, 0]


def test_another_budget_in_the_file_keeps_the_window(crew: Crew, budgets: RetryBudgets) -> None:
    budgets.beat(0.0)
    crew.answer(0, 1000)
    budgets.beat(0.1)
    crew.try_again(0, 60)
    crew.services = (replace(crew.shop, retry=Retries(budget=2000)),)
    budgets.beat(0.2)
    assert sum(crew.granted()) - 60 == 140
    crew.services = (replace(crew.shop, retry=Retries(budget=500)),)
    budgets.beat(0.3)
    assert sum(crew.granted()) - 60 == 0


def test_a_pool_that_was_removed_stays_counted(crew: Crew, budgets: RetryBudgets) -> None:
    budgets.beat(0.0)
    crew.answer(0, 500, GREEN)
    budgets.beat(0.1)
    crew.services = (replace(crew.shop, pools=crew.shop.pools[:1]),)
    crew.answer(0, 500)
    budgets.beat(0.2)
    assert sum(crew.granted()) == 100


def test_a_service_that_comes_back_at_once_has_no_new_floor(
    crew: Crew, budgets: RetryBudgets
) -> None:
    budgets.beat(0.0)
    for worker in range(3):
        crew.try_again(worker, 1)
    budgets.beat(0.1)
    crew.services = ()
    budgets.beat(0.2)
    crew.services = (crew.shop,)
    budgets.beat(0.3)
    assert crew.granted() == [1, 1, 1], "as many as were used"
    crew.services = ()
    budgets.beat(20.0)
    crew.services = (crew.shop,)
    budgets.beat(20.1)
    assert crew.granted() == [2, 2, 2]
