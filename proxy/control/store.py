"""The state store: run-time states, keys and decisions in SQLite, one transaction a change.

What `write` has returned from survives `kill -9` at any moment (WAL, synchronous FULL).
A damaged or foreign file is set aside under a name that says so; the proxy then starts
from its configuration file alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from proxy.control import codec, health
from proxy.control.guard import ticks
from proxy.control.guard.ticks import Row
from proxy.control.health import Checked, Key
from proxy.control.keys import Ring, Rings, StickyKey
from proxy.control.refusal import Unavailable
from proxy.control.state import ServiceState

T = TypeVar("T")
V = TypeVar("V")
Record = dict[str, Any]

FILE = "turnout.db"
FORMAT = "1"
KEPT_DECISIONS = 10_000

_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE services (name TEXT PRIMARY KEY, state TEXT NOT NULL)",
    "CREATE TABLE rings (service TEXT PRIMARY KEY, keys TEXT NOT NULL)",
    "CREATE TABLE decisions (id INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL)",
)
_LATER_TABLES = (
    "CREATE TABLE IF NOT EXISTS health (service TEXT PRIMARY KEY, endpoints TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS guard (service TEXT PRIMARY KEY, progress TEXT NOT NULL)",
    *ticks.TABLES,
)
"""Those that a store made by an earlier version has not; it loses nothing by getting them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the store remembered when it was opened."""

    revision: int = 0
    secret: str = ""
    """The one made once, for services whose configuration gives none."""
    states: Mapping[str, ServiceState] = field(default_factory=dict)
    rings: Rings = field(default_factory=dict)
    health: health.Stored = field(default_factory=dict)
    guard: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """How far each rollout had come, and what its judge knew."""
    decisions: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One change to be made durable: everything in it, or nothing."""

    revision: int
    states: Mapping[str, ServiceState | None] = field(default_factory=dict)
    """None: the service has vanished."""
    rings: Mapping[str, Ring | None] = field(default_factory=dict)
    secret: str | None = None
    decisions: Sequence[Record] = ()


class _DamagedError(Exception):
    """The file is no store of ours, or no longer whole."""


class _Attempt:
    """One use of the connection by a thread; whoever stopped waiting for it says so here."""

    def __init__(self) -> None:
        self.is_abandoned = False

    def check(self) -> None:
        if self.is_abandoned:
            raise sqlite3.OperationalError("given up: it took too long")


class Store:
    """One connection, used by one thread at a time, each use bounded in time."""

    def __init__(self, directory: Path, *, timeout_s: float = 3.0) -> None:
        self.path = directory / FILE
        self.problem: str | None = None
        """A sentence when the store found at the start had to be set aside."""
        self._timeout_s = timeout_s
        self._connection: sqlite3.Connection | None = None
        self._turn = threading.Lock()
        # What is known to be stored. An attempt that we gave up may yet have been committed
        # by the disk; the next one then starts by writing all of this again.
        self._states: dict[str, ServiceState] = {}
        self._rings: dict[str, Ring] = {}
        self._last_id = 0
        self._is_in_doubt = False

    async def open(self) -> Stored:
        """Open or make the store; Unavailable when the directory cannot be used at all."""
        stored = await self._in_thread(lambda _: self._open())
        self._states, self._rings = dict(stored.states), dict(stored.rings)
        self._last_id = stored.decisions[-1]["id"] if stored.decisions else 0
        return stored

    async def write(self, change: Write) -> list[Record]:
        """Commit a change and return its decisions with their ids; Unavailable changes nothing."""
        try:
            numbered = await self._in_thread(lambda attempt: self._write(attempt, change))
        except BaseException:
            self._is_in_doubt = True
            raise
        self._is_in_doubt = False
        self._states = _merged(self._states, change.states)
        self._rings = _merged(self._rings, change.rings)
        if numbered:
            self._last_id = numbered[-1]["id"]
        return numbered

    async def write_health(self, changed: Mapping[str, Mapping[Key, Checked] | None]) -> None:
        """Keep the health of whole services; None for one that has no checks any more.

        It is no change of anybody's: it has neither a revision nor a record.
        """
        await self._in_thread(
            lambda attempt: self._commit(attempt, lambda it: _put_health(it, changed))
        )

    async def write_guard(self, progress: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Keep how far rollouts have come; None for one that is over. No change of anybody's."""

        def put(connection: sqlite3.Connection) -> None:
            for service, each in progress.items():
                _put(connection, "guard", service, _json(each) if each is not None else None)

        await self._in_thread(lambda attempt: self._commit(attempt, put))

    async def write_ticks(self, rows: Sequence[Row]) -> None:
        """Keep some ticks, and forget the oldest ones beyond the bounds.

        They are no change of anybody's either; the same row twice is one.
        """
        await self._in_thread(lambda attempt: self._commit(attempt, lambda it: ticks.put(it, rows)))

    async def read_ticks(self, service: str, since: float = 0.0) -> list[Row]:
        """A service's ticks from `since` (wall seconds) on, in their order."""
        return await self._in_thread(
            lambda attempt: self._commit(attempt, lambda it: ticks.read(it, service, since))
        )

    async def close(self) -> None:
        await self._in_thread(lambda _: self._close())

    async def _in_thread(self, work: Callable[[_Attempt], T]) -> T:
        attempt = _Attempt()
        try:
            async with asyncio.timeout(self._timeout_s + 1.0):
                return await asyncio.to_thread(self._in_turn, attempt, work)
        except TimeoutError:
            raise Unavailable(f"the state store {self.path} does not answer") from None
        except sqlite3.Error as error:
            raise Unavailable(f"the state store {self.path} took nothing: {error}") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise Unavailable(f"the state store {self.path} cannot be used: {reason}") from None
        finally:
            attempt.is_abandoned = True

    # ---- in the thread ----

    def _in_turn(self, attempt: _Attempt, work: Callable[[_Attempt], T]) -> T:
        if not self._turn.acquire(timeout=self._timeout_s):
            raise sqlite3.OperationalError("an earlier change still waits for the disk")
        try:
            attempt.check()
            return work(attempt)
        finally:
            self._turn.release()

    def _open(self) -> Stored:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._check_length()
            return self._connect()
        except _DamagedError as damage:
            self._close()
            aside = self._set_aside()
            self.problem = (
                f"the state store was damaged ({_in_one_line(damage)}) and set aside as {aside}; "
                "started from the configuration file alone"
            )
            return self._connect()
        except BaseException:
            self._close()
            raise

    def _check_length(self) -> None:
        """A store of ours has a header from its first moment on; sqlite takes an empty file for new."""
        if self.path.is_file() and not self.path.stat().st_size:
            raise _DamagedError("the file is empty")

    def _connect(self) -> Stored:
        # Made by us first, so that nobody else can read it, not even for a moment.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        self.path.chmod(0o600)
        self._connection = sqlite3.connect(
            self.path, timeout=self._timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            return _load(self._connection)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _DamagedError(f"unreadable content: {error!r}") from error
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in _NOT_DAMAGE:
                raise
            raise _DamagedError(str(error)) from error

    def _write(self, attempt: _Attempt, change: Write) -> list[Record]:
        def work(connection: sqlite3.Connection) -> list[Record]:
            if self._is_in_doubt:
                self._write_again(connection)
            return _execute(connection, change)

        return self._commit(attempt, work)

    def _commit(self, attempt: _Attempt, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do the work in one transaction: all of it, or nothing."""
        connection = self._connection
        if connection is None:
            raise Unavailable("the state store is closed")
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
            attempt.check()
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _write_again(self, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM services")
        connection.execute("DELETE FROM rings")
        connection.execute("DELETE FROM decisions WHERE id > ?", (self._last_id,))
        _put_states(connection, self._states)
        _put_rings(connection, self._rings)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _set_aside(self) -> str:
        stamp = datetime.now(tz=UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = f"{self.path.name}.damaged-{stamp}"
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(self.path.with_name(aside + suffix))
        return aside


def _in_one_line(damage: _DamagedError) -> str:
    """What sqlite found may be a report of several lines; a sentence and a table want one."""
    return " ".join(str(damage).split())


_NOT_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
    }
)
"""Errors that say nothing against what the file contains: it must stay where it is."""


def _load(connection: sqlite3.Connection) -> Stored:
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if found and "meta" not in found:
        raise _DamagedError("it belongs to another program")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _DamagedError(verdict)
    if not found:
        _make_tables(connection)
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    if meta.get("format") != FORMAT:
        raise _DamagedError(f"format {meta.get('format')}, expected {FORMAT}")
    for statement in _LATER_TABLES:
        connection.execute(statement)
    decisions = connection.execute("SELECT id, record FROM decisions ORDER BY id")
    checked = connection.execute("SELECT service, endpoints FROM health")
    progress = connection.execute("SELECT service, progress FROM guard")
    states = connection.execute("SELECT name, state FROM services")
    rings = connection.execute("SELECT service, keys FROM rings")
    return Stored(
        revision=int(meta["revision"]),
        secret=meta.get("secret", ""),
        states={name: codec.from_plain(json.loads(state)) for name, state in states},
        rings={service: _ring(json.loads(keys)) for service, keys in rings},
        health={service: health.from_plain(service, json.loads(each)) for service, each in checked},
        guard={service: json.loads(each) for service, each in progress},
        decisions=tuple({"id": number} | json.loads(record) for number, record in decisions),
    )


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in _TABLES:
        connection.execute(statement)
    _put(connection, "meta", "format", FORMAT)
    _put(connection, "meta", "revision", "0")
    connection.execute("COMMIT")


def _execute(connection: sqlite3.Connection, change: Write) -> list[Record]:
    _put(connection, "meta", "revision", str(change.revision))
    if change.secret is not None:
        _put(connection, "meta", "secret", change.secret)
    _put_states(connection, change.states)
    _put_rings(connection, change.rings)
    return [_record(connection, record) for record in change.decisions]


def _put_states(connection: sqlite3.Connection, states: Mapping[str, ServiceState | None]) -> None:
    for name, state in states.items():
        _put(connection, "services", name, _json(codec.to_plain(state)) if state else None)


def _put_rings(connection: sqlite3.Connection, rings: Mapping[str, Ring | None]) -> None:
    for service, ring in rings.items():
        keys = _json([[each.key, each.until] for each in ring]) if ring else None
        _put(connection, "rings", service, keys)


def _put_health(
    connection: sqlite3.Connection, changed: Mapping[str, Mapping[Key, Checked] | None]
) -> None:
    for service, known in changed.items():
        _put(connection, "health", service, _json(health.to_plain(known)) if known else None)


_UPSERTS = {
    "meta": "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
    "services": "INSERT OR REPLACE INTO services (name, state) VALUES (?, ?)",
    "rings": "INSERT OR REPLACE INTO rings (service, keys) VALUES (?, ?)",
    "guard": "INSERT OR REPLACE INTO guard (service, progress) VALUES (?, ?)",
    "health": "INSERT OR REPLACE INTO health (service, endpoints) VALUES (?, ?)",
}
_DELETES = {
    "services": "DELETE FROM services WHERE name = ?",
    "rings": "DELETE FROM rings WHERE service = ?",
    "guard": "DELETE FROM guard WHERE service = ?",
    "health": "DELETE FROM health WHERE service = ?",
}


def _put(connection: sqlite3.Connection, table: str, key: str, value: str | None) -> None:
    """Set a row; None deletes it."""
    if value is None:
        connection.execute(_DELETES[table], (key,))
    else:
        connection.execute(_UPSERTS[table], (key, value))


def _record(connection: sqlite3.Connection, record: Record) -> Record:
    cursor = connection.execute("INSERT INTO decisions (record) VALUES (?)", (_json(record),))
    number = cursor.lastrowid or 0
    connection.execute("DELETE FROM decisions WHERE id <= ?", (number - KEPT_DECISIONS,))
    return {"id": number} | record


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _ring(keys: list[list[Any]]) -> Ring:
    return tuple(
        StickyKey(key=str(key), until=None if until is None else float(until))
        for key, until in keys
    )


def _merged(known: Mapping[str, V], changed: Mapping[str, V | None]) -> dict[str, V]:
    merged = {**known, **changed}
    return {name: value for name, value in merged.items() if value is not None}
