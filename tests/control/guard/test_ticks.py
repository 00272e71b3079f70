"""Recorded ticks in the state store: kept, bounded, and no change of anybody's."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from proxy.control.guard import ticks
from proxy.control.guard.ticks import Row
from proxy.control.refusal import Unavailable
from proxy.control.state import ServiceState
from proxy.control.store import Store, Write


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "state", timeout_s=20.0)
    yield store
    await store.close()


def rows(count: int, service: str = "shop", first: int = 0, size: int = 10) -> list[Row]:
    return [
        Row(service=service, rollout=1, at=float(at), data=bytes([at % 256]) * size)
        for at in range(first, first + count)
    ]


async def test_ticks_are_there_after_opening_again_in_their_order(store: Store) -> None:
    await store.open()
    await store.write_ticks(rows(3))
    await store.write_ticks(rows(2, "mail"))
    await store.write_ticks(rows(2, first=3))
    await store.close()
    await store.open()
    assert await store.read_ticks("shop") == rows(5)
    assert await store.read_ticks("shop", since=3.0) == rows(2, first=3)
    assert await store.read_ticks("mail") == rows(2, "mail")
    assert await store.read_ticks("gone") == []


async def test_they_make_no_revision_and_no_record(store: Store, shop: ServiceState) -> None:
    await store.open()
    await store.write(Write(revision=3, states={"shop": shop}))
    await store.write_ticks(rows(3))
    await store.close()
    stored = await store.open()
    assert (stored.revision, stored.states, stored.decisions) == (3, {"shop": shop}, ())


async def test_the_same_row_twice_is_one(store: Store) -> None:
    await store.open()
    await store.write_ticks(rows(3))
    await store.write_ticks(rows(4))
    assert await store.read_ticks("shop") == rows(4)


async def test_each_service_keeps_only_its_last_ones(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticks, "KEPT", 5)
    await store.open()
    await store.write_ticks(rows(2, "mail"))
    for first in range(0, 12, 3):
        await store.write_ticks(rows(3, first=first))
    assert await store.read_ticks("shop") == rows(5, first=7)
    assert await store.read_ticks("mail") == rows(2, "mail")


async def test_all_together_have_a_bound_in_bytes_and_the_oldest_give_way(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticks, "MOST_BYTES", 1_000)
    await store.open()
    await store.write_ticks(rows(50, "mail"))
    await store.write_ticks(rows(50))
    assert len(await store.read_ticks("mail")) == 50
    await store.write_ticks(rows(1, first=50))
    left = await store.read_ticks("mail")
    assert left == rows(len(left), "mail", first=50 - len(left))
    assert len(left) + 51 == 90, "down to nine tenths, so that not every write has to"


async def test_a_store_of_an_earlier_version_gets_the_table_and_loses_nothing(
    store: Store, shop: ServiceState
) -> None:
    await store.open()
    await store.write(Write(revision=3, states={"shop": shop}))
    await store.close()
    with closing(sqlite3.connect(store.path)) as other:
        other.execute("DROP TABLE ticks")
        other.commit()
    stored = await store.open()
    assert (store.problem, stored.states) == (None, {"shop": shop})
    await store.write_ticks(rows(1))
    assert await store.read_ticks("shop") == rows(1)


async def test_a_locked_store_takes_none_and_says_so(store: Store) -> None:
    await store.open()
    assert store._connection
    store._connection.execute("PRAGMA busy_timeout = 200")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            await store.write_ticks(rows(1))
        other.execute("ROLLBACK")
    await store.write_ticks(rows(2))
    assert await store.read_ticks("shop") == rows(2)
