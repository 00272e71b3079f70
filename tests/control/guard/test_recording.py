"""Recordings out of a real store, in use or not, and out of lines of JSON."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from proxy.control.decision import Decision
from proxy.control.guard import tape
from proxy.control.guard.recording import Recording, Unreadable, lines, load
from proxy.control.guard.tape import Taped
from proxy.control.guard.ticks import Row
from proxy.control.rollout.machine import Phase
from proxy.control.store import Store, Write
from proxy.policy.judge import Call, Counts, Knobs, Tick


def taped(second: int) -> Taped:
    counts = Counts(requests=second, errors=1)
    return Taped(
        tick=Tick(at_s=float(second), length_s=1.0, candidate=counts, active=counts),
        candidate="green",
        old="blue",
        phase=Phase.BAKING,
        weight=500,
        knobs=Knobs(),
        call=Call.CONTINUE,
    )


def rows(service: str, rollout: int, first: int, count: int) -> list[Row]:
    return [
        Row(service=service, rollout=rollout, at=100.0 + each, data=tape.encode(taped(each)))
        for each in range(first, first + count)
    ]


def decision(service: str, rollout: int | None, what: str = "rollout") -> Decision:
    numbers = {"rollout": rollout} if rollout else {}
    return Decision(what=what, who="guard", service=service, numbers=numbers)


async def filled(directory: Path) -> Store:
    """An open store with rollouts 1 and 2 of the shop, and another service's."""
    store = Store(directory)
    await store.open()
    await store.write_ticks(rows("shop", 1, 1, 3))
    await store.write_ticks(rows("mail", 1, 1, 2))
    await store.write_ticks(rows("shop", 2, 4, 2))
    decisions = [
        decision("shop", 1),
        decision("shop", 2),
        decision("mail", 2),
        decision("shop", None, what="guard"),
        decision("shop", 2, what="rollback"),
    ]
    records = [each.record(at=1.0, revision=1) for each in decisions]
    await store.write(Write(revision=1, decisions=records))
    return store


def check(found: list[Recording]) -> None:
    assert [(each.service, each.rollout, len(each.ticks)) for each in found] == [
        ("shop", 1, 3),
        ("shop", 2, 2),
    ]
    first, second = found
    assert first.ticks == tuple((100.0 + each, taped(each)) for each in (1, 2, 3))
    assert [each["id"] for each in first.decisions] == [1]
    assert [each["id"] for each in second.decisions] == [2, 5]


async def test_a_store_in_use_is_read_and_left_alone(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    check(load(store.path, "shop"))
    await store.write_ticks(rows("shop", 2, 6, 1))
    assert len(load(store.path, "shop")[1].ticks) == 3
    await store.close()


async def test_a_store_that_was_closed_is_read(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await store.close()
    check(load(store.path, "shop"))


async def test_a_copy_is_read_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    store = await filled(tmp_path / "state")
    await store.close()
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(store.path, copy / "turnout.db")
    (copy / "turnout.db").chmod(0o400)
    copy.chmod(0o500)
    try:
        check(load(copy / "turnout.db", "shop"))
    finally:
        copy.chmod(0o700)
    assert [each.name for each in copy.iterdir()] == ["turnout.db"]


async def test_what_was_exported_is_read_as_it_was(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await store.close()
    out = tmp_path / "out.jsonl"
    out.write_text("\n".join([*lines(load(store.path, "shop")), ""]))
    check(load(out, "shop"))
    assert {json.loads(each)["kind"] for each in out.read_text().splitlines()} == {
        "tick",
        "decision",
    }


async def test_a_service_without_recordings_is_told(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await store.close()
    with pytest.raises(Unreadable, match="has no recorded rollout of web"):
        load(store.path, "web")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "has no recorded rollout of shop"),
        ("hello", "is no recording: line 1: "),
        ("[]\n", "line 1: neither a tick nor a decision"),
        ('\n{"kind": "song"}\n', "line 2: neither a tick nor a decision"),
        ('{"kind": "tick"}\n', "line 1: 'service'"),
        ('{"kind": "tick", "service": "shop", "rollout": 1, "at": 1, "tick": {}}', "line 1: not a"),
    ],
)
def test_what_is_no_recording_is_refused_with_the_line(
    tmp_path: Path, content: str, why: str
) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(Unreadable, match=why):
        load(path, "shop")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="No such file"):
        load(tmp_path / "gone", "shop")


async def test_a_database_of_somebody_else_and_a_damaged_tick_are_told(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
        connection.commit()
    with pytest.raises(Unreadable, match="it is no state store"):
        load(other, "shop")
    store = Store(tmp_path)
    await store.open()
    await store.write_ticks([Row(service="shop", rollout=1, at=1.0, data=b"nonsense")])
    await store.close()
    with pytest.raises(Unreadable, match="not a recorded tick"):
        load(store.path, "shop")
