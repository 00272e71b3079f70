"""A control plane in a box: a real controller, store and file; a fleet that does as it is told."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.clock import ManualClock
from proxy.control.config.load import load_file
from proxy.control.controller import Controller
from proxy.control.decision import Author
from proxy.control.drains import DrainRules
from proxy.control.filling import Filling, Member
from proxy.control.fleet import InFlight, Sample, WorkerState
from proxy.control.prober import CheckSettings, Result
from proxy.control.state import Declared, ServiceState
from proxy.model import Pool, Snapshot
from proxy.policy.health import Outcome
from proxy.stats import (
    BLOCK_WORDS,
    E_IN_FLIGHT,
    E_UNREACHABLE_MS,
    J_ERRORS,
    J_LATENCIES,
    J_LOG_SQUARES,
    J_LOG_SUMS,
    J_REFUSED,
    J_REQUESTS,
    J_UNTIMED,
    JUDGE_BUCKETS,
    P_CUT,
    P_IN_FLIGHT,
    P_JUDGED,
    W_HEARTBEAT_MS,
    Board,
    CounterBlock,
    SlotTable,
    Totals,
)
from proxy.tasks import Report

BLUE = ("127.0.0.1:9001", "127.0.0.1:9002")
GREEN = ("127.0.0.1:9101",)
USUAL_BIN = 40
"""Of the histogram of latencies, where all that went well ends up."""
Two = tuple[int, int]
"""Requests, and how many of them failed."""

CONFIG = """\
listeners:
  - bind: 127.0.0.1:8080
state: "{state}"
services:
  shop:
    routes: [{{path: /}}]
    pools:
      blue: {{endpoints: ["127.0.0.1:9001", "127.0.0.1:9002"], release: v41}}
      green: {{endpoints: ["127.0.0.1:9101"], release: v42}}
    active: blue
    drain: {{requests: 30s, streams: 5m, spread: 10s}}
"""


Until = Callable[[Callable[[], object]], Awaitable[None]]


async def wait_until(condition: Callable[[], object]) -> None:
    """Wait for what will be so soon; TimeoutError after thirty seconds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  (counters and files set no event)
            await asyncio.sleep(0.01)


def print_failure(name: str, error: BaseException) -> None:
    """For tasks of tests: pytest shows it beside the failure it leads to."""
    sys.stderr.write(f"{name} failed: {error!r}\n")


@pytest.fixture
def until() -> Until:
    return wait_until


@pytest.fixture
def report() -> Report:
    return print_failure


class FakeFleet:
    """Two workers whose counters are real memory, and who apply what they are given."""

    def __init__(self) -> None:
        self.totals = Totals()
        self.applied: list[Snapshot] = []
        self.bind_problems: list[str] = []
        self.items: list[InFlight] = []
        self.failures: dict[str, list[Sample]] = {}
        self.kept_binds: list[int] = []
        self.warmed: list[tuple[str, str, int]] = []
        self.warm_error: Exception | None = None
        self.apply_error: Exception | None = None
        self.before_apply: Callable[[], Awaitable[None]] | None = None
        self.blocks = [_block(name) for name in ("first", "second")]
        for number, block in enumerate(self.blocks):
            self.totals.add(number, block.words, number)
        self._board = _block("board")
        self.board = Board(self._board.words, len(self.blocks))

    def keep_binds(self, snapshot: Snapshot) -> None:
        self.kept_binds.append(snapshot.revision)

    async def warm(self, service: str, pool: str) -> None:
        self.warmed.append((service, pool, self.applied[-1].revision))
        if self.warm_error:
            raise self.warm_error

    def check_binds(self, snapshot: Snapshot) -> list[str]:
        assert snapshot.listeners
        return self.bind_problems

    async def apply(self, snapshot: Snapshot) -> None:
        if self.before_apply:
            await self.before_apply()
        if self.apply_error:
            raise self.apply_error
        assert not self.applied or snapshot.revision >= self.applied[-1].revision
        self.applied.append(snapshot)

    async def in_flight(self, service: str, pool: str | None, limit: int) -> list[InFlight]:
        assert service
        return [each for each in self.items if pool in {None, each.pool}][:limit]

    async def samples(self, service: str, pool: str, limit: int) -> list[Sample]:
        assert service
        return self.failures.get(pool, [])[:limit]

    def workers(self) -> list[WorkerState]:
        revision = self.applied[-1].revision if self.applied else 0
        return [
            WorkerState(
                slot=slot, pid=100 + slot, revision=revision, up=True, started_at=1e9, restarts=0
            )
            for slot in range(len(self.blocks))
        ]

    @property
    def snapshot(self) -> Snapshot:
        return self.applied[-1]

    def pool(self, name: str, service: str = "shop") -> Pool:
        (found,) = (each for each in self.snapshot.services if each.name == service)
        (pool,) = (each for each in found.pools if each.name == name)
        return pool

    def set_in_flight(self, pool: str, *counts: int, worker: int = 0) -> None:
        slot = self.pool(pool).slot
        for index, count in enumerate(counts):
            self.blocks[worker].words[slot + P_IN_FLIGHT + index] = count

    def set_cut(self, pool: str, *counts: int) -> None:
        slot = self.pool(pool).slot
        for index, count in enumerate(counts):
            self.blocks[0].words[slot + P_CUT + index] = count

    def set_endpoint_in_flight(self, pool: str, address: str, count: int) -> None:
        self.set_endpoint_in_flight_of("shop", pool, address, count)

    def set_endpoint_in_flight_of(self, service: str, pool: str, address: str, count: int) -> None:
        listed = self.pool(pool, service).endpoints
        (endpoint,) = (each for each in listed if each.address == address)
        self.blocks[1].words[endpoint.slot + E_IN_FLIGHT] = count

    def set_unreachable_until(self, pool: str, address: str, *until_ms: int) -> None:
        (endpoint,) = (each for each in self.pool(pool).endpoints if each.address == address)
        for block, until in zip(self.blocks, until_ms, strict=True):
            block.words[endpoint.slot + E_UNREACHABLE_MS] = until

    def beat(self, now: float) -> None:
        """Both workers report that they live."""
        for block in self.blocks:
            block.words[W_HEARTBEAT_MS] = int(now * 1000.0)

    def refused(self, pool: str, count: int) -> None:
        """So many of the attempts to come are answered with a 4xx."""
        words, slot = self.blocks[0].words, self.pool(pool).slot + P_JUDGED
        for number in range(count):
            words[slot + J_REFUSED + number % JUDGE_BUCKETS] += 1

    def judged(self, pool: str, requests: int, errors: int = 0, *, worker: int = 0) -> None:
        """First attempts on a pool that have ended, of as many clients as can be told apart."""
        words, slot = self.blocks[worker].words, self.pool(pool).slot + P_JUDGED
        for number in range(requests):
            bucket = number % JUDGE_BUCKETS
            words[slot + J_REQUESTS + bucket] += 1
            if number < errors:
                words[slot + J_ERRORS + bucket] += 1
                words[slot + J_UNTIMED + bucket] += 1
            else:
                words[slot + J_LOG_SUMS + bucket] += USUAL_BIN
                words[slot + J_LOG_SQUARES + bucket] += USUAL_BIN * USUAL_BIN
                words[slot + J_LATENCIES + USUAL_BIN] += 1

    def lose(self, worker: int) -> None:
        """A worker dies, and another one takes its place with counters of its own."""
        self.totals.retire(worker)
        self.blocks.append(_block(f"instead of {worker}"))
        self.blocks[worker], self.blocks[-1] = self.blocks[-1], self.blocks[worker]
        self.totals.add((worker, "again"), self.blocks[worker].words, worker)

    def close(self) -> None:
        for block in (*self.blocks, self._board):
            block.close()


class Probes:
    """Which endpoints do not answer, and why."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.asked: list[str] = []

    async def __call__(self, address: str) -> str | None:
        self.asked.append(address)
        return self.problems.get(address)


class Checks:
    """A prober: which endpoints fail their checks, with which words."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.asked: list[str] = []

    async def check(self, address: str, settings: CheckSettings) -> Result:
        assert settings.path
        self.asked.append(address)
        await asyncio.sleep(0)
        words = self.problems.get(address)
        return Result(outcome=Outcome(is_pass=words is None), words=words or "200 in 1 ms")

    async def close(self) -> None:
        """Nothing is open."""


class World:
    """Everything around a controller; `start` and `restart` give a running one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "turnout.yaml"
        self.state = directory / "state"
        self.clock = ManualClock()
        self.fleet = FakeFleet()
        self.probes = Probes()
        self.checks = Checks()
        self.environ: dict[str, str] = {}
        self.controller: Controller | None = None
        self.write(CONFIG.format(state=self.state))

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def edit(self, *changes: tuple[str, str]) -> None:
        text = self.path.read_text()
        for old, new in changes:
            assert old in text, f"{old!r} is not in the configuration"
            text = text.replace(old, new)
        self.write(text)

    async def start(self, *, watch_file: bool = False) -> Controller:
        controller = self.make(watch_file=watch_file)
        await controller.start()
        return controller

    def make(self, *, watch_file: bool = False) -> Controller:
        loaded = load_file(str(self.path), self.environ)
        self.controller = Controller(
            loaded,
            self.fleet,
            SlotTable(len(self.fleet.blocks)),
            environ=self.environ,
            clock=self.clock,
            rng=random.Random(1),
            probe=self.probes,
            prober=self.checks,
            watch_file=watch_file,
        )
        return self.controller

    async def restart(self) -> Controller:
        """Another supervisor with other workers, on the same state."""
        await self.stop()
        self.fleet.close()
        self.fleet = FakeFleet()
        return await self.start()

    async def stop(self) -> None:
        if self.controller:
            await self.controller.stop()
            self.controller = None

    async def tick(self, seconds: int = 1, *, green: Two = (0, 0), blue: Two = (0, 0)) -> None:
        """So many seconds with so much traffic on each pool, and the guard's look after each."""
        assert self.controller
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.fleet.beat(self.clock.monotonic())
            for pool, (requests, errors) in (("green", green), ("blue", blue)):
                self.fleet.judged(pool, requests, errors)
            await self.controller.rollouts.clerk.tick("shop")

    def view(self, key: str) -> Any:
        """A field of the service as it is shown."""
        assert self.controller
        return self.controller.service("shop")[key]

    @property
    def phase(self) -> str:
        return str(self.view("rollout")["phase"])

    def in_force(self) -> dict[str, int]:
        """The pools' weights as the workers have them, hundredths of a percent."""
        return {name: self.fleet.pool(name).weight for name in ("blue", "green")}

    def whats(self, service: str | None = None) -> list[str]:
        assert self.controller
        return [each["what"] for each in self.controller.decisions(service, 0, 1000)]

    def last(self, what: str) -> dict[str, Any]:
        """The newest decision of that kind."""
        assert self.controller
        records = self.controller.decisions(None, 0, 1000)
        return [each for each in records if each["what"] == what][-1]


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("proxy.control.guard.clerk.TICK_S", 3600.0)  # see `World.tick`
    world = World(tmp_path)
    yield world
    await world.stop()
    world.fleet.close()


def declared(
    *,
    active: str = "blue",
    weights: dict[str, int] | None = None,
    blue: tuple[str, ...] = BLUE,
    green: tuple[str, ...] | None = GREEN,
) -> Declared:
    """What a file says; `green=None` for a file without that pool."""
    addresses = {"blue": blue} if green is None else {"blue": blue, "green": green}
    return Declared(
        active=active,
        shares=weights or {pool: 10_000 * (pool == active) for pool in addresses},
        has_weights=weights is not None,
        fillings={
            pool: Filling(members=tuple(Member(address=each) for each in listed))
            for pool, listed in addresses.items()
        },
    )


@pytest.fixture(name="declared")
def declared_fixture() -> Callable[..., Declared]:
    return declared


@pytest.fixture
def shop() -> ServiceState:
    return ServiceState(name="shop", file=declared())


@pytest.fixture
def ann() -> Author:
    return Author(who="ann", reason="v42 looks good", at=1000.0)


@pytest.fixture
def rules() -> DrainRules:
    return DrainRules(requests_s=30.0, streams_s=300.0, spread_s=10.0)


@pytest.fixture
def block() -> Iterator[CounterBlock]:
    made = _block("test")
    yield made
    made.close()


def _block(name: str) -> CounterBlock:
    fd = os.memfd_create(name)
    try:
        os.ftruncate(fd, BLOCK_WORDS * 8)
        return CounterBlock(fd)
    finally:
        os.close(fd)
