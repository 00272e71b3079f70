"""TLS over one connection to an endpoint: a protocol for the transport below, a transport for above.

The loops have a TLS of their own. This one reads what an endpoint that hung up said before, tells
an end that was said from one that was not, ends without waiting for an answer, and keeps no
buffers of its own (docs/decisions/0058).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, cast

MOST_OF_A_RECORD = 16 * 1024
"""Bytes of plain text in one record (RFC 8446 section 5.1)."""
READ_SIZE = 64 * 1024
MOST_UNREAD = 1024 * 1024
"""Bytes that may wait for an endpoint that asks for more: requests are held back long before."""

_NOBODY = asyncio.Protocol()
Keep = Callable[[ssl.SSLSession], None]
_Bytes = bytes | bytearray | memoryview


class TlsConnection(asyncio.Transport, asyncio.Protocol):
    """Tells `protocol` of the connection once the handshake is done; `shaken` tells who opened it."""

    __slots__ = (
        "_below",
        "_has_heard_end",
        "_has_said_end",
        "_incoming",
        "_is_closing",
        "_is_ready",
        "_keep",
        "_outgoing",
        "_problem",
        "_protocol",
        "_tls",
        "shaken",
    )

    def __init__(
        self,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        server_name: str | None,
        session: ssl.SSLSession | None,
        keep: Keep,
    ) -> None:
        super().__init__()
        # fixed
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_name, session=session
        )
        self._below: asyncio.Transport = None  # type: ignore[assignment] # set before any use
        self.shaken: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
        # its state
        self._protocol = protocol
        self._keep: Keep | None = keep  # until a session is there
        self._is_ready = False  # the handshake is done
        self._is_closing = False
        self._has_heard_end = False  # close_notify of the endpoint
        self._has_said_end = False
        self._problem: OSError | None = None  # why it is lost

    # ---- called by the loop, for the transport below ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._below = cast("asyncio.Transport", transport)
        self._shake()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._is_ready or self._shake():
            self._read()

    def eof_received(self) -> bool:
        if not self._is_ready:
            return False
        if not self._has_heard_end and self._problem is None:
            self._problem = ConnectionAbortedError("the connection ended without a close_notify")
        return bool(self._protocol.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self._is_closing:
            self._read_rest()
        self._is_closing = True
        if not self._is_ready:
            self._shaken(ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "closed during the handshake"))
            return
        protocol, self._protocol = self._protocol, _NOBODY  # they know each other: no cycle stays
        protocol.connection_lost(self._problem or exc)

    def pause_writing(self) -> None:
        if self._is_ready:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._is_ready:
            self._protocol.resume_writing()

    # ---- the handshake ----

    def _shake(self) -> bool:
        """Go on with the handshake; whether it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as problem:
            self._flush()  # an alert says why
            self._is_closing = True
            self._below.close()
            self._shaken(problem)
            return False
        self._flush()
        self._is_ready = True
        self._protocol.connection_made(self)
        self._shaken(None)
        return True

    def _shaken(self, problem: OSError | None) -> None:
        if not self.shaken.done():
            self.shaken.set_result(problem)

    async def handshake(self) -> None:
        """Wait until the handshake is done, or has failed: ssl.SSLError."""
        try:
            problem = await self.shaken
        except asyncio.CancelledError:
            self.abort()
            raise
        if problem is None and self._is_closing:  # lost at once, which is nobody's exchange yet
            problem = self._problem or ssl.SSLEOFError(
                ssl.SSL_ERROR_EOF, "closed after the handshake"
            )
        if problem is not None:
            raise problem

    # ---- reading ----

    def _read(self) -> None:
        """Pass on all that has come in one piece, and then what ended it."""
        pieces: list[bytes] = []
        problem: ssl.SSLError | None = None
        has_ended = False
        try:
            has_ended = self._decrypt(pieces)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            has_ended = True
        except ssl.SSLError as error:
            problem = error
        if self._outgoing.pending:  # what TLS itself answers, such as that it will not shake again
            self._flush()
            if self._below.get_write_buffer_size() > MOST_UNREAD:
                problem = ssl.SSLError(ssl.SSL_ERROR_SSL, "it asks for more and reads nothing")
        if pieces:
            self._pass_on(pieces)
        if problem is not None:
            self._break(problem)
        elif has_ended:
            self._hear_end()

    def _decrypt(self, pieces: list[bytes]) -> bool:
        """Gather what there is in whole records; True at the endpoint's close_notify."""
        read, incoming = self._tls.read, self._incoming
        while piece := read(MOST_OF_A_RECORD):
            pieces.append(piece)
            if not incoming.pending:  # the usual end, for less than an exception
                return False
        return True

    def _pass_on(self, pieces: list[bytes]) -> None:
        if self._keep is not None and (session := self._tls.session) is not None:
            self._keep(session)
            self._keep = None
        if not self._is_closing:
            self._protocol.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _hear_end(self) -> None:
        if self._has_heard_end or self._is_closing:
            return
        self._has_heard_end = True
        if not self._protocol.eof_received():
            self.close()

    def _read_rest(self) -> None:
        """Take what the endpoint said before it hung up: see Upstream.connection_lost."""
        with suppress(OSError):  # nothing, or nothing more, to be read
            descriptor = self._below.get_extra_info("socket").fileno()
            while not self._is_closing and (data := os.read(descriptor, READ_SIZE)):
                self.data_received(data)

    def _break(self, problem: ssl.SSLError) -> None:
        self._problem = self._problem or problem
        self.abort()

    # ---- writing ----

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._below.is_closing():
            self._below.write(data)

    def write(self, data: _Bytes) -> None:
        if self._is_closing or self._has_said_end or not data:
            return
        tls = self._tls
        try:
            written = tls.write(data)
            while written < len(data):
                written += tls.write(memoryview(data)[written:])
        except ssl.SSLError as problem:
            self._break(problem)
            return
        self._flush()

    def writelines(self, list_of_data: Iterable[_Bytes]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Say that nothing more will come; the endpoint may still answer (RFC 8446 section 6.1)."""
        if self._has_said_end or self._is_closing:
            return
        self._has_said_end = True
        with suppress(ssl.SSLError):  # it has not said so itself yet, and need not
            self._tls.unwrap()
        self._flush()

    # ---- the end ----

    def is_closing(self) -> bool:
        return self._is_closing or self._below.is_closing()

    def close(self) -> None:
        """Send what is still to be sent and that this was the end; wait for no answer to that."""
        if self._is_closing:
            return
        if self._is_ready:
            self.write_eof()
        self._is_closing = True
        self._below.close()

    def abort(self) -> None:
        self._is_closing = True
        if self._below is not None:
            self._below.abort()

    # ---- the rest of a transport ----

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        return self._below.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_reading(self) -> bool:
        return self._below.is_reading()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        if not self._below.is_closing():
            self._below.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._below.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)
