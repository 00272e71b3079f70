"""Fixtures of the process layer's tests: real workers, and a small endpoint for them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from proxy import stats
from proxy.model import WHOLE, Endpoint, Listener, Pool, Route, Service, Snapshot
from proxy.process import workforce
from proxy.process.workforce import Workforce
from proxy.stats import SlotTable
from tests.ports import free_port


async def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 40.0) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - processes set no event
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s:g} s: {what}") from None


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/silent" in head:
                await reader.read()
                break
            if b"/broken" in head:
                break
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
    writer.close()


class Crew:
    """A workforce of two, what it serves, and the pids to be cleaned up."""

    def __init__(self) -> None:
        self.slots = SlotTable()
        self.force = Workforce(2, self.slots)
        self.pids: set[int] = set()
        self.revision = 0
        self.port = free_port()
        self.endpoint = ""

    def snapshot(self) -> Snapshot:
        self.revision += 1
        slot = self.slots.slot("endpoint", stats.ENDPOINT_WORDS)
        blue = Pool(
            name="blue",
            weight=WHOLE,
            endpoints=(Endpoint(address=self.endpoint, slot=slot),),
            slot=self.slots.slot("pool", stats.POOL_WORDS),
        )
        listener = Listener(
            bind=f"127.0.0.1:{self.port}",
            slot=self.slots.slot("listener", stats.LISTENER_WORDS),
        )
        service = Service(name="shop", routes=(Route(),), pools=(blue,), active="blue")
        return Snapshot(revision=self.revision, listeners=(listener,), services=(service,))

    async def start(self) -> None:
        await self.force.start()
        await self.force.apply(self.snapshot())
        self.note()

    def note(self) -> list[int]:
        """The pids of the workers as they are now."""
        pids = [worker.pid for worker in self.force.workers()]
        # A worker that was never started has no pid: a signal to 0 goes to our whole process group.
        self.pids.update(pid for pid in pids if pid)
        return pids

    def up(self) -> int:
        self.note()
        return sum(worker.up for worker in self.force.workers())

    async def get(self, path: str = "/") -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(30):
                writer.write(
                    b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path.encode()
                )
                return await reader.read()
        finally:
            writer.transport.abort()

    def answered(self) -> int:
        slot = self.slots.slot("pool", stats.POOL_WORDS)
        return self.force.totals.counter(slot + stats.P_ANSWERS + 2)

    async def end(self) -> None:
        self.note()
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        await self.force.stop(0.2)


@pytest.fixture
async def crew(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Crew]:
    monkeypatch.setattr(workforce, "ASK_S", 20.0)  # who is left out of an answer has to be stuck
    made = Crew()
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    made.endpoint = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        await made.end()
        server.close()


@pytest.fixture
def until() -> Callable[..., object]:
    return wait_until
