"""TLS to an endpoint: what it said before it hung up is read, and an end unsaid is no end.

Sessions are handed on for the next connection to resume (docs/decisions/0058).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import suppress

from proxy.dataplane.tls_layer import OVER, SHAKING, Keep, TlsLayer

READ_SIZE = 64 * 1024


class TlsConnection(TlsLayer):
    __slots__ = ()

    def __init__(
        self,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        server_name: str | None,
        session: ssl.SSLSession | None,
        keep: Keep,
    ) -> None:
        super().__init__(
            context, lambda: protocol, server_name=server_name, session=session, keep=keep
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._state is SHAKING:
            self._shake()  # we speak first

    async def handshake(self) -> None:
        """As for everybody; but whoever cancels it closes the connection, which has no other owner."""
        try:
            await super().handshake()
        except asyncio.CancelledError:
            self.abort()
            raise
        if self._state in OVER:  # lost at once, which is nobody's exchange yet
            raise self._problem or ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "closed after the handshake")

    def eof_received(self) -> bool:
        """Half an answer to the end of the connection shall not look whole (RFC 9112 section 9.8)."""
        if not self._has_heard_end and self._problem is None:
            self._problem = ConnectionAbortedError("the connection ended without a close_notify")
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._state not in OVER:
            self._read_rest()
        super().connection_lost(exc)

    def _read_rest(self) -> None:
        """Take what the endpoint said before it hung up: see Upstream.connection_lost."""
        with suppress(OSError):  # nothing, or nothing more, to be read
            descriptor = self._raw.get_extra_info("socket").fileno()
            while self._state not in OVER and (data := os.read(descriptor, READ_SIZE)):
                self.data_received(data)
