"""Which workers have stopped beating: counted in looks, not in seconds.

A machine that was suspended, or so loaded that the supervisor itself did not run, makes every
heartbeat old; but then the supervisor has not looked either, and nobody is found late.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

LOOK_EVERY_S = 1.0
PATIENCE = 10
"""Looks at an unmoved heartbeat until its worker is stuck; it beats ten times between two looks."""
PATIENCE_AT_START = 30
"""The same before the first beat: the interpreter has to start, and the first snapshot to come."""

Worker = TypeVar("Worker", bound=Hashable)


class Heartbeats(Generic[Worker]):
    """Remembers the last beat of each worker, and how often it was found unmoved."""

    def __init__(self) -> None:
        self._seen: dict[Worker, tuple[int, int]] = {}

    def look(self, beats: Mapping[Worker, int]) -> list[Worker]:
        """Take one look at all living workers; returns those that are stuck."""
        before, self._seen = self._seen, {}
        stuck = []
        for worker, beat in beats.items():
            last, unmoved = before.get(worker, (beat, -1))
            unmoved = unmoved + 1 if beat == last else 0
            self._seen[worker] = beat, unmoved
            if unmoved >= (PATIENCE if beat else PATIENCE_AT_START):
                stuck.append(worker)
        return stuck
