"""The origin where nginx is not installed: 200 and 109 bytes to every request. Usage: origin.py PORT..."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

BODY = b"x" * 109
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 109\r\nContent-Type: text/plain\r\n\r\n" + BODY
END = b"\r\n\r\n"


class Origin(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:

        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        if self._tail:
            data = self._tail + data
        heads = data.count(END)
        self._tail = data[data.rfind(END) + 4 :] if heads else data
        if heads:
            self._transport.write(ANSWER * heads)


async def serve(ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Origin, "127.0.0.1", port) for port in ports]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve([int(word) for word in sys.argv[1:]]))


if __name__ == "__main__":
    main()
