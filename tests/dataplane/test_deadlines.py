"""The coarse clock and its sweep."""

from __future__ import annotations

import asyncio

from proxy.clock import ManualClock
from proxy.dataplane.deadlines import PERIOD_S, CoarseClock, Sweeper


def test_the_coarse_clock_stands_still_between_ticks() -> None:
    clock = ManualClock(10.0, 1000.0)
    coarse = CoarseClock(clock)
    clock.advance(5)
    assert (coarse.now, coarse.wall) == (10.0, 1000.0)
    coarse.tick()
    assert (coarse.now, coarse.wall) == (15.0, 1005.0)


async def test_the_sweep_is_called_with_the_ticked_time_until_it_is_stopped() -> None:
    clock = ManualClock(10.0)
    seen: list[float] = []
    swept = asyncio.Event()

    def sweep(now: float) -> None:
        seen.append(now)
        clock.advance(1)
        swept.set()

    sweeper = Sweeper(asyncio.get_running_loop(), CoarseClock(clock), sweep)
    sweeper.start()
    while len(seen) < 3:
        swept.clear()
        async with asyncio.timeout(20):
            await swept.wait()
    sweeper.stop()
    sweeper.stop()
    await asyncio.sleep(PERIOD_S * 2)
    assert seen == [10.0, 11.0, 12.0]


async def test_a_sweep_that_fails_is_followed_by_the_next() -> None:
    loop = asyncio.get_running_loop()
    problems: list[object] = []
    loop.set_exception_handler(lambda _, facts: problems.append(facts))
    count = 0
    done = asyncio.Event()

    def sweep(_: float) -> None:
        nonlocal count
        count += 1
        if count == 1:
            raise ValueError
        done.set()

    sweeper = Sweeper(loop, CoarseClock(ManualClock()), sweep)
    sweeper.start()
    async with asyncio.timeout(20):
        await done.wait()
    sweeper.stop()
    assert len(problems) == 1
