"""The table of recorded ticks in the state store, bounded by time and by size."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

TABLES = (
    """CREATE TABLE IF NOT EXISTS ticks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        service TEXT NOT NULL,
        rollout INTEGER NOT NULL,
        at REAL NOT NULL,
        size INTEGER NOT NULL,
        data BLOB NOT NULL
    )""",
    # Also what the sums below are read from: the rows themselves are a thousand times as large.
    "CREATE UNIQUE INDEX IF NOT EXISTS ticks_once ON ticks (service, rollout, at, size)",
)
KEPT = 21_600
"""Of each service: six hours of a rollout."""
MOST_BYTES = 32 << 20
"""Of all services; the oldest give way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One tick of a rollout, as `tape` wrote it."""

    service: str
    rollout: int
    at: float
    """Wall seconds."""
    data: bytes


def put(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Keep some ticks, and forget the oldest ones beyond the bounds; the same row twice is one."""
    connection.executemany(
        "INSERT OR IGNORE INTO ticks (service, rollout, at, size, data) VALUES (?, ?, ?, ?, ?)",
        [(row.service, row.rollout, row.at, len(row.data), row.data) for row in rows],
    )
    for service in {row.service for row in rows}:
        connection.execute(
            "DELETE FROM ticks WHERE id IN"
            " (SELECT id FROM ticks WHERE service = ? ORDER BY id DESC LIMIT -1 OFFSET ?)",
            (service, KEPT),
        )
    (size,) = connection.execute("SELECT sum(size) FROM ticks").fetchone()
    if (size or 0) > MOST_BYTES:
        _forget(connection, size - MOST_BYTES * 9 // 10)


def _forget(connection: sqlite3.Connection, size: int) -> None:
    """Forget the oldest ticks of all services, so many bytes of them."""
    last = 0
    for number, each in connection.execute("SELECT id, size FROM ticks ORDER BY id"):
        last, size = number, size - each
        if size <= 0:
            break
    connection.execute("DELETE FROM ticks WHERE id <= ?", (last,))


def read(connection: sqlite3.Connection, service: str, since: float = 0.0) -> list[Row]:
    """A service's ticks from `since` (wall seconds) on, in the order in which they came."""
    found = connection.execute(
        "SELECT rollout, at, data FROM ticks WHERE service = ? AND at >= ? ORDER BY id",
        (service, since),
    )
    return [Row(service=service, rollout=rollout, at=at, data=data) for rollout, at, data in found]
