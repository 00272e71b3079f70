"""A TCP proxy that spoils what it carries, in the way it is told at the moment.

It stands between a proxy and one endpoint. It knows nothing of HTTP: "the answer" is
what the target sends, and its middle is the middle of a piece as it was read.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import asdict, dataclass
from typing import Literal, get_args

Kind = Literal[
    "pass",
    "delay",
    "drip",
    "cut",
    "half_close",
    "reset_at_connect",
    "reset_before",
    "reset_within",
    "refuse",
    "black_hole",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
NO_LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends RST, not FIN."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the bytes of every connection from now on.

    pass              they are passed on
    delay             each piece of an answer comes `seconds` late
    drip              an answer comes in pieces of `size` bytes, one every `seconds`
    cut               FIN in the middle of an answer
    half_close        FIN instead of an answer, while the connection stays open for more requests
    reset_at_connect  RST as soon as a connection is accepted
    reset_before      RST as soon as a request is there, which goes no further
    reset_within      RST in the middle of an answer
    refuse            nobody listens; connections that are open get RST for their next bytes
    black_hole        connections are accepted and read, and nothing is said
    """

    kind: Kind = "pass"
    seconds: float = 0.0
    size: int = 1

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


PASS = Fault()


class FaultProxy:
    """Listens at one address, carries to another; `turn_to` changes what it does at once."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.fault = PASS
        self.address = ("127.0.0.1", 0)
        self._target = target
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.address = (host, port)
        await self._open()

    async def turn_to(self, fault: Fault) -> None:
        self.fault = fault
        if fault.kind == "refuse":
            self.stop_listening()
        elif self._server is None:
            await self._open()

    def stop_listening(self) -> None:
        """Accept no more; what is open goes on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def emptied(self, timeout_s: float) -> None:
        """Wait until no connection is left, or so long."""
        if self._links:
            await asyncio.wait(self._links, timeout=timeout_s)

    async def close(self) -> None:
        self.stop_listening()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accept, *self.address, backlog=256)
        self.address = self._server.sockets[0].getsockname()[:2]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None, "the server calls this in a task"
        self._links.add(link)
        link.add_done_callback(self._links.discard)
        if self.fault.kind in {"reset_at_connect", "refuse"}:
            reset(writer)
            return
        try:
            target = await asyncio.open_connection(*self._target)
        except OSError:
            reset(writer)
            return
        await _Link(self, (reader, writer), target).carry()


class _Link:
    """One accepted connection, and its continuation to the target."""

    def __init__(
        self,
        proxy: FaultProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        target: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._from_target, self._to_target = target
        self._is_lost = False
        """Something was swallowed: nothing that comes after it would make sense."""

    async def carry(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._requests())
                group.create_task(self._answers())
        finally:
            self._to_client.transport.abort()
            self._to_target.transport.abort()

    async def _requests(self) -> None:
        try:
            while piece := await self._from_client.read(65536):
                self._request(piece)
            self._to_target.write_eof()
        except OSError:  # a reset is passed on
            self._to_target.transport.abort()

    def _request(self, piece: bytes) -> None:
        kind = self._proxy.fault.kind
        if kind in {"reset_before", "refuse"}:
            self._reset()
        elif kind == "half_close" and not self._is_lost:
            self._is_lost = True
            self._to_client.write_eof()
        elif kind == "black_hole":
            self._is_lost = True
        elif not self._is_lost:
            self._to_target.write(piece)

    async def _answers(self) -> None:
        try:
            while piece := await self._from_target.read(65536):
                await self._answer(piece)
        except OSError:  # a reset is passed on
            self._reset()
        self._to_client.close()

    async def _answer(self, piece: bytes) -> None:
        fault = self._proxy.fault
        half = piece[: (len(piece) + 1) // 2]
        if self._is_lost or fault.kind == "black_hole":
            self._is_lost = True
        elif fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
            await self._send(piece)
        elif fault.kind == "drip":
            await self._drip(piece)
        elif fault.kind == "cut":
            await self._send(half)
            self._end()
        elif fault.kind == "reset_within":
            await self._send(half)
            self._reset()
        else:
            await self._send(piece)

    async def _drip(self, piece: bytes) -> None:
        """Drop by drop, for as long as the fault lasts."""
        while piece and (fault := self._proxy.fault).kind == "drip":
            await self._send(piece[: fault.size])
            piece = piece[fault.size :]
            await asyncio.sleep(fault.seconds)
        await self._send(piece)

    async def _send(self, piece: bytes) -> None:
        self._to_client.write(piece)
        await self._to_client.drain()

    def _end(self) -> None:
        self._is_lost = True
        self._to_client.close()
        self._to_target.transport.abort()

    def _reset(self) -> None:
        self._is_lost = True
        reset(self._to_client)
        self._to_target.transport.abort()


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection by RST."""
    connection = writer.get_extra_info("socket")
    if not writer.transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    writer.transport.abort()
