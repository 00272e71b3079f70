"""The pulse: a few times a second everybody who deals with passing facts gets a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from proxy.clock import Clock
from proxy.stats import Board

PERIOD_S = 0.1

Beat = Callable[[float], None]
"""Called with monotonic seconds; short, and never waiting for anything."""

log = structlog.get_logger("turnout.control")


class Pulse:
    """Calls every listener in the order they were added, then has the workers look at the board."""

    def __init__(self, board: Board, clock: Clock) -> None:
        self._board = board
        self._clock = clock
        self._beats: list[Beat] = []

    def add(self, beat: Beat) -> None:
        self._beats.append(beat)

    async def run(self) -> None:
        """Beat for ever; ends by being cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(PERIOD_S)

    def beat(self) -> None:
        """One beat; what fails in one listener is reported and keeps nobody else from theirs."""
        now = self._clock.monotonic()
        for beat in self._beats:
            try:
                beat(now)
            except Exception:
                log.exception("pulse_failed")
        self._board.publish()
