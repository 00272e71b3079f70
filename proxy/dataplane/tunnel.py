"""A tunnel: bytes both ways after an upgrade, with backpressure and half-closes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange


class Tunnel:
    """Two ends that pass on what they read; it is over when both connections are lost."""

    __slots__ = ("_client_side", "_left", "_upstream_side", "exchange")

    def __init__(
        self, exchange: Exchange, client: asyncio.Transport, upstream: asyncio.Transport
    ) -> None:
        self.exchange = exchange
        self._left = 2
        self._client_side = _Side(self, client, upstream, from_client=True)
        self._upstream_side = _Side(self, upstream, client, from_client=False)

    def begin(self, early: bytes) -> None:
        """Take both connections over; `early` is what the client sent behind its request."""
        client, upstream = self._client_side, self._upstream_side
        client.own.set_protocol(client)
        upstream.own.set_protocol(upstream)
        # A transport that is full already told the protocol before, and does not tell again.
        client.is_full = self.exchange.client.is_paused
        upstream.is_full = self.exchange.is_paused
        if early:
            client.data_received(early)
        if not upstream.is_full:
            client.own.resume_reading()
        if not client.is_full:
            upstream.own.resume_reading()

    def abort(self) -> None:
        self._client_side.own.abort()
        self._upstream_side.own.abort()
        self.exchange.tunnel_closed()

    def lost(self, side: _Side) -> None:
        """One connection is gone: the other one gets what is still to be written, and closes."""
        if not side.peer.is_closing():
            side.peer.close()
        self._left -= 1
        if not self._left:  # an end that never reads the rest is cut like an idle tunnel
            self.exchange.tunnel_closed()


class _Side(asyncio.Protocol):
    __slots__ = ("_ended", "_from_client", "_tunnel", "is_full", "own", "peer")

    def __init__(
        self, tunnel: Tunnel, own: asyncio.Transport, peer: asyncio.Transport, *, from_client: bool
    ) -> None:
        self._tunnel = tunnel
        self.own = own
        self.peer = peer
        self._from_client = from_client
        self._ended = False
        self.is_full = False  # what is written to `own` waits to be sent

    def data_received(self, data: bytes) -> None:
        exchange = self._tunnel.exchange
        exchange.touched = exchange.plane.clock.now
        if self._from_client:
            exchange.bytes_in += len(data)
        else:
            exchange.bytes_out += len(data)
        if not self.peer.is_closing():
            self.peer.write(data)

    def eof_received(self) -> bool:
        self._ended = True
        peer = self.peer
        if peer.is_closing():
            return False
        if peer.can_write_eof():
            peer.write_eof()
            other = peer.get_protocol()
            # Once both have ended there is nothing left to say; else the other may go on.
            return not (isinstance(other, _Side) and other._ended)  # noqa: SLF001 - same class
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._tunnel.lost(self)

    def pause_writing(self) -> None:
        self.is_full = True
        self.peer.pause_reading()

    def resume_writing(self) -> None:
        self.is_full = False
        if not self.peer.is_closing():
            self.peer.resume_reading()
