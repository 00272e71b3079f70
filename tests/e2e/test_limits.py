"""Limits hold over all workers together: connections, waiting requests, rate, concurrency."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import pytest

from proxy.tasks import spawn
from tests.dataplane.box import OK, Peer, Scripted, until
from tests.e2e.stage import Stage, Turnout, wait_until
from tests.e2e.wire import Wire, WireError

T = TypeVar("T")


class Counting:
    """An endpoint's script that counts its open connections and its requests at once."""

    def __init__(self, work_s: float = 0.005) -> None:
        self.work_s = work_s
        self.go = asyncio.Event()
        self.go.set()
        self.served = 0
        self.busy = 0
        self.most_busy = 0
        self.most_open = 0
        self._peers: set[Peer] = set()

    async def __call__(self, peer: Peer) -> None:
        self._peers.add(peer)
        self.most_open = max(self.most_open, sum(map(_is_open, self._peers)))
        try:
            while True:
                await peer.request()
                self.busy += 1
                self.most_busy = max(self.most_busy, self.busy)
                await asyncio.sleep(self.work_s)
                await self.go.wait()
                self.busy -= 1
                self.served += 1
                await peer.send(OK)
        finally:
            self._peers.discard(peer)


def _is_open(peer: Peer) -> bool:
    """Whether the other side has not closed it, also where our loop has yet to hear of that."""
    sock = peer.writer.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return False
    with socket.socket(fileno=os.dup(sock.fileno())) as same:
        try:
            return same.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


def task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start it; whoever awaits it hears of its failure."""
    return spawn(work, name="client", report=lambda *_: None)


@asynccontextmanager
async def endpoint(script: Counting) -> AsyncIterator[str]:
    scripted = Scripted(script)
    await scripted.start()
    try:
        yield scripted.address
    finally:
        script.go.set()
        await scripted.end()


async def begin(stage: Stage, address: str, **limits: Any) -> Turnout:
    """Two workers in front of the endpoint, with time for who waits: the machine may be busy."""
    limits = {"pending_timeout": "20s", **limits}
    return await asyncio.to_thread(stage.turnout, [address], [], workers=2, limits=limits)


async def statuses(turnout: Turnout, clients: int, requests: int) -> Counter[int]:
    """So many clients that each send so many requests, one after the other."""

    async def client() -> list[int]:
        async with await Wire.to(turnout.port) as wire:
            return [(await wire.request("/")).status for _ in range(requests)]

    answers = await asyncio.gather(*(client() for _ in range(clients)))
    return Counter(status for each in answers for status in each)


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_an_endpoint_never_sees_more_connections_than_the_limit(
    stage: Stage, limit: int
) -> None:
    script = Counting()
    async with endpoint(script) as address:
        turnout = await begin(stage, address, per_endpoint_connections=limit)
        for clients in (30, 3, 30):  # waiting in both workers, in one, in both
            assert await statuses(turnout, clients, 10) == {200: 10 * clients}
        assert script.most_open == limit


async def test_limits_hold_while_a_worker_dies(stage: Stage) -> None:
    script = Counting()
    async with endpoint(script) as address:
        turnout = await begin(stage, address, per_endpoint_connections=3)
        answered = Counter[int]()
        is_over = False

        async def client(number: int) -> None:
            while not is_over:
                try:
                    async with await Wire.to(turnout.port) as wire:
                        for _ in range(20):
                            answered[number] += (await wire.request("/")).status == 200
                except (WireError, ConnectionError):
                    continue  # it was with the worker that died

        clients = [task(client(number)) for number in range(12)]
        await until(lambda: script.served > 50, "traffic flows")
        victim, _ = await asyncio.to_thread(turnout.worker_pids)
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(
            wait_until,
            lambda: victim not in (pids := turnout.worker_pids()) and len(pids) == 2,
            "the worker is replaced",
        )
        before = dict(answered)
        await until(
            lambda: all(answered[number] > before.get(number, 0) + 5 for number in range(12)),
            "nobody starves",
        )
        is_over = True
        await asyncio.gather(*clients)
        assert script.most_open <= 3
        assert await statuses(turnout, 12, 5) == {200: 60}


async def test_more_than_may_wait_are_refused_and_the_others_served(stage: Stage) -> None:
    script = Counting()
    async with endpoint(script) as address, AsyncExitStack() as stack:
        turnout = await begin(
            stage,
            address,
            per_endpoint_connections=1,
            per_endpoint_pending=4,
        )
        script.go.clear()
        wires = [await stack.enter_async_context(await Wire.to(turnout.port)) for _ in range(20)]
        answers = [task(wire.request("/")) for wire in wires]
        await until(lambda: sum(each.done() for each in answers) >= 15, "most are refused")
        view = await asyncio.to_thread(turnout.service)
        (shown,) = view["pools"]["blue"]["endpoints"]
        assert shown["open"] == 1
        assert 2 <= shown["pending"] <= 4
        script.go.set()
        found = Counter([(await answer).status for answer in answers])
        assert found[200] + found[503] == 20
        assert 3 <= found[200] <= 5
        counted = await asyncio.to_thread(
            turnout.metric, "turnout_limited_total", service="shop", reason="pending"
        )
        assert counted == found[503]
        failures = turnout.metric("turnout_upstream_failures_total", service="shop")
        assert failures == 0, "that is nobody's failure"


async def test_a_rate_holds_over_all_workers_whatever_the_connections(stage: Stage) -> None:
    script = Counting(work_s=0.0)
    async with endpoint(script) as address:
        turnout = await begin(stage, address, rate=50, burst=10)
        await statuses(turnout, 16, 5)  # the burst is spent, and both workers are known
        before, began = script.served, time.monotonic()
        found: Counter[int] = Counter()
        while time.monotonic() - began < 4.0:
            found += await statuses(turnout, 16, 20)
        lasted = time.monotonic() - began
        passed = script.served - before
        assert passed <= 50 * lasted + 15
        assert passed >= 50 * lasted * 0.6 - 15, "what one worker has no use for is the other's"
        assert found[200] == passed
        assert set(found) == {200, 429}


async def test_a_concurrency_holds_over_all_workers(stage: Stage) -> None:
    script = Counting(work_s=0.02)
    async with endpoint(script) as address:
        turnout = await begin(stage, address, concurrency=6)
        found = await statuses(turnout, 30, 30)
        assert set(found) == {200, 503}
        assert 2 <= script.most_busy <= 6
        assert sum(found.values()) == 900
        wait_until(lambda: turnout.get("/v1/status")["applied"], "the proxy is well")
        assert await statuses(turnout, 2, 20) == {200: 40}, "and when there is room all pass"


async def test_a_limit_can_be_changed_while_it_is_in_use(stage: Stage) -> None:
    script = Counting()
    async with endpoint(script) as address:
        turnout = await begin(stage, address, per_endpoint_connections=8)
        assert await statuses(turnout, 20, 10) == {200: 200}
        assert 2 <= script.most_open <= 8
        turnout.config["services"]["shop"]["limits"] = {"per_endpoint_connections": 2}
        turnout.write(turnout.config)
        await asyncio.to_thread(turnout.reload)
        await until(lambda: sum(map(_is_open, script._peers)) <= 2, "the others are closed")
        script.most_open = 0
        assert await statuses(turnout, 20, 10) == {200: 200}
        assert script.most_open <= 2


async def test_what_a_pool_can_take_is_shown_where_it_is_being_found(stage: Stage) -> None:
    script = Counting()
    async with endpoint(script) as address:
        turnout = await begin(stage, address, adaptive="on")
        assert await statuses(turnout, 8, 20) == {200: 160}
        limit = await asyncio.to_thread(
            turnout.metric, "turnout_concurrency_limit", service="shop", pool="blue"
        )
        assert limit == 100
