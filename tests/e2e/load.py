"""Steady load that forgives nothing: keep-alive clients, every answer timed and attributed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from tests.e2e.wire import Wire, WireError


@dataclass(frozen=True, slots=True)
class Seen:
    """One answered request; monotonic seconds."""

    client: int
    sent_s: float
    answered_s: float
    pool: str


class Load:
    """Clients that send one request after the other, each on its own connection.

    A client whose connection ends says so in `failures` and opens a new one. Use as
    `async with Load(port) as load:`; it stops at the end of the block.
    """

    def __init__(
        self, port: int, *, clients: int = 8, pause_s: float = 0.01, path: str = "/who"
    ) -> None:
        self._port = port
        self._pause_s = pause_s
        self._path = path
        self._stopping = False
        self._count = clients
        self._tasks: list[asyncio.Task[None]] = []
        self.seen: list[Seen] = []
        self.failures: list[tuple[int, float, str]] = []
        """Client, monotonic seconds, reason."""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._client(number)) for number in range(self._count)]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._stopping = True
        await asyncio.wait(self._tasks, timeout=30)
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def more(self, answers: int, timeout_s: float = 60.0) -> None:
        """Wait until so many more answers have come."""
        wanted = len(self.seen) + answers
        until = time.monotonic() + timeout_s
        while len(self.seen) < wanted:
            if time.monotonic() > until:
                missing = wanted - len(self.seen)
                raise TimeoutError(f"{missing} of {answers} answers missing; {self.failures[-3:]}")
            await asyncio.sleep(0.01)

    def shares(self, since_s: float = 0.0) -> dict[str, float]:
        """Percent of the answers to requests sent since then, by pool."""
        pools = Counter(seen.pool for seen in self.seen if seen.sent_s >= since_s)
        return {pool: 100 * count / pools.total() for pool, count in pools.items()}

    async def _client(self, number: int) -> None:
        while not self._stopping:
            try:
                async with await Wire.to(self._port) as wire:
                    while not self._stopping:
                        await self._one(wire, number)
            except (WireError, OSError) as error:
                self.failures.append((number, time.monotonic(), repr(error)))
                await asyncio.sleep(0.02)

    async def _one(self, wire: Wire, number: int) -> None:
        sent_s = time.monotonic()
        answer = await wire.request(self._path)
        now = time.monotonic()
        if answer.status != 200:
            self.failures.append((number, now, f"{answer.status} {answer.body[:300]!r}"))
        elif answer.closes:
            self.failures.append((number, now, "the answer announces the end of the connection"))
        else:
            self.seen.append(Seen(number, sent_s, now, answer.pool))
        await asyncio.sleep(self._pause_s)


async def requests(
    port: int, headers: Sequence[dict[str, str]], *, path: str = "/who", clients: int = 8
) -> list[tuple[str, str | None]]:
    """Send one request for each of `headers`; return pool and Set-Cookie of each answer, in order.

    The requests are dealt out over `clients` connections. Any failure raises.
    """
    results: list[tuple[str, str | None]] = [("", None)] * len(headers)

    async def client(first: int) -> None:
        async with await Wire.to(port) as wire:
            for index in range(first, len(headers), clients):
                answer = await wire.request(path, headers=headers[index])
                if answer.status != 200:
                    raise WireError(f"{answer.status} {answer.body[:300]!r}")
                results[index] = (answer.pool, answer.header("set-cookie"))

    async with asyncio.TaskGroup() as group:
        for number in range(min(clients, len(headers))):
            group.create_task(client(number))
    return results


async def pools(port: int, count: int, *, clients: int = 8, path: str = "/who") -> Counter[str]:
    """Count the pools that answer `count` requests without any cookie."""
    return Counter(
        pool for pool, _ in await requests(port, [{}] * count, clients=clients, path=path)
    )
