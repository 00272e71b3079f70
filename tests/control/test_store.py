from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxy.control import store as stores
from proxy.control.decision import Decision
from proxy.control.health import Checked, Key
from proxy.control.keys import StickyKey
from proxy.control.refusal import Unavailable
from proxy.control.state import ServiceState
from proxy.control.store import Record, Store, Write
from proxy.policy.health import Health, Verdict

if TYPE_CHECKING:
    from tests.control.conftest import Until


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "state", timeout_s=20.0)
    yield store
    await store.close()


def impatient(store: Store) -> None:
    """Have it wait for whoever has locked its file for a moment only; nothing else hurries it."""
    assert store._connection
    store._connection.execute("PRAGMA busy_timeout = 200")


def record(what: str = "weights", revision: int = 1) -> Record:
    return Decision(what=what, who="ann", service="shop").record(at=1.0, revision=revision)


async def test_a_new_store_remembers_nothing_and_is_private(store: Store) -> None:
    stored = await store.open()
    assert (stored.revision, stored.secret, stored.decisions) == (0, "", ())
    assert (stored.states, stored.rings) == ({}, {})
    assert store.problem is None
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in store.path.parent.iterdir()} == {0o600}


async def test_what_was_written_is_there_after_opening_again(
    store: Store, shop: ServiceState
) -> None:
    await store.open()
    ring = (StickyKey(key="aa"), StickyKey(key="bb", until=5.0))
    written = await store.write(
        Write(
            revision=7,
            states={"shop": shop},
            rings={"shop": ring},
            secret="s",
            decisions=[record("weights", 7), record("drain", 7)],
        )
    )
    assert [each["id"] for each in written] == [1, 2]
    await store.close()
    stored = await store.open()
    assert (stored.revision, stored.secret) == (7, "s")
    assert (stored.states, stored.rings) == ({"shop": shop}, {"shop": ring})
    assert list(stored.decisions) == written


async def test_none_deletes(store: Store, shop: ServiceState) -> None:
    await store.open()
    await store.write(Write(revision=1, states={"shop": shop}, rings={"shop": ()}))
    await store.write(Write(revision=2, states={"shop": None}, rings={"shop": None}))
    await store.close()
    stored = await store.open()
    assert (stored.states, stored.rings) == ({}, {})


async def test_only_the_last_decisions_are_kept_and_ids_go_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "KEPT_DECISIONS", 3)
    await store.open()
    await store.write(Write(revision=1, decisions=[record()] * 5))
    await store.close()
    stored = await store.open()
    assert [each["id"] for each in stored.decisions] == [3, 4, 5]
    (again,) = await store.write(Write(revision=2, decisions=[record()]))
    assert again["id"] == 6


# ---- what cannot be stored ----


async def test_a_locked_store_takes_nothing_and_nothing_has_changed(
    store: Store, shop: ServiceState
) -> None:
    await store.open()
    await store.write(Write(revision=1, states={"shop": shop}))
    impatient(store)
    other = sqlite3.connect(store.path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="took nothing: database is locked"):
            await store.write(Write(revision=2, states={"shop": None}, decisions=[record()]))
        other.execute("ROLLBACK")
    finally:
        other.close()
    await store.close()
    stored = await store.open()
    assert (stored.revision, stored.states, stored.decisions) == (1, {"shop": shop}, ())


async def test_a_full_disk_takes_nothing_and_nothing_has_changed(
    store: Store, shop: ServiceState
) -> None:
    await store.open()
    await store.write(Write(revision=1, states={"shop": shop}))
    assert store._connection
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable, match="full"):
        await store.write(Write(revision=2, decisions=[record("x" * 9000)] * 50))
    store._connection.execute("PRAGMA max_page_count = 1000000")
    (written,) = await store.write(Write(revision=2, decisions=[record()]))
    assert written["id"] == 1


async def test_an_attempt_that_was_given_up_leaves_no_trace(
    store: Store, shop: ServiceState, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """The disk hangs, the caller is refused, and then the disk commits after all."""
    await store.open()
    await store.write(Write(revision=1, states={"shop": shop}, decisions=[record()]))
    real = stores._execute
    monkeypatch.setattr(stores._Attempt, "check", lambda _: None)

    def slow(connection: sqlite3.Connection, change: Write) -> list[Record]:
        time.sleep(1.5)
        return real(connection, change)

    monkeypatch.setattr(stores, "_execute", slow)
    monkeypatch.setattr(store, "_timeout_s", 0.2)  # the bound is a second later
    with pytest.raises(Unavailable, match="does not answer"):
        await store.write(Write(revision=2, states={"shop": None}, decisions=[record("lost")]))
    monkeypatch.setattr(store, "_timeout_s", 20.0)
    monkeypatch.setattr(stores, "_execute", real)
    await until(lambda: not store._turn.locked())
    (written,) = await store.write(Write(revision=2, decisions=[record("kept")]))
    await store.close()
    stored = await store.open()
    assert stored.states == {"shop": shop}
    assert [each["what"] for each in stored.decisions] == ["weights", "kept"]
    assert stored.decisions[-1]["id"] == written["id"]


async def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "state")
    with pytest.raises(Unavailable, match="cannot be used: Not a directory"):
        await store.open()


async def test_a_store_somebody_else_has_locked_is_not_set_aside(
    store: Store, tmp_path: Path
) -> None:
    await store.open()
    await store.close()
    store._timeout_s = 0.2
    other = sqlite3.connect(store.path, isolation_level=None)
    try:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="locked"):
            await store.open()
        other.execute("ROLLBACK")
    finally:
        other.close()
    assert not list((tmp_path / "state").glob("*damaged*"))


# ---- damage ----


async def damage_and_open(store: Store, content: bytes) -> str:
    store.path.parent.mkdir(exist_ok=True)
    store.path.write_bytes(content)
    stored = await store.open()
    assert stored.revision == 0
    assert store.problem
    (aside,) = store.path.parent.glob("turnout.db.damaged-*Z")
    assert aside.read_bytes() == content
    assert aside.name in store.problem
    assert re.fullmatch(r"turnout\.db\.damaged-\d{8}T\d{6}\.\d{6}Z", aside.name)
    await store.write(Write(revision=1, decisions=[record()]))
    return store.problem


async def test_a_store_that_is_no_database_is_set_aside(store: Store) -> None:
    problem = await damage_and_open(store, b"not a database at all" * 100)
    assert "file is not a database" in problem
    assert "configuration file alone" in problem


async def test_a_store_that_was_emptied_is_set_aside_and_not_taken_for_a_new_one(
    store: Store, shop: ServiceState
) -> None:
    await store.open()
    await store.write(Write(revision=1, states={"shop": shop}, decisions=[record()]))
    await store.close()
    assert "the file is empty" in await damage_and_open(store, b"")


async def test_what_is_wrong_with_a_store_is_said_in_one_line(store: Store) -> None:
    await store.open()
    await store.write(Write(revision=1, decisions=[record("y" * 500)] * 200))
    await store.close()
    content = bytearray(store.path.read_bytes())
    content[4096 : 4096 + 8192] = b"\xff" * 8192
    problem = await damage_and_open(store, bytes(content))
    assert "\n" not in problem


async def test_a_store_with_holes_is_set_aside(store: Store, shop: ServiceState) -> None:
    await store.open()
    for revision in range(1, 60):
        await store.write(
            Write(revision=revision, states={"shop": shop}, decisions=[record("y" * 500)])
        )
    await store.close()
    content = bytearray(store.path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 64] = b"\xff" * 64
    await damage_and_open(store, bytes(content))


async def test_another_programs_database_is_set_aside_whole(store: Store) -> None:
    store.path.parent.mkdir()
    other = sqlite3.connect(store.path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    problem = await damage_and_open(store, store.path.read_bytes())
    assert "another program" in problem


async def test_a_store_of_another_format_is_set_aside(store: Store) -> None:
    await store.open()
    await store.close()
    store._timeout_s = 0.2
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    other.close()
    problem = await damage_and_open(store, store.path.read_bytes())
    assert "format 99, expected 1" in problem


async def test_a_state_we_cannot_read_is_damage_too(store: Store) -> None:
    await store.open()
    await store.close()
    store._timeout_s = 0.2
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("INSERT INTO services VALUES ('shop', '{}')")
    other.close()
    problem = await damage_and_open(store, store.path.read_bytes())
    assert "unreadable content" in problem


# ---- kill -9 ----

WRITER = """
import asyncio, sys
from pathlib import Path
from proxy.control.store import Store, Write

async def main():
    store = Store(Path(sys.argv[1]))
    await store.open()
    revision = 0
    while True:
        revision += 1
        await store.write(Write(revision=revision, decisions=[{"revision": revision}]))
        print(revision, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged", [1, 7, 40])
async def test_an_acknowledged_change_survives_kill_9(tmp_path: Path, acknowledged: int) -> None:
    directory = tmp_path / "state"
    with subprocess.Popen(  # noqa: ASYNC220  (it only starts here)
        [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout
        seen = 0
        while seen < acknowledged:
            seen = int(await asyncio.to_thread(writer.stdout.readline))
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split()
        seen = int(rest[-1]) if rest else seen
    store = Store(directory)
    try:
        stored = await store.open()
        assert store.problem is None
        assert stored.revision in {seen, seen + 1}
        assert [each["revision"] for each in stored.decisions] == list(
            range(1, stored.revision + 1)
        )
    finally:
        await store.close()


def health(verdict: Verdict = "down") -> dict[Key, Checked]:
    known = Checked(health=Health(verdict=verdict), words="503 in 3 ms", at=5.0, since=4.0)
    return {("shop", "blue", "127.0.0.1:9001"): known}


async def test_the_last_known_health_is_kept_without_a_revision_or_a_record(store: Store) -> None:
    await store.open()
    await store.write(Write(revision=7))
    await store.write_health({"shop": health(), "blog": health()})
    await store.write_health({"blog": None})
    await store.close()
    stored = await store.open()
    assert stored.health == {"shop": health()}
    assert (stored.revision, stored.decisions) == (7, ())


async def test_a_store_from_before_there_were_checks_gets_a_place_for_them(store: Store) -> None:
    await store.open()
    await store.write(Write(revision=7))
    await store.close()
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("DROP TABLE health")
    assert (await store.open()).revision == 7
    assert store.problem is None
    await store.write_health({"shop": health("up")})
    await store.close()
    assert (await store.open()).health == {"shop": health("up")}


async def test_health_that_cannot_be_read_is_damage(store: Store) -> None:
    await store.open()
    await store.close()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO health VALUES ('shop', '[{}]')")
    assert (await store.open()).health == {}
    assert store.problem


async def test_progress_of_the_guard_is_kept_and_forgotten_without_a_revision(store: Store) -> None:
    before = (await store.open()).revision
    await store.write_guard({"shop": {"rollout": 3, "watch": {"at_s": 1.5}}, "api": {"rollout": 1}})
    await store.write_guard({"api": None})
    await store.close()
    stored = await store.open()
    assert stored.guard == {"shop": {"rollout": 3, "watch": {"at_s": 1.5}}}
    assert (stored.revision, stored.decisions) == (before, ())
