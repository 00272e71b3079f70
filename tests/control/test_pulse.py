"""The pulse that gives everybody a turn."""

from __future__ import annotations

import asyncio

from proxy.clock import ManualClock
from proxy.control.pulse import Pulse
from proxy.stats import B_VERSION, DOWN, Board
from proxy.tasks import spawn


def _board() -> Board:
    return Board(memoryview(bytearray(8 * 100)).cast("q"), 1)


def test_a_listener_that_fails_keeps_nobody_from_their_turn() -> None:
    clock, board = ManualClock(monotonic=5.0), _board()
    heard: list[float] = []

    def failing(_: float) -> None:
        raise ValueError

    pulse = Pulse(board, clock)
    pulse.add(failing)
    pulse.add(heard.append)
    pulse.beat()
    assert heard == [5.0]


def test_what_a_beat_has_marked_is_published() -> None:
    board = _board()
    pulse = Pulse(board, ManualClock())

    def failed(_: float) -> None:
        board.mark(40, DOWN, on=True)

    pulse.add(failed)
    pulse.beat()
    pulse.beat()
    assert board.words[B_VERSION] == 1


async def test_it_beats_until_it_is_cancelled() -> None:
    beats = asyncio.Event()
    pulse = Pulse(_board(), ManualClock())
    pulse.add(lambda _: beats.set())
    running = spawn(pulse.run(), name="pulse", report=lambda *_: None)
    async with asyncio.timeout(20):
        await beats.wait()
        beats.clear()
        await beats.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
