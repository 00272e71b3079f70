"""The server's side of TLS by hand, over a plain scripted connection: to do what no server should."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

from tests.dataplane.box import Peer


class Masked:
    """`await Masked.shake(peer, context)`, then talk: nothing is said or ended by itself."""

    def __init__(self, peer: Peer, context: ssl.SSLContext) -> None:
        self.peer = peer
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    @classmethod
    async def shake(cls, peer: Peer, context: ssl.SSLContext) -> Masked:
        made = cls(peer, context)
        while True:
            try:
                made.tls.do_handshake()
            except ssl.SSLWantReadError:
                await made._flush()
                await made._more()
            except ssl.SSLError:
                await made._flush()  # the alert, which asyncio's own server keeps to itself
                raise ConnectionAbortedError from None
            else:
                await made._flush()
                return made

    async def read(self) -> bytes:
        """Some bytes; none at the proxy's close_notify."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                await self._more()
            except ssl.SSLZeroReturnError:
                return b""

    async def head(self) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await self.read()
            if not data:
                raise asyncio.IncompleteReadError(head, None)
            head += data
        return head

    async def send(self, data: bytes) -> None:
        self.tls.write(data)
        await self._flush()

    async def say_end(self) -> None:
        """A close_notify, and nothing else."""
        with suppress(ssl.SSLError):
            self.tls.unwrap()
        await self._flush()

    async def _more(self) -> None:
        data = await self.peer.reader.read(65536)
        if not data:
            raise asyncio.IncompleteReadError(b"", None)
        self.incoming.write(data)

    async def _flush(self) -> None:
        if data := self.outgoing.read():
            await self.peer.send(data)
