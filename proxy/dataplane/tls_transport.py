"""TLS over a plain transport, on the server's side.

Not the loop's own TLS, because that cannot do what an HTTP server needs: end its side with
a close_notify and go on reading, so that an early answer arrives while an upload still comes;
say how much is really still to be written; close without a time that cuts what a slow client
is yet to read. And it keeps a buffer of 256 KiB for each connection.

Nothing is buffered here: what is read is passed on at once, what is written goes encrypted into
the plain transport, whose pausing and resuming reaches the application as it is.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any, cast

MOST_UNREAD = 1024 * 1024
"""Bytes that may wait for a client while TLS itself has more to answer: it asks, and reads nothing.
Answers are held back long before."""
RECORD = 16 * 1024
"""The most that one record carries (RFC 8446 section 5.1)."""


class _State(Enum):
    SHAKING = 1
    OPEN = 2
    SAID_END = 3  # our close_notify is out, we only read
    CLOSED = 4
    LOST = 5


_OVER = (_State.CLOSED, _State.LOST)


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """The protocol of the plain transport, and the transport of the application's protocol.

    The application is made when the handshake is done; `done` is told then, or of its failure.
    """

    __slots__ = (
        "_app",
        "_done",
        "_has_ended",
        "_incoming",
        "_make",
        "_outgoing",
        "_plain_answer",
        "_raw",
        "_state",
        "_tls",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
        done: asyncio.Future[None],
        plain_answer: Callable[[], bytes],
    ) -> None:
        super().__init__()
        self._make: Callable[[], asyncio.Protocol] | None = make
        self._done = done
        self._plain_answer = plain_answer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._raw: asyncio.Transport = None  # type: ignore[assignment] # set before any use
        self._app: asyncio.Protocol = _NOBODY
        self._state = _State.SHAKING
        self._has_ended = False  # the client has ended its side, and the application knows

    # ---- called by the loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._state is _State.SHAKING:
            self._shake()
        elif self._state not in _OVER:
            self._read()

    def eof_received(self) -> bool:
        """The client's side of the connection ended, with or without a word (close_notify)."""
        if self._state is _State.SHAKING:
            return False
        return self._end_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _State.LOST
        self._fail(exc or ConnectionResetError("the client left during the handshake"))
        app, self._app = self._app, _NOBODY  # they know each other: no cycle shall stay
        app.connection_lost(exc)

    def pause_writing(self) -> None:
        self._app.pause_writing()

    def resume_writing(self) -> None:
        self._app.resume_writing()

    # ---- called by the application ----

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tls if name == "ssl_object" else self._raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._app = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._app

    def is_closing(self) -> bool:
        return self._state in _OVER or self._raw.is_closing()

    def is_reading(self) -> bool:
        return self._raw.is_reading()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._raw.get_write_buffer_limits()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._state is not _State.OPEN or self._raw.is_closing():
            return
        write = self._tls.write
        try:
            sent, size = write(data), len(data)  # one record at a time
            if sent < size:
                view = memoryview(data)
                while sent < size:
                    sent += write(view[sent:])
        except ssl.SSLError:
            self.abort()
            return
        self._raw.write(self._outgoing.read())

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Tell the client that nothing more comes, and go on reading."""
        if self._state is _State.OPEN and not self._raw.is_closing():
            self._say_end()
            self._raw.write_eof()

    def close(self) -> None:
        if self._state in _OVER:
            return
        if self._state is _State.OPEN and not self._raw.is_closing():
            self._say_end()
        self._state = _State.CLOSED
        self._raw.close()

    def abort(self) -> None:
        """Break off, without the word that would make what was sent look whole."""
        if self._state is not _State.LOST:
            self._state = _State.CLOSED
            self._raw.abort()

    def give_up(self) -> None:
        """End a connection whose handshake is not waited for any more."""
        self._done.cancel()
        if self._state is _State.SHAKING and self._raw is not None:
            self.abort()

    # ---- inside ----

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except (ssl.SSLError, ssl.CertificateError) as error:
            if getattr(error, "reason", "") == "HTTP_REQUEST":
                self._raw.write(self._plain_answer())
            else:
                self._flush()  # an alert says why
            self._state = _State.CLOSED
            self._raw.close()
            self._fail(error)
            return
        self._flush()
        self._state = _State.OPEN
        make, self._make = self._make, None
        if self._done.done() or make is None:  # nobody waits any more
            self.abort()
            return
        self._app = make()
        self._app.connection_made(self)
        self._done.set_result(None)
        if self._incoming.pending and not self.is_closing():
            self._read()

    def _fail(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)

    def _read(self) -> None:
        tls, incoming = self._tls, self._incoming
        pieces: list[bytes] = []
        error: ssl.SSLError | None = None
        has_ended = False
        try:
            while piece := tls.read(RECORD):
                pieces.append(piece)
                if not incoming.pending and not tls.pending():
                    break
            else:
                has_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            has_ended = True
        except ssl.SSLError as caught:
            error = caught
        if self._outgoing.pending and not self._answer_itself():
            return
        if pieces:
            self._app.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if error is not None:
            self.abort()
        elif has_ended:
            self._end_reading()

    def _answer_itself(self) -> bool:
        """Send what TLS has to say, such as that it will not shake again; False if nobody reads it."""
        self._flush()
        if self._raw.get_write_buffer_size() > MOST_UNREAD:
            self.abort()
            return False
        return True

    def _end_reading(self) -> bool:
        """Pass the client's end on once; whether the other side stays open."""
        if self._state in _OVER:
            return False
        if not self._has_ended:
            self._has_ended = True
            if not self._app.eof_received():
                self.close()
                return False
        return True

    def _say_end(self) -> None:
        """Our close_notify; the client's is not waited for (RFC 8446 section 6.1)."""
        self._state = _State.SAID_END
        with suppress(ssl.SSLError):  # it wants to read the other one
            self._tls.unwrap()
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())


async def accept(
    sock: socket.socket,
    context: ssl.SSLContext,
    make: Callable[[], asyncio.Protocol],
    plain_answer: Callable[[], bytes],
) -> None:
    """Serve an accepted socket by TLS; returns when the handshake is done, OSError if it failed.

    A client that speaks plain HTTP is told so by `plain_answer`.
    Whoever cancels it, because it takes too long, closes the connection.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    made = TlsTransport(context, make, done, plain_answer)
    try:
        await loop.connect_accepted_socket(lambda: made, sock)
        await done
    except asyncio.CancelledError:
        made.give_up()
        raise


_NOBODY = asyncio.Protocol()
