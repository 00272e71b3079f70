"""A coarse clock and its sweep: deadlines without a timer per request.

Connections note the coarse time when something moves; the sweep, a few times a
second, asks each of them whether it has waited too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.clock import Clock

PERIOD_S = 0.1


class CoarseClock:
    """Monotonic and wall seconds as of the last tick: an attribute, not a call."""

    __slots__ = ("_clock", "now", "wall")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.tick()

    def tick(self) -> None:
        self.now = self._clock.monotonic()
        self.wall = self._clock.wall()


class Sweeper:
    """Ticks the clock every PERIOD_S and calls `sweep(now)`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: CoarseClock, sweep: Callable[[float], None]
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._sweep = sweep
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._handle = self._loop.call_later(PERIOD_S, self._tick)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _tick(self) -> None:
        self._handle = self._loop.call_later(PERIOD_S, self._tick)
        self._clock.tick()
        self._sweep(self._clock.now)
