"""One connection to an endpoint: leased to one exchange at a time, kept between them."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
from typing import TYPE_CHECKING, cast

from proxy.dataplane import faults
from proxy.http1.message import Malformed
from proxy.http1.parser import ResponseParser

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.live import EndpointLive

READ_SIZE = 64 * 1024
AHEAD_S = 5.0
"""A connection opened ahead that has had no exchange by then was not needed. It may be all that a
server of one connection at a time can serve, so it is not kept as long as one that was used."""


RESTED_S = 1.0
"""Who resets a connection that has rested for so long most likely closed or forgot it meanwhile."""
FAREWELL_BYTES = 64
"""More than TLS's close_notify, which may be on its way by then, and less than any request of ours."""
_BYTES_ACKED, _BYTES_SENT, _BYTES_RETRANSMITTED, _TCP_INFO_SIZE = 120, 200, 208, 216
"""Places in `struct tcp_info` (linux/tcp.h), and how much of it is wanted."""


class Upstream(asyncio.Protocol):
    __slots__ = (
        "address",
        "born",
        "endpoint",
        "ends_at",
        "exchange",
        "idle_limit_s",
        "idle_since",
        "is_ahead",
        "is_reused",
        "parser",
        "transport",
    )

    def __init__(self, endpoint: EndpointLive) -> None:
        # fixed
        self.endpoint = endpoint
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # set before any use
        self.parser = ResponseParser()
        self.address = ""  # where its name led to, when the endpoint is a name
        self.born = 0.0
        self.ends_at = float("inf")  # from then on it gets no other exchange
        self.is_ahead = False  # opened before there was an exchange for it
        self.idle_limit_s = float("inf")  # what the endpoint itself said in Keep-Alive
        # per exchange
        self.exchange: Exchange | None = None
        self.is_reused = False
        self.idle_since = 0.0

    # ---- called by the loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.endpoint.open.add(self)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.close()  # nobody asked: whatever this is, it answers nothing
            return
        whole = self.parser.whole(data)
        if whole is not None:
            exchange.answer(whole)
            return
        try:
            after_upgrade = self.parser.feed(data)
        except Malformed as bad:
            self._malformed(exchange, bad)
            return
        if after_upgrade is not None:
            exchange.upgraded(after_upgrade)
            return
        exchange.flush_reply()
        if self.parser.was_costly:
            self._give_way()

    def _give_way(self) -> None:
        """Read on when the others have had their turn: the loop would read 32 times in a row."""
        self.parser.was_costly = False
        if not self.transport.is_closing():
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        exchange, transport = self.exchange, self.transport
        if transport.is_closing() or transport.get_protocol() is not self:
            return  # whoever has it now has seen to its reading
        if exchange is None or not exchange.client.is_paused:
            transport.resume_reading()

    def _malformed(self, exchange: Exchange, bad: Malformed) -> None:
        if exchange.is_answered:  # the answer was whole; what follows it is not ours
            exchange.must_close_upstream = True
            exchange.flush_reply()
        else:
            exchange.upstream_failed(faults.ANSWER_INVALID, bad.sentence)

    def eof_received(self) -> bool:
        if self.exchange is None:
            self._leave_idle()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        endpoint = self.endpoint
        endpoint.open.discard(self)
        if endpoint.gone:
            endpoint.publish()  # no sweep comes by there any more
        if exc is not None and self.exchange is not None and not self.is_tls:
            self._read_rest()  # TlsConnection has done it
        exchange = self.exchange
        if exchange is not None:
            exchange.upstream_lost(exc)
        elif self in endpoint.idle:
            endpoint.idle.remove(self)
        endpoint.room.lost()

    def _read_rest(self) -> None:
        """Take what the endpoint said before it hung up.

        An endpoint that refuses an upload answers, and closes without reading the rest. If a
        write of ours is the first to notice, the loop gives the connection up with the answer
        still unread in the socket, which is open until this call returns.
        """
        try:
            descriptor = self.transport.get_extra_info("socket").fileno()
            while self.exchange is not None and (data := os.read(descriptor, READ_SIZE)):
                self.data_received(data)
        except OSError:  # nothing, or nothing more, to be read
            return

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.pause_request()

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.resume_request()

    # ---- called by exchanges and by the sweep ----

    def note_keep_alive(self, special: dict[bytes, bytes]) -> None:
        """Read `Keep-Alive: timeout=5`: what is kept longer would be found closed."""
        value = special.get(b"keep-alive")
        if value is None:
            return
        for part in value.split(b","):
            name, _, number = part.strip().partition(b"=")
            if name.lower() == b"timeout" and number.isdigit() and len(number) < 9:
                self.idle_limit_s = max(0.0, int(number) - 1.0)

    def limit_age(self, max_age_s: float) -> None:
        """Let it live for so long, more or less: those opened together shall not end together."""
        self.ends_at = self.born + max_age_s * random.uniform(0.9, 1.1)

    def retire(self) -> None:
        """Serve no other exchange."""
        self.ends_at = 0.0
        if self.exchange is None:
            self._leave_idle()

    @property
    def is_tls(self) -> bool:
        return self.transport.get_extra_info("ssl_object") is not None

    def is_usable(self) -> bool:
        return not self.transport.is_closing()

    def resume_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def close(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def was_dead(self, exc: Exception | None, began: float) -> bool:
        """Whether the endpoint had hung up before what was sent from `began` on reached it.

        `exc` is why the connection is lost. Asked while the socket is still open. A reset says
        nothing about what came before it: it tells a request that was taken and dropped from one
        that met a closed connection by the connection's rest alone.
        """
        if isinstance(exc, BrokenPipeError):
            return True
        if exc is not None and not isinstance(exc, ConnectionAbortedError):  # TLS without its end
            return began - self.idle_since > RESTED_S
        return not _has_all(self.transport.get_extra_info("socket"))

    def sweep(self, now: float, upstream_idle_s: float) -> None:
        """Close the connection when it has waited for work too long, or is too old."""
        if self.exchange is not None:
            return
        limit_s = min(upstream_idle_s, self.idle_limit_s)
        if self.is_ahead and not self.is_reused:
            limit_s = min(limit_s, AHEAD_S)
        if now - self.idle_since > limit_s or now >= self.ends_at:
            self._leave_idle()

    def _leave_idle(self) -> None:
        try:
            self.endpoint.idle.remove(self)
        except ValueError:
            return
        self.close()


def _has_all(sock: socket.socket) -> bool:
    """Whether the far kernel has confirmed all we sent; an end by a unix socket says so itself."""
    if sock.family == socket.AF_UNIX:
        return True
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    except OSError:
        return True
    if len(info) < _TCP_INFO_SIZE:  # before Linux 4.19
        return True
    acked, sent, again = (
        int.from_bytes(info[at : at + 8], sys.byteorder)
        for at in (_BYTES_ACKED, _BYTES_SENT, _BYTES_RETRANSMITTED)
    )
    # The handshake counts as one byte acknowledged.
    return sent - again + 1 - acked <= FAREWELL_BYTES
