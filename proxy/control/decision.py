"""The durable record of one change: who, what, from, to, why, the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who changes something, why, and when (wall seconds)."""

    who: str
    reason: str = ""
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A change as the pure part sees it: plain JSON values, no id, no revision yet."""

    what: str
    who: str
    service: str | None = None
    before: Any = None
    after: Any = None
    why: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def record(self, *, at: float, revision: int, config: str = "") -> dict[str, Any]:
        """Return the stored shape; the store adds `id`."""
        return {
            "at": iso_utc(at),
            "service": self.service,
            "who": self.who,
            "what": self.what,
            "from": self.before,
            "to": self.after,
            "why": self.why,
            "numbers": dict(self.numbers),
            "revision": revision,
            "config": config,
        }


def iso_utc(wall_s: float) -> str:
    """`2026-01-31T12:00:00.123Z`."""
    moment = datetime.fromtimestamp(wall_s, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def because(sentence: str, reason: str) -> str:
    """Join what happened and the operator's own reason: `by hand: trying v42`."""
    return f"{sentence}: {reason}" if reason else sentence
