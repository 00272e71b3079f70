"""The ceiling: a relay on uvloop that parses nothing, picks a pooled connection and forwards bytes.

It takes every read for one whole request or answer, which holds for the small
ones of the benchmark and for nothing else: two reads, two writes and the least
Python that a proxy on this loop can run. Usage: bare_relay.py PORT UPSTREAM_PORT...
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator
from typing import cast

import uvloop


class Upstream(asyncio.Protocol):
    """A connection to the origin; idle in the pool when it has no client."""

    def __init__(self, idle: list[Upstream]) -> None:
        self._idle = idle
        self.transport: asyncio.WriteTransport
        self.client: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:

        self.transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        client, self.client = self.client, None
        self._idle.append(self)
        if client is not None and not client.is_closing():
            client.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self in self._idle:
            self._idle.remove(self)
        if self.client is not None:
            self.client.close()


class Downstream(asyncio.Protocol):
    """A client's connection: every read is sent on over a pooled connection."""

    def __init__(self, idle: list[Upstream], ports: Iterator[int]) -> None:
        self._idle = idle
        self._ports = ports
        self._transport: asyncio.WriteTransport
        self._connecting: set[asyncio.Future[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:

        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        while self._idle:
            upstream = self._idle.pop()
            if not upstream.transport.is_closing():
                upstream.client = self._transport
                upstream.transport.write(data)
                return
        task = asyncio.get_running_loop().create_task(self._connect(data))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(
            lambda: Upstream(self._idle), "127.0.0.1", next(self._ports)
        )
        upstream.client = self._transport
        upstream.transport.write(data)


async def relay(port: int, upstream_ports: list[int]) -> None:
    idle: list[Upstream] = []
    ports = itertools.cycle(upstream_ports)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Downstream(idle, ports), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    port, *upstream_ports = (int(word) for word in sys.argv[1:])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(relay(port, upstream_ports))


if __name__ == "__main__":
    main()
