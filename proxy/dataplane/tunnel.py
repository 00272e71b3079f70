"""A tunnel: bytes both ways after an upgrade, with backpressure, half-closes and a gentle end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy import stats
from proxy.http1.frames import SERVICE_RESTART, FrameBorders, borders_after, close_frame
from proxy.http1.message import ResponseHead

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange

MAX_DROPPED = 16 * 1024 * 1024
"""Bytes an endpoint may still send behind our Close; they are dropped. Then it is not read."""

_CLOSE = close_frame(SERVICE_RESTART, b"service restart")


class Tunnel:
    """Two ends that pass on what they read; it is over when both connections are lost."""

    __slots__ = ("_client_side", "_left", "_upstream_side", "exchange")

    def __init__(
        self,
        exchange: Exchange,
        client: asyncio.Transport,
        upstream: asyncio.Transport,
        borders: FrameBorders | None,
    ) -> None:
        self.exchange = exchange
        self._left = 2
        self._client_side = _Side(self, client, upstream, from_client=True)
        self._upstream_side = (
            _Side(self, upstream, client, from_client=False)
            if borders is None
            else _FramedSide(self, self._client_side, borders)
        )

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
        if self.exchange.client.eof_since and not client.eof_received():
            client.own.close()  # it closed its side before, which not every loop tells again
        if not upstream.is_full:
            client.own.resume_reading()
        if not client.is_full:
            upstream.own.resume_reading()

    def end_gently(self) -> bool:
        """Say Close to the client between two messages of the server; False where none is sure.

        The client answers it, and so the endpoint sees a closing handshake as well.
        """
        side = self._upstream_side
        return isinstance(side, _FramedSide) and side.close_gently()

    def abort(self) -> None:
        self._client_side.own.abort()
        self._upstream_side.own.abort()
        self.exchange.tunnel_closed()

    def lost(self, side: _Side) -> None:
        """One connection is gone: the other one gets what is still to be written, and closes."""
        if not side.peer.is_closing():
            side.peer.close()
        self._left -= 1
        if self._left:  # an end that never reads the rest is cut like an idle tunnel
            return
        exchange = self.exchange
        pool = exchange.pool
        if self._client_side.is_closed and pool is not None and not exchange.is_done:
            pool.words[pool.slot + stats.P_CLOSED + stats.TUNNEL] += 1
        exchange.tunnel_closed()


def borders_of(switch: ResponseHead) -> FrameBorders | None:
    """What follows the frames behind this 101; None where they are no WebSocket's, or unsure."""
    if switch.upgrade is None or switch.upgrade.lower() != b"websocket":
        return None
    return borders_after(switch.fields)


class _Side(asyncio.Protocol):
    __slots__ = ("_ended", "_from_client", "_tunnel", "is_closed", "is_full", "own", "peer")

    def __init__(
        self, tunnel: Tunnel, own: asyncio.Transport, peer: asyncio.Transport, *, from_client: bool
    ) -> None:
        self._tunnel = tunnel
        self.own = own
        self.peer = peer
        self._from_client = from_client
        self._ended = False
        self.is_full = False  # what is written to `own` waits to be sent
        self.is_closed = False  # a Close was written to `own`, and nothing may follow it

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
        if not self.is_closed:
            self.peer.pause_reading()

    def resume_writing(self) -> None:
        self.is_full = False
        if not (self.is_closed or self.peer.is_closing()):
            self.peer.resume_reading()


class _FramedSide(_Side):
    """The endpoint of a WebSocket: its frames are followed, so that a Close can stand between two."""

    __slots__ = ("_borders", "_client", "_dropped", "_is_ending")

    def __init__(self, tunnel: Tunnel, client: _Side, borders: FrameBorders) -> None:
        super().__init__(tunnel, client.peer, client.own, from_client=False)
        self._client = client
        self._borders = borders
        self._is_ending = False  # the next end of a message is the last
        self._dropped = 0

    def data_received(self, data: bytes) -> None:
        if self._client.is_closed:
            self._drop(len(data))
        elif not self._is_ending:
            self._borders.feed(data)
            super().data_received(data)
        elif (end := self._borders.find(data)) < 0:
            super().data_received(data)
        else:
            super().data_received(data[:end])
            self._say_close()
            self._drop(len(data) - end)

    def close_gently(self) -> bool:
        borders = self._borders
        if borders.is_unsure or self._ended:
            return False
        self._is_ending = True
        if borders.is_between and not self._client.is_closed:
            self._say_close()
        return True

    def _say_close(self) -> None:
        client = self._client
        was_full, client.is_closed = client.is_full, True
        if not self.peer.is_closing():
            self.peer.write(_CLOSE)
            self._tunnel.exchange.bytes_out += len(_CLOSE)
        if was_full and not self.own.is_closing():
            self.own.resume_reading()  # whether the client reads concerns it no more

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > MAX_DROPPED and not self.own.is_closing():
            self.own.pause_reading()
