from __future__ import annotations

import pytest

from proxy.control.gauges import FleetGauges
from proxy.control.slots import SlotBook
from proxy.stats import E_IN_FLIGHT, P_CUT, P_IN_FLIGHT, CounterBlock, SlotTable, Totals


@pytest.fixture
def book() -> SlotBook:
    return SlotBook(SlotTable())


def test_gauges_are_read_by_name(block: CounterBlock, book: SlotBook) -> None:
    totals = Totals()
    totals.add(0, block.words)
    gauges = FleetGauges(totals, book)
    block.words[book.pool("shop", "blue") + P_IN_FLIGHT + 1] = 4
    block.words[book.endpoint("shop", "blue", "a:1") + E_IN_FLIGHT] = 2
    assert gauges.pool("shop", "blue") == (0, 4, 0)
    assert gauges.pool("shop", "green") == (0, 0, 0)
    assert gauges.endpoint("shop", "blue", "a:1") == 2
    block.words[book.endpoint("shop", "blue", "a:1") + E_IN_FLIGHT] = -1
    assert gauges.endpoint("shop", "blue", "a:1") == 0


def test_what_was_cut_counts_from_the_beginning_of_the_drain(
    block: CounterBlock, book: SlotBook
) -> None:
    totals = Totals()
    totals.add(0, block.words)
    gauges = FleetGauges(totals, book)
    slot = book.pool("shop", "blue") + P_CUT
    block.words[slot] = 5
    gauges.watch("shop", "blue", 1.0)
    block.words[slot] = 7
    gauges.watch("shop", "blue", 1.0)
    assert gauges.cut_since("shop", "blue", 1.0) == (2, 0, 0)
    gauges.forget(set())
    assert gauges.cut_since("shop", "blue", 1.0) == (7, 0, 0)


def test_an_area_belongs_to_its_name(book: SlotBook) -> None:
    areas = {
        book.pool("shop", "blue"),
        book.pool("shop", "green"),
        book.endpoint("shop", "blue", "a:1"),
        book.listener("a:1"),
    }
    assert len(areas) == 4
    assert book.pool("shop", "blue") in areas
