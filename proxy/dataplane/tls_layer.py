"""TLS over one connection: a protocol for the transport below, a transport for who is above.

The loops have a TLS of their own, which cannot do what a proxy needs: end its side and go on
reading, say how much is still to be written, close without waiting for an answer to that
(docs/decisions/0052 for clients, 0058 for endpoints). And it keeps a buffer of 256 KiB for each
connection.

Nothing is buffered here: what is read is passed on at once, what is written goes encrypted into
the plain transport, whose pausing and resuming reaches who is above as it is. What clients and
endpoints need differently is in `tls_transport.py` and `tls_connection.py`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any, cast

MOST_UNREAD = 1024 * 1024
"""Bytes that may wait for a peer while TLS itself has more to answer: it asks, and reads nothing.
What is above holds its own back long before."""
RECORD = 16 * 1024
"""The most that one record carries (RFC 8446 section 5.1)."""


class State(Enum):
    SHAKING = 1
    OPEN = 2
    SAID_END = 3  # our close_notify is out, we only read
    CLOSED = 4
    LOST = 5


# Look-ups of an Enum's members cost as much as a call.
SHAKING, OPEN, SAID_END, CLOSED, LOST = State
READING = (OPEN, SAID_END)
OVER = (CLOSED, LOST)
Keep = Callable[[ssl.SSLSession], None]
_CLOSE_NOTIFY = ssl.SSLZeroReturnError()
_NOBODY = asyncio.Protocol()


class TlsLayer(asyncio.Transport, asyncio.Protocol):
    """Calls `make` for who is above when the handshake is done, and tells it of the connection."""

    __slots__ = (
        "_above",
        "_has_heard_end",
        "_incoming",
        "_keep",
        "_make",
        "_outgoing",
        "_problem",
        "_raw",
        "_shaken",
        "_state",
        "_tls",
    )
    LEFT = "closed during the handshake"
    """What became of a handshake whose connection ended."""

    def __init__(
        self,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
        *,
        server_side: bool = False,
        server_name: str | None = None,
        session: ssl.SSLSession | None = None,
        keep: Keep | None = None,
    ) -> None:
        super().__init__()
        # fixed
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_name,
            session=session,
        )
        self._raw: asyncio.Transport = None  # type: ignore[assignment] # set before any use
        self._shaken: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
        # its state
        self._keep = keep  # until a session is there
        self._make: Callable[[], asyncio.Protocol] | None = make
        self._above: asyncio.Protocol = _NOBODY
        self._state = SHAKING
        self._has_heard_end = False  # the peer has ended its side, and who is above knows
        self._problem: OSError | None = None  # why it is lost

    # ---- called by the loop, for the transport below ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast("asyncio.Transport", transport)
        if self._state in OVER:  # given up before it began
            self._raw.abort()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._state is SHAKING:
            self._shake()
        if self._state in READING:
            self._read()

    def eof_received(self) -> bool:
        """The peer's side of the connection ended, with or without a word (close_notify)."""
        return self._state is not SHAKING and self._hear_end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = LOST
        self._tell(ssl.SSLEOFError(ssl.SSL_ERROR_EOF, self.LEFT))
        above, self._above = self._above, _NOBODY  # they know each other: no cycle shall stay
        above.connection_lost(self._problem or exc)

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    # ---- the handshake ----

    async def handshake(self) -> None:
        """Wait until the handshake is done, or has failed: OSError."""
        problem = await self._shaken
        if problem is not None:
            raise problem

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as problem:
            self._refuse(problem)
            self._state = CLOSED
            self._raw.close()
            self._tell(problem)
        else:
            self._flush()
            self._open()

    def _refuse(self, _: ssl.SSLError) -> None:
        """Say why the handshake fails."""
        self._flush()  # an alert

    def _open(self) -> None:
        self._state = OPEN
        make, self._make = self._make, None
        if self._shaken.done() or make is None:  # nobody waits any more
            self.abort()
            return
        self._above = make()
        self._above.connection_made(self)
        self._tell(None)

    def _tell(self, problem: OSError | None) -> None:
        """Tell who waits for the handshake how it went, once."""
        if not self._shaken.done():
            self._shaken.set_result(problem)

    # ---- reading ----

    def _read(self) -> None:
        """Pass on all that has come in one piece, and then what ended it."""
        pieces: list[bytes] = []
        ended_by: ssl.SSLError | None = None
        read, incoming = self._tls.read, self._incoming
        try:
            while piece := read(RECORD):
                pieces.append(piece)
                if not incoming.pending:  # the usual end, for less than an exception
                    break
            else:
                ended_by = _CLOSE_NOTIFY
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            ended_by = error
        if self._outgoing.pending:
            ended_by = self._answer_itself() or ended_by
        if pieces:
            if self._keep is not None:
                self._keep_session()
            self._above.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if ended_by is not None:
            self._end_by(ended_by)

    def _answer_itself(self) -> ssl.SSLError | None:
        """Send what TLS itself has to say, such as that it will not shake again, but no end of it."""
        self._flush()
        if self._raw.get_write_buffer_size() <= MOST_UNREAD:
            return None
        return ssl.SSLError(ssl.SSL_ERROR_SSL, "it asks for more and reads nothing")

    def _keep_session(self) -> None:
        """Hand the session on: its ticket comes with the first answer, or never (TLS 1.3)."""
        session = self._tls.session
        if self._keep is not None and session is not None:
            self._keep(session)
            self._keep = None

    def _end_by(self, error: ssl.SSLError) -> None:
        if isinstance(error, ssl.SSLZeroReturnError):
            self._hear_end()
        else:
            self._break(error)

    def _hear_end(self) -> bool:
        """Pass the peer's end on once; whether our side stays open."""
        if self._state in OVER:
            return False
        if not self._has_heard_end:
            self._has_heard_end = True
            if not self._above.eof_received():
                self.close()
                return False
        return True

    def _break(self, problem: ssl.SSLError) -> None:
        self._problem = self._problem or problem
        self.abort()

    # ---- writing ----

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._state is not OPEN or not data or self._raw.is_closing():
            return
        write = self._tls.write
        try:
            sent, size = write(data), len(data)  # one record at a time
            if sent < size:
                view = memoryview(data)
                while sent < size:
                    sent += write(view[sent:])
        except ssl.SSLError as problem:
            self._break(problem)
            return
        self._raw.write(self._outgoing.read())

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Say that nothing more comes, and go on reading (RFC 8446 section 6.1)."""
        if self._state is OPEN and not self._raw.is_closing():
            self._say_end()

    def _say_end(self) -> None:
        """Our close_notify; the peer's is not waited for."""
        self._state = SAID_END
        with suppress(ssl.SSLError):  # it wants to read the other one
            self._tls.unwrap()
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())

    # ---- the end ----

    def is_closing(self) -> bool:
        return self._state in OVER or self._raw.is_closing()

    def close(self) -> None:
        """Send what is still to be sent and that this was the end; wait for no answer to that."""
        if self._state in OVER:
            return
        if self._state is OPEN and not self._raw.is_closing():
            self._say_end()
        self._state = CLOSED
        self._raw.close()

    def abort(self) -> None:
        """Break off, without the word that would make what was sent look whole."""
        if self._state is LOST:
            return
        self._state = CLOSED
        if self._raw is not None:
            self._raw.abort()

    # ---- the rest of a transport ----

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tls if name == "ssl_object" else self._raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._above = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._above

    def is_reading(self) -> bool:
        return self._raw.is_reading()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        if not self._raw.is_closing():
            self._raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)
