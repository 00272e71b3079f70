"""A service's recorded ticks and rollout decisions: from the state store, or from lines of JSON.

The store is opened for reading alone, whether the proxy runs or not.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from proxy.control.guard import tape, ticks
from proxy.control.guard.tape import Taped

_SQLITE = b"SQLite format 3\0"
_BUSY_S = 5.0
MOST_LINE = 1 << 20


class Unreadable(Exception):  # noqa: N818 - it reads as a sentence where it is raised
    """The file is no recording, or cannot be read; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One rollout's."""

    service: str
    rollout: int
    ticks: tuple[tuple[float, Taped], ...]
    """Each with the wall time at its end."""
    decisions: tuple[dict[str, Any], ...] = ()
    """What was done in this rollout, oldest first."""


def load(path: Path, service: str) -> list[Recording]:
    """All rollouts of a service in a file, in their order; Unreadable when it has none."""
    try:
        with path.open("rb") as file:
            is_store = file.read(len(_SQLITE)) == _SQLITE
        found = _from_store(path, service) if is_store else _from_lines(path, service)
    except OSError as error:
        raise Unreadable(f"cannot read {path}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise Unreadable(f"cannot read {path}: {error}") from error
    except ValueError as error:
        raise Unreadable(f"{path} is no recording: {error}") from error
    if not found:
        raise Unreadable(f"{path} has no recorded rollout of {service}")
    return found


def lines(recordings: list[Recording]) -> Iterator[str]:
    """The same as lines of JSON, for `load`."""
    for each in recordings:
        base = {"service": each.service, "rollout": each.rollout}
        for decision in each.decisions:
            yield json.dumps({"kind": "decision", **base, "decision": decision})
        for at, taped in each.ticks:
            line = {"kind": "tick", **base, "at": at, "tick": tape.to_plain(taped)}
            yield json.dumps(line, separators=(",", ":"))


# ---- the state store ----


def _from_store(path: Path, service: str) -> list[Recording]:
    with closing(_connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if "ticks" not in tables or "decisions" not in tables:
            raise ValueError("it is no state store, or one of a version that recorded nothing")
        rows = ticks.read(connection, service)
        records = connection.execute("SELECT id, record FROM decisions ORDER BY id").fetchall()
    book = _Book(service)
    for row in rows:
        book.add_tick(row.rollout, row.at, tape.decode(row.data))
    for number, record in records:
        book.add_decision({"id": number} | json.loads(record))
    return book.recordings()


def _connect(path: Path) -> sqlite3.Connection:
    # Where no log lies beside it nobody writes it, and it can be read as it is: else SQLite would
    # make files beside it, which the reader may not, or the proxy could not open afterwards.
    is_in_use = path.with_name(f"{path.name}-wal").exists()
    how = "mode=ro" if is_in_use else "immutable=1"
    uri = f"file:{quote(str(path.absolute()))}?{how}"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_S)


# ---- lines of JSON ----


def _from_lines(path: Path, service: str) -> list[Recording]:
    book = _Book(service)
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MOST_LINE):
            number += 1
            if not line.strip():
                continue
            try:
                book.add_line(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"line {number}: {error}") from error
    return book.recordings()


class _Book:
    """Gathers ticks and decisions by rollout."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._ticks: dict[int, list[tuple[float, Taped]]] = {}
        self._decisions: dict[int, list[dict[str, Any]]] = {}

    def add_line(self, plain: Any) -> None:
        if not isinstance(plain, dict) or plain.get("kind") not in {"tick", "decision"}:
            raise ValueError("neither a tick nor a decision")
        if plain["service"] != self._service:
            return
        if plain["kind"] == "tick":
            self.add_tick(int(plain["rollout"]), float(plain["at"]), tape.from_plain(plain["tick"]))
        else:
            self.add_decision(plain["decision"])

    def add_tick(self, rollout: int, at: float, taped: Taped) -> None:
        self._ticks.setdefault(rollout, []).append((at, taped))

    def add_decision(self, record: Any) -> None:
        """Those of other services, and of no rollout, are passed over."""
        if not isinstance(record, dict) or record.get("service") != self._service:
            return
        rollout = (record.get("numbers") or {}).get("rollout")
        if isinstance(rollout, int):
            self._decisions.setdefault(rollout, []).append(record)

    def recordings(self) -> list[Recording]:
        return [
            Recording(
                service=self._service,
                rollout=rollout,
                ticks=tuple(found),
                decisions=tuple(self._decisions.get(rollout, ())),
            )
            for rollout, found in sorted(self._ticks.items())
        ]
