"""Checks on the loop's own time, answered by a prober that does as it is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxy.clock import ManualClock
from proxy.control import checkup as checkups
from proxy.control.checkup import Checkup
from proxy.control.config.load import load_text
from proxy.control.health import HealthBook
from proxy.control.prober import CheckSettings, Result
from proxy.control.reload import Circumstances, adopt
from proxy.control.setup import Setup
from proxy.control.slots import SlotBook
from proxy.control.store import Store
from proxy.policy.health import Outcome
from proxy.stats import Board, SlotTable

if TYPE_CHECKING:
    from tests.control.conftest import Until

FILE = """
listeners: [{bind: "127.0.0.1:8080"}]
services:
  shop:
    routes: [{path: /}]
    pools: {blue: {endpoints: [ENDPOINTS]}}
    active: blue
    health: HEALTH
"""
FAST = "{interval: 50ms, timeout: 1s, rise: 2, fall: 2}"
SLOW = "{interval: 1h, timeout: 1s}"
ONE, TWO = "127.0.0.1:9001", "127.0.0.1:9002"


class Told:
    """A prober whose answers are set; it remembers who was asked, and when."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.hanging: set[str] = set()
        self.broken: set[str] = set()
        self.asked: list[tuple[str, CheckSettings]] = []
        self.most = self.now = 0
        self.is_closed = False

    async def check(self, address: str, settings: CheckSettings) -> Result:
        self.asked.append((address, settings))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0)
            if address in self.broken:
                raise RuntimeError("a bug")
            if address in self.hanging:
                await asyncio.Event().wait()
        finally:
            self.now -= 1
        return Result(outcome=Outcome(is_pass=address not in self.failing), words="said")

    async def close(self) -> None:
        self.is_closed = True

    def times(self, address: str) -> int:
        return sum(asked == address for asked, _ in self.asked)


class Bench:
    def __init__(self, directory: Path) -> None:
        self.store = Store(directory / "state")
        board = Board(memoryview(bytearray(8 * 50_000)).cast("q"), 1)
        self.book = HealthBook(board, SlotBook(SlotTable()), ManualClock())
        self.prober = Told()
        self.checkup = Checkup(self.book, self.prober, self.store, random.Random(1))
        self._setup: Setup | None = None

    def list(self, *addresses: str, health: str = FAST) -> None:
        """Have these endpoints be those of the service."""
        listed = ", ".join(f'"{each}"' for each in addresses)
        loaded = load_text(FILE.replace("ENDPOINTS", listed).replace("HEALTH", health), "t", {})
        around = Circumstances(now=1000.0, draw_offset=lambda: 0, secret="s")
        setup = self._setup or Setup(loaded=loaded)
        self._setup = adopt(setup, loaded, around).setup
        self.checkup.follow(self._setup)

    def verdict(self, address: str) -> str:
        return self.book["shop", "blue", address].health.verdict


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    await made.store.open()
    yield made
    await made.checkup.stop()
    await made.store.close()
    assert made.prober.is_closed
    assert made.prober.now == made.checkup.in_flight == 0


async def test_a_new_endpoint_is_checked_at_once_however_long_the_interval(bench: Bench) -> None:
    bench.list(ONE, TWO, health=SLOW)
    await bench.checkup.first_round()
    assert (bench.verdict(ONE), bench.verdict(TWO)) == ("up", "up")
    assert len(bench.prober.asked) == 2
    assert not bench.book.is_starting


async def test_until_its_first_pass_it_is_asked_again_soon(bench: Bench, until: Until) -> None:
    bench.prober.failing.add(ONE)
    bench.list(ONE, health=SLOW)
    await until(lambda: bench.prober.times(ONE) >= 3)
    assert bench.verdict(ONE) == "unchecked"
    bench.prober.failing.clear()
    await until(lambda: bench.verdict(ONE) == "up")


async def test_a_first_round_does_not_wait_longer_than_the_checks_may_take(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkups, "GRACE_S", 0.05)
    bench.prober.hanging.add(ONE)
    bench.list(ONE, TWO, health="{interval: 1h, timeout: 100ms}")
    async with asyncio.timeout(20):
        await bench.checkup.first_round()
    assert (bench.verdict(ONE), bench.verdict(TWO)) == ("unchecked", "up")


async def test_checks_go_on_at_the_interval_and_change_the_verdict(
    bench: Bench, until: Until
) -> None:
    bench.list(ONE, TWO)
    await until(lambda: bench.verdict(ONE) == bench.verdict(TWO) == "up")
    bench.prober.failing.add(ONE)
    await until(lambda: bench.verdict(ONE) == "down")
    assert bench.verdict(TWO) == "up"
    bench.prober.failing.clear()
    await until(lambda: bench.verdict(ONE) == "up")


async def test_who_is_not_listed_any_more_is_not_checked_any_more(
    bench: Bench, until: Until
) -> None:
    bench.prober.hanging.add(ONE)
    bench.list(ONE, TWO)
    await until(lambda: bench.prober.times(ONE) == 1)
    bench.list(TWO)
    await until(lambda: bench.prober.now == 0 or bench.prober.times(TWO) > 3)
    times = bench.prober.times(TWO)
    await until(lambda: bench.prober.times(TWO) > times + 2)
    assert bench.prober.times(ONE) == 1


async def test_other_settings_are_in_force_at_once(bench: Bench, until: Until) -> None:
    bench.list(ONE, health=SLOW)
    await bench.checkup.first_round()
    bench.list(ONE, health="{interval: 1h, path: /other}")
    await until(lambda: bench.prober.times(ONE) == 2)
    assert bench.prober.asked[-1][1].path == "/other"
    bench.list(ONE, TWO, health="{interval: 1h, path: /other}")
    await until(lambda: bench.prober.times(TWO) == 1)
    assert bench.prober.times(ONE) == 2, "nothing changed for that one"


async def test_only_so_many_checks_are_in_flight_at_once(
    bench: Bench,
) -> None:
    bench.checkup._slots = asyncio.Semaphore(3)
    addresses = [f"127.0.0.1:{port}" for port in range(9001, 9041)]
    bench.list(*addresses, health=SLOW)
    await bench.checkup.first_round()
    assert {bench.verdict(each) for each in addresses} == {"up"}
    assert bench.prober.most == 3


async def test_who_is_not_up_is_asked_again_for_a_switch(bench: Bench) -> None:
    bench.prober.failing.add(ONE)
    bench.list(ONE, TWO, health=SLOW)
    await bench.checkup.first_round()
    bench.prober.failing.clear()
    times = bench.prober.times(TWO)
    await bench.checkup.ask_again("shop", "blue")
    assert bench.verdict(ONE) == "up"
    assert bench.prober.times(TWO) == times
    await bench.checkup.ask_again("shop", "green")


async def test_a_prober_that_fails_itself_is_asked_again(bench: Bench, until: Until) -> None:
    bench.prober.broken.add(ONE)
    bench.list(ONE)
    await until(lambda: bench.prober.times(ONE) >= 2)
    bench.prober.broken.clear()
    await until(lambda: bench.verdict(ONE) == "up")


async def test_verdicts_are_stored_and_those_of_the_gone_removed(
    bench: Bench, tmp_path: Path
) -> None:
    bench.list(ONE, health=SLOW)
    await bench.checkup.first_round()
    await bench.checkup.stop()
    other = Store(tmp_path / "state")
    stored = await other.open()
    assert stored.health["shop"]["shop", "blue", ONE].health.verdict == "up"
    bench.list(ONE, health="off")
    await bench.checkup.stop()
    await other.close()
    assert (await other.open()).health == {}
    await other.close()


async def test_a_store_that_is_full_loses_no_verdict(
    bench: Bench, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkups, "SAVE_S", 0.01)
    await bench.store.close()
    bench.list(ONE, health=SLOW)
    await bench.checkup.first_round()
    await until(lambda: bench.book.has_unsaved)
    await bench.store.open()
    await until(lambda: not bench.book.has_unsaved)


def test_intervals_are_jittered_and_never_longer_than_said(tmp_path: Path) -> None:
    async def waits() -> list[float]:
        bench = Bench(tmp_path)
        each = checkups._Round(replace(CheckSettings(), interval_s=10.0))
        bench.book.follow({("shop", "blue", ONE): each.settings})
        bench.book.note(("shop", "blue", ONE), Result(outcome=Outcome(is_pass=True), words=""))
        each.began = asyncio.get_running_loop().time()
        return [bench.checkup._until_next(("shop", "blue", ONE), each) for _ in range(200)]

    found = asyncio.run(waits())
    assert 7.9 < min(found) < 8.5
    assert 9.5 < max(found) <= 10.0
