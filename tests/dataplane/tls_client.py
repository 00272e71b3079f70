"""A TLS client that is told nothing less than the truth: whether a close_notify came, above all."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

import trustme

TIMEOUT_S = 10.0


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context; an end without close_notify is an error to it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    authority.configure_trust(context)
    return context


class TlsClient:
    """One end of a socket; every method ends in time."""

    def __init__(
        self,
        sock: socket.socket,
        authority: trustme.CA,
        name: str,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = context or trusting(authority)
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._loop = asyncio.get_running_loop()

    async def shake(self, then: bytes = b"") -> None:
        """Do the handshake; `then` goes out with its last flight."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                try:
                    self.tls.do_handshake()
                except ssl.SSLWantReadError:
                    await self._flush()
                    await self._more()
                else:
                    break
            if then:
                self.tls.write(then)
            await self._flush()

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view[:16384]) :]
            await self._flush()

    async def send_raw(self, data: bytes) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await self._loop.sock_sendall(self._sock, data)

    async def end(self) -> None:
        """Say close_notify, and go on reading."""
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        await self._flush()

    def finish(self) -> None:
        """Close our side of the connection without a word."""
        self._sock.shutdown(socket.SHUT_WR)

    async def read(self, most: int = 65536, until: Callable[[], object] | None = None) -> bytes:
        """What comes next; with `until` as long as that is not so."""
        read = b""
        async with asyncio.timeout(TIMEOUT_S):
            while len(read) < most:
                try:
                    read += self.tls.read(65536)
                except ssl.SSLWantReadError:
                    await self._more()
                if read and (until is None or until()):
                    break
        return read

    async def rest(self) -> tuple[bytes, str]:
        """Everything, and how it ended: `close_notify` or `cut`."""
        read = b""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                try:
                    piece = self.tls.read(65536)
                    if not piece:
                        return read, "close_notify"
                    read += piece
                except ssl.SSLWantReadError:
                    await self._more()
                except ssl.SSLZeroReturnError:
                    return read, "close_notify"
                except ssl.SSLError:
                    return read, "cut"

    async def raw(self) -> bytes:
        """Bytes of the connection until its end, not decrypted."""
        read = b""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                try:
                    piece = await self._loop.sock_recv(self._sock, 65536)
                except ConnectionError:
                    return read
                if not piece:
                    return read
                read += piece

    def close(self) -> None:
        self._sock.close()

    async def _more(self) -> None:
        try:
            data = await self._loop.sock_recv(self._sock, 262_144)
        except ConnectionError:
            data = b""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._loop.sock_sendall(self._sock, self._outgoing.read())
