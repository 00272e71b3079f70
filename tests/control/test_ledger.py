from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxy.control.config.load import load_text
from proxy.control.decision import Decision
from proxy.control.ledger import BindProblems, Ledger
from proxy.control.refusal import Refused, Unavailable
from proxy.control.reload import Circumstances, resume
from proxy.control.setup import Setup, Step
from proxy.control.slots import SlotBook
from proxy.control.store import Store
from proxy.stats import BLOCK_WORDS, SlotTable

if TYPE_CHECKING:
    from tests.control.conftest import World

TEXT = """
listeners: [{bind: "127.0.0.1:8080"}]
services:
  shop: {routes: [{path: /}], pools: {blue: {endpoints: ["127.0.0.1:9001"]}}, active: blue}
  blog: {routes: [{path: /b}], pools: {blue: {endpoints: ["127.0.0.1:9001"]}}, active: blue}
"""
AROUND = Circumstances(now=1000.0, draw_offset=lambda: 0, secret="made")


@pytest.fixture
async def ledger(tmp_path: Path, world: World) -> AsyncIterator[Ledger]:
    setup = Setup(loaded=load_text(TEXT, "test", {}))
    store = Store(tmp_path / "other")
    made = Ledger(setup, store, world.fleet, SlotBook(SlotTable(2)), world.clock)
    await made.open()
    yield made
    await store.close()


def first(ledger: Ledger) -> Step:
    return resume(ledger.setup, AROUND)


def rotated(ledger: Ledger, name: str) -> Step:
    """Some change of one service."""
    state = replace(ledger.setup.states[name], offset=ledger.setup.states[name].offset + 1)
    states = {**ledger.setup.states, name: state}
    return Step(setup=replace(ledger.setup, states=states))


async def test_only_the_services_that_change_get_the_new_revision(ledger: Ledger) -> None:
    await ledger.commit(first(ledger))
    await ledger.commit(rotated(ledger, "blog"))
    assert ledger.setup.revision == ledger.snapshot.revision == 2
    revisions = {name: state.revision for name, state in ledger.setup.states.items()}
    assert revisions == {"shop": 1, "blog": 2}
    await ledger.commit(Step(setup=ledger.setup, touched=frozenset({"shop"})))
    assert ledger.setup.states["shop"].revision == 3


async def test_sockets_opened_for_a_change_that_is_not_stored_are_closed(
    ledger: Ledger, world: World, tmp_path: Path
) -> None:
    await ledger.commit(first(ledger), check_binds=True)
    other = sqlite3.connect(tmp_path / "other" / "turnout.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            await ledger.commit(rotated(ledger, "blog"), check_binds=True)
        other.execute("ROLLBACK")
    finally:
        other.close()
    assert world.fleet.kept_binds == [1], "those of the revision in force are kept"


async def test_sockets_that_cannot_be_opened_change_nothing(ledger: Ledger, world: World) -> None:
    world.fleet.bind_problems = ["taken"]
    with pytest.raises(BindProblems, match="taken"):
        await ledger.commit(first(ledger), check_binds=True)
    assert ledger.setup.revision == 0
    assert world.fleet.applied == []


async def test_more_endpoints_than_can_be_counted_are_refused(ledger: Ledger) -> None:
    ledger.book.table.slot("everything", BLOCK_WORDS - ledger.book.table.dealt)
    with pytest.raises(Refused, match="too many pools and endpoints"):
        await ledger.commit(first(ledger))
    assert ledger.setup.revision == 0


async def test_decisions_come_back_with_their_ids(ledger: Ledger) -> None:
    step = replace(first(ledger), decisions=(Decision(what="started", who="proxy"),))
    (record,) = await ledger.commit(step)
    assert (record["id"], record["revision"]) == (1, 1)
    assert list(ledger.decisions) == [record]


async def test_the_clock_of_deadlines_runs_on_steadily(ledger: Ledger, world: World) -> None:
    before = ledger.now()
    world.clock.advance(10)
    world.clock._wall -= 7200  # somebody sets the machine's clock back
    after = ledger.now()
    assert after.wall - before.wall == after.monotonic - before.monotonic == 10.0
