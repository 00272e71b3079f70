"""Steady load on several proxies at once, in a process of its own: the same requests for each.

Usage: load.py OPTIONS (JSON, see Options); runs until stdin ends, then prints what it
has seen as JSON. Clients are paced: each sends its next request when it is due, but
never before it has the answer to the last one. So a proxy that hangs gets fewer.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import uvloop

from tests.e2e.wire import Answer, TruncatedError, Wire, WireError

PATIENCE_S = 10.0
"""What a client waits for an answer; longer than any timeout of the proxies."""
BODY = b"x" * 200
BROKEN_OFF = "broken off"
"""In the middle of its answer."""


@dataclass(frozen=True, slots=True)
class Options:
    targets: dict[str, int]
    """The proxies' ports by their names."""
    rate: float
    """Requests a second to each of them."""
    clients: int
    seed: int
    posts: float = 0.1
    """Share of POSTs; the others are GETs."""
    fresh: float = 0.3
    """Share of requests on a connection of their own."""
    report_every_s: float = 0.0
    """A line on stderr as often; 0 = none."""


@dataclass(slots=True)
class Tally:
    """What the clients of one proxy have seen."""

    gets: int = 0
    posts: int = 0
    latencies_s: array[float] = field(default_factory=lambda: array("f"))
    """Of answered requests."""
    failures: list[tuple[float, str, str]] = field(default_factory=list)
    """Monotonic seconds, method, what happened."""

    def count(self, method: str) -> None:
        if method == "GET":
            self.gets += 1
        else:
            self.posts += 1

    def as_dict(self) -> dict[str, Any]:
        ordered = sorted(self.latencies_s) or [0.0]
        return {
            "gets": self.gets,
            "posts": self.posts,
            "failures": self.failures,
            "worst_s": ordered[-1],
            "p99_s": ordered[int(0.99 * (len(ordered) - 1))],
        }


class Client:
    """One client of one proxy: most requests on a kept connection, some on one of their own."""

    def __init__(self, name: str, number: int, options: Options, tally: Tally) -> None:
        self._name = name
        self._number = number
        self._port = options.targets[name]
        self._options = options
        self._draw = random.Random(f"{options.seed} {number}")  # the same for each proxy
        self._tally = tally
        self._kept: Wire | None = None
        self._posts = 0

    async def run(self, stopped: asyncio.Event) -> None:
        pace_s = self._options.clients / self._options.rate
        due_s = time.monotonic() + pace_s * self._draw.random()
        while not stopped.is_set():
            await asyncio.sleep(due_s - time.monotonic())
            await self._one()
            due_s = max(due_s + pace_s, time.monotonic())
        if self._kept is not None:
            self._kept.close()

    async def _one(self) -> None:
        method = "POST" if self._draw.random() < self._options.posts else "GET"
        is_fresh = self._draw.random() < self._options.fresh
        began_s = time.monotonic()
        self._tally.count(method)
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._ask(method, is_fresh=is_fresh)
        except (WireError, TimeoutError, OSError) as error:
            self._fail(method, _failure(error))
            return
        self._tally.latencies_s.append(time.monotonic() - began_s)
        if answer.status != 200:
            self._fail(method, str(answer.status))
        elif b'"endpoint": ' not in answer.body:
            self._fail(method, "a wrong answer")

    def _fail(self, method: str, what: str) -> None:
        self._tally.failures.append((time.monotonic(), method, what))

    async def _ask(self, method: str, *, is_fresh: bool) -> Answer:
        wire, self._kept = (None, self._kept) if is_fresh else (self._kept, None)
        if wire is not None and wire.has_ended:
            wire.close()
            wire = None
        if wire is None:
            wire = await Wire.to(self._port)
        try:
            answer = await wire.request(self._path(method), method=method, body=_body(method))
        except BaseException:
            wire.close()
            raise
        if is_fresh or answer.closes:
            wire.close()
        else:
            self._kept = wire
        return answer

    def _path(self, method: str) -> str:
        if method == "GET":
            return "/item"
        self._posts += 1
        return f"/order?id={self._name}-{self._number}-{self._posts}"


def _body(method: str) -> bytes | None:
    return BODY if method == "POST" else None


def _failure(error: Exception) -> str:
    if isinstance(error, TruncatedError):
        return BROKEN_OFF
    if isinstance(error, WireError):
        return "closed unanswered"
    if isinstance(error, TimeoutError):
        return f"no answer in {PATIENCE_S:g} s"
    return "not connected"


async def _report(tallies: dict[str, Tally], every_s: float) -> None:
    """Say in a line what each stretch of time has brought."""
    before = dict.fromkeys(tallies, (0, 0))
    began_s = time.monotonic()
    while True:
        await asyncio.sleep(every_s)
        parts = []
        for name, tally in tallies.items():
            answered, failed = before[name]
            before[name] = len(tally.latencies_s), len(tally.failures)
            kinds = Counter(f"{method} {what}" for _, method, what in tally.failures[failed:])
            worst_s = max(tally.latencies_s[answered:], default=0.0)
            said = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "all well"
            parts.append(
                f"{name}: {len(tally.latencies_s) - answered} answers, worst {worst_s:.2f} s, {said}"
            )
        print(f"{time.monotonic() - began_s:5.0f} s  " + " | ".join(parts), file=sys.stderr)  # noqa: T201


async def run(options: Options, stopped: asyncio.Event) -> dict[str, Tally]:
    """Load the proxies until told to stop; return what each one's clients have seen."""
    tallies = {name: Tally() for name in options.targets}
    loop = asyncio.get_running_loop()
    every_s = options.report_every_s
    reports = loop.create_task(_report(tallies, every_s)) if every_s else None
    clients = [
        Client(name, number, options, tally)
        for name, tally in tallies.items()
        for number in range(options.clients)
    ]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run(stopped))
    if reports is not None:
        reports.cancel()
    return tallies


async def _main(options: Options) -> dict[str, Tally]:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stopped.set)  # readable at its end
    return await run(options, stopped)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run(_main(Options(**json.loads(sys.argv[1]))))
    sys.stdout.write(json.dumps({name: tally.as_dict() for name, tally in seen.items()}))
