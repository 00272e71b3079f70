"""A tiny HTTP/1.1 service for the demo: says which release it is, and fails as it is told.

Run as its own process: it prints the port it got and ends with its standard input, so
that it cannot outlive the demo, whatever happens to that one. A line there with a number is
the percentage of its requests that it answers with a 500 from now on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
from typing import Final

from proxy.tasks import spawn

FAST_S: Final = (0.015, 0.060)
SLOW_S: Final = (2.0, 3.0)
LARGEST_HEAD: Final = 64 * 1024


HEALTH: Final = b"/healthz"
"""Always answered well: what fails here are requests, not the process."""


class DemoService:
    """The only endpoint that runs a release."""

    def __init__(self, release: str, errors: float = 0.0) -> None:
        self._release = release
        self._answered = 0
        self.errors = errors
        """Percent of its requests that fail."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until the peer ends it."""
        try:
            while (head := await _head(reader)) is not None:
                await reader.readexactly(_length(head))
                writer.write(await self._answer(head))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # the peer went away or speaks no HTTP: this connection is over
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> bytes:
        method, path = head.split(b" ", 2)[:2]
        if path == HEALTH:
            return self._page(200, method)
        is_bad = random.uniform(0, 100) < self.errors
        is_slow = path.startswith(b"/slow") and not is_bad
        await asyncio.sleep(random.uniform(*(SLOW_S if is_slow else FAST_S)))
        self._answered += 1
        return self._page(500 if is_bad else 200, method)

    def _page(self, status: int, method: bytes) -> bytes:
        body = b"%s\n" % json.dumps({"release": self._release, "answer": self._answered}).encode()
        reason = b"OK" if status == 200 else b"Internal Server Error"
        head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        return head % (status, reason, len(body)) + (b"" if method == b"HEAD" else body)


async def _head(reader: asyncio.StreamReader) -> bytes | None:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def serve(release: str, errors: float) -> None:
    """Serve on a free port of loopback until SIGTERM, or until standard input ends."""
    service = DemoService(release, errors)
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, limit=LARGEST_HEAD)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    spawn(_listen(service, ended), name="stdin", report=_tell)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    server.close()


async def _listen(service: DemoService, ended: asyncio.Event) -> None:
    """Take the lines of standard input; its end is ours."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    try:
        while line := await reader.readline():
            service.errors = float(line)
    finally:
        ended.set()


def _tell(name: str, error: BaseException) -> None:
    print(f"{name}: {error!r}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--release", required=True)
    parser.add_argument("--errors", type=float, default=0.0, help="Percent that fail.")
    options = parser.parse_args()
    asyncio.run(serve(options.release, options.errors))


if __name__ == "__main__":
    main()
