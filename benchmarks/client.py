"""The load where wrk is not installed: keep-alive connections, one request after the other on each.

Usage: client.py PORT CONNECTIONS SECONDS COOKIES_FILE; prints requests and failures as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

LENGTH = b"content-length:"


class Counts:
    def __init__(self) -> None:
        self.requests = 0
        self.failures = 0


class Client(asyncio.Protocol):
    """Sends the next request as soon as the answer to the last one is complete."""

    def __init__(self, requests: itertools.cycle[bytes], counts: Counts, until: float) -> None:
        self._requests = requests
        self._counts = counts
        self._until = until
        self._buffer = b""
        self._transport: asyncio.WriteTransport
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:

        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = buffer[:end].lower()
        at = head.index(LENGTH) + len(LENGTH)
        stop = head.find(b"\r\n", at)
        if len(buffer) < end + 4 + int(head[at : stop if stop > 0 else end]):
            return
        self._buffer = b""
        self._counts.requests += 1
        self._counts.failures += buffer[9:12] != b"200"
        if time.monotonic() < self._until:
            self._transport.write(next(self._requests))
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._counts.failures += time.monotonic() < self._until
        self.done.set_result(None)


async def load(port: int, connections: int, seconds: float, cookies: list[str]) -> Counts:
    counts, until = Counts(), time.monotonic() + seconds
    requests = itertools.cycle(
        [f"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: {c}\r\n\r\n".encode() for c in cookies]
    )
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: Client(requests, counts, until), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.done for _, client in opened))
    return counts


def main() -> None:
    port, connections, seconds, cookies = sys.argv[1:]
    lines = Path(cookies).read_text(encoding="utf-8").splitlines()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        counts = runner.run(load(int(port), int(connections), float(seconds), lines))
    print(json.dumps({"requests": counts.requests, "failures": counts.failures}))


if __name__ == "__main__":
    main()
