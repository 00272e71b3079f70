"""A tiny HTTP/1.1 service for the demo: says which pool and release it is, mostly quickly.

Run as its own process: it prints the port it got and ends with its standard input, so
that it cannot outlive the demo, whatever happens to that one.
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


class DemoService:
    """One pool's only endpoint."""

    def __init__(self, pool: str, release: str) -> None:
        self._pool = pool
        self._release = release
        self._answered = 0

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
        bounds = SLOW_S if path.startswith(b"/slow") else FAST_S
        await asyncio.sleep(random.uniform(*bounds))
        self._answered += 1
        body = (
            b"%s\n"
            % json.dumps(
                {"pool": self._pool, "release": self._release, "answer": self._answered}
            ).encode()
        )
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        return answer % len(body) + (b"" if method == b"HEAD" else body)


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


async def serve(pool: str, release: str) -> None:
    """Serve on a free port of loopback until SIGTERM, or until standard input ends."""
    service = DemoService(pool, release)
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, limit=LARGEST_HEAD)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    spawn(_end_with_stdin(ended), name="stdin", report=_tell)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    server.close()


async def _end_with_stdin(ended: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    await reader.read()
    ended.set()


def _tell(name: str, error: BaseException) -> None:
    print(f"{name}: {error!r}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pool", required=True)
    parser.add_argument("--release", required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.pool, options.release))


if __name__ == "__main__":
    main()
