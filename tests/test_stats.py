"""Shared memory as its writer and its readers see it."""

from __future__ import annotations

import pytest

from proxy import stats
from proxy.stats import Board, Totals, share_index


@pytest.fixture
def words() -> memoryview:
    return memoryview(bytearray(8 * 200)).cast("q")


def test_what_nobody_has_written_speaks_for_an_endpoint(words: memoryview) -> None:
    assert Board(words, 2).state(40) == 0


def test_marks_of_one_endpoint_do_not_touch_each_other(words: memoryview) -> None:
    board = Board(words, 2)
    assert board.mark(40, stats.DOWN, on=True)
    assert board.mark(40, stats.EJECTED, on=True)
    assert not board.mark(40, stats.DOWN, on=True)
    assert board.mark(40, stats.DOWN, on=False)
    assert board.state(40) == stats.EJECTED


def test_the_version_moves_only_when_something_has_changed(words: memoryview) -> None:
    board = Board(words, 2)
    board.publish()
    assert words[stats.B_VERSION] == 0
    board.mark(40, stats.DOWN, on=True)
    board.publish()
    board.mark(40, stats.DOWN, on=True)
    board.publish()
    assert words[stats.B_VERSION] == 1


def test_every_worker_finds_its_own_share(words: memoryview) -> None:
    board = Board(words, 3)
    board.deal(40, stats.LOT_RETRIES, [1, 2, 3])
    board.deal(40, stats.LOT_HELD, [7, 8, 9])
    read = [words[share_index(40, stats.LOT_RETRIES, 3, worker)] for worker in range(3)]
    assert read == [1, 2, 3]
    assert words[share_index(40, stats.LOT_HELD, 3, 1)] == 8


def test_counts_of_the_dead_are_kept_apart_and_the_living_are_found_by_their_slot() -> None:
    totals = Totals()
    first, second = (memoryview(bytearray(8 * 10)).cast("q") for _ in range(2))
    totals.add("first", first, 0)
    totals.add("second", second, 1)
    first[4], first[5], second[4] = 3, 4, 10
    totals.retire("first", 10)
    assert totals.by_slot() == {1: second}
    assert (totals.dead(4), totals.dead(4, 2), totals.dead(6)) == (3, 7, 0)
    assert totals.counter(4) == 13
