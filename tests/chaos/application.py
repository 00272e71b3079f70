"""An endpoint of a chaos test: an application and the fault proxy in front of it, in one process.

Usage: application.py NAME POOL HOST PORT ORDERS; says "listening" when it does. Each
line on stdin is a fault (JSON), answered by "done". To freeze, kill or restart the
process is to do it to both halves, as a client of an endpoint would see it. SIGTERM is
a plain stop: no new connections, idle ones close, what is in flight is answered. The
end of stdin ends it at once. The id of each POST is appended to the file ORDERS before
it is answered, so that one that was sent twice is found out.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import cast

from tests.chaos.fault_proxy import Fault, FaultProxy

WORK_S = 0.02
"""What an answer takes, so that there is something in flight when an endpoint is killed."""
STOP_S = 3.0
END = b"\r\n\r\n"
LENGTH = b"content-length:"
PADDING = "." * 1200
"""The middle of an answer shall be in its body."""


class Application:
    def __init__(self, name: str, pool: str, orders: int) -> None:
        self.connections: set[Connection] = set()
        self.is_stopping = False
        self._body = json.dumps({"pool": pool, "endpoint": name, "padding": PADDING}).encode()
        self._orders = orders

    def answer(self, head: bytes) -> bytes:
        """Answer a request; `head` is its line and headers."""
        method, target, _ = head.split(b" ", 2)
        if method == b"POST":
            os.write(self._orders, target.rpartition(b"=")[2] + b"\n")
        end = b"Connection: close\r\n" if self.is_stopping else b""
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
            % (end, len(self._body), self._body)
        )

    def stop(self) -> None:
        self.is_stopping = True
        for connection in list(self.connections):
            connection.close_if_idle()


class Connection(asyncio.Protocol):
    """Requests one after the other, with bodies of known length only."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._buffer = b""
        self._is_busy = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._application.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._application.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_busy:
            self._next()

    def close_if_idle(self) -> None:
        if not self._is_busy:
            self._transport.close()

    def _next(self) -> None:
        end = self._buffer.find(END)
        if end < 0:
            return
        head, stop = self._buffer[:end], end + len(END) + _length(self._buffer[:end])
        if len(self._buffer) < stop:
            return
        self._buffer = self._buffer[stop:]
        self._is_busy = True
        asyncio.get_running_loop().call_later(WORK_S, self._answer, head)

    def _answer(self, head: bytes) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(self._application.answer(head))
        self._is_busy = False
        if self._application.is_stopping:
            self._transport.close()
        else:
            self._next()


def _length(head: bytes) -> int:
    at = head.lower().find(LENGTH)
    return 0 if at < 0 else int(head[at + len(LENGTH) :].split(b"\r\n", 1)[0])


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


async def _obey(proxy: FaultProxy) -> None:
    """Do what stdin says until it ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        await proxy.turn_to(Fault(**json.loads(line)))
        say("done")
    os._exit(0)


async def _serve(name: str, pool: str, host: str, port: int, orders: int) -> None:
    loop = asyncio.get_running_loop()
    application = Application(name, pool, orders)
    inner = await loop.create_server(lambda: Connection(application), "127.0.0.1", 0, backlog=256)
    proxy = FaultProxy(inner.sockets[0].getsockname())
    await proxy.listen(host, port)
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    obeying = loop.create_task(_obey(proxy))
    say("listening")
    await stopped.wait()
    proxy.stop_listening()
    application.stop()
    await proxy.emptied(STOP_S)
    obeying.cancel()
    os._exit(0)


if __name__ == "__main__":
    name, pool, host, port, path = sys.argv[1:]
    orders = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    asyncio.run(_serve(name, pool, host, int(port), orders))
