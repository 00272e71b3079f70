"""A worker: one data-plane process, told what to do over the channel to its supervisor.

Started by exec: `python -m proxy.process.worker SLOT WORKERS` and the descriptors
of the channel, of its counters, of the board and of the door.
"""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import signal
import socket
import sys
from typing import Any

import orjson

from proxy import door, stats
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.plane import Plane
from proxy.errors import Fault
from proxy.process.channel import Channel
from proxy.process.loop import run
from proxy.process.messages import Message, snapshot_from
from proxy.process.outlet import Outlet
from proxy.stats import CounterBlock
from proxy.tasks import spawn

ORPHAN_GRACE_S = 30.0
"""In-flight work of a worker whose supervisor has died gets this long."""


class Worker:
    def __init__(self, slot: int, workers: int, descriptors: list[int]) -> None:
        channel_fd, counters_fd, board_fd, door_fd = descriptors
        shared = mmap.mmap(door_fd, door.size(workers))
        self._slot = slot
        self._counters = CounterBlock(counters_fd)
        self._outlet = Outlet(dropped=self._note_dropped)
        self._board = CounterBlock(board_fd, is_readonly=True)
        self._plane = Plane(
            asyncio.get_running_loop(),
            self._counters.words,
            self._board.words,
            worker=slot,
            workers=workers,
            door=door.Door(memoryview(shared).cast("Q"), slot, workers),
            report=self._report,
            note=self._note,
            tell=lambda event, facts: self._event(event, **facts),
        )
        self._messages: asyncio.Queue[tuple[Message, list[int]] | None] = asyncio.Queue()
        self._done = asyncio.Event()
        self._grace_s = ORPHAN_GRACE_S
        sock = socket.socket(fileno=channel_fd)
        self._channel = Channel(sock, self._on_message, self._on_closed)

    async def run(self) -> None:
        """Obey until told to stop, or until the supervisor is gone."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_loop_error)
        sys.unraisablehook = self._on_unraisable
        # Ctrl-C in a terminal reaches every process of the group: the supervisor decides.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, self._messages.put_nowait, None)
        while (item := await self._messages.get()) is not None:
            message, descriptors = item
            if message["kind"] == "stop":
                self._grace_s = float(message["grace_s"])
                break
            await self._obey(message, descriptors)
        await asyncio.sleep(0)  # what waits to be accepted is accepted before we close
        await self._plane.stop(self._grace_s)

    def _on_message(self, message: Message, descriptors: list[int]) -> None:
        self._messages.put_nowait((message, descriptors))

    def _on_closed(self) -> None:
        self._messages.put_nowait(None)

    async def _obey(self, message: Message, descriptors: list[int]) -> None:
        kind = message["kind"]
        if kind == "apply":
            await self._apply(message, descriptors)
        elif kind == "in_flight":
            items = self._plane.in_flight(message["service"], message["pool"])
            self._channel.send({"kind": "in_flight", "id": message["id"], "items": items})
        elif kind == "samples":
            items = self._plane.samples(message["service"], message["pool"])
            self._channel.send({"kind": "samples", "id": message["id"], "items": items})
        elif kind == "warm":  # beside the other messages: it waits for connections
            spawn(self._warm(message), name="warm", report=self._report)

    async def _warm(self, message: Message) -> None:
        try:
            wait_s = float(message["wait_s"])
            await self._plane.warm(message["service"], message["pool"], wait_s)
        finally:
            self._channel.send({"kind": "warmed", "id": message["id"]})

    async def _apply(self, message: Message, descriptors: list[int]) -> None:
        sockets = {
            bind: socket.socket(fileno=fd)
            for bind, fd in zip(message["binds"], descriptors, strict=True)
        }
        snapshot = snapshot_from(message["snapshot"])
        await self._plane.apply(snapshot, sockets)
        self._channel.send({"kind": "applied", "revision": snapshot.revision})
        if not gc.get_freeze_count():
            # What has lived until now will live on: keep it out of the collector's sight. Not
            # later, when connections are open: they are cycles, and would never be freed.
            gc.collect()
            gc.freeze()

    # ---- events, as structured lines on stderr ----

    def _note_dropped(self, total: int) -> None:
        self._counters.words[stats.W_EVENTS_DROPPED] = total

    def _event(self, event: str, **facts: Any) -> None:
        line = {"event": event, "level": "warning", "worker": self._slot, **facts}
        self._outlet.write(orjson.dumps(line, default=repr).decode() + "\n")

    def _report(self, name: str, error: BaseException) -> None:
        self._event("unexpected error", task=name, error=repr(error))

    def _note(self, exchange: Exchange, fault: Fault, detail: str) -> None:
        endpoint = exchange.endpoint
        self._event(
            "no connection" if fault.kind == "connect" else "invalid answer",
            fault=fault.error,
            detail=detail,
            endpoint=endpoint.address if endpoint is not None else None,
            request_id=exchange.request_id.decode("latin-1"),
        )

    def _on_unraisable(self, problem: sys.UnraisableHookArgs) -> None:
        error = problem.exc_value
        # ssl's way to tell that a ClientHello asks for a name that is not ASCII. Its handshake
        # fails, and is counted; a line for each would let anybody fill the log.
        if error is not None and not isinstance(error, UnicodeDecodeError):
            self._report("callback", error)

    def _on_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._event(
            "unexpected error",
            task=str(context.get("message")),
            error=repr(context.get("exception")),
        )


async def _main(numbers: list[int]) -> None:
    worker = Worker(numbers[0], numbers[1], numbers[2:])
    await spawn(worker.run(), name="worker", report=lambda *_: None)


def main(argv: list[str]) -> int:
    numbers = [int(word) for word in argv]
    for fd in numbers[2:]:
        os.set_inheritable(fd, False)
    gc.set_threshold(50_000, 20, 100)  # the hot path makes few cycles; collect seldom
    run(_main(numbers))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
