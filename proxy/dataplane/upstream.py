"""One connection to an endpoint: leased to one exchange at a time, kept between them."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, cast

from proxy.dataplane import faults
from proxy.http1.message import Malformed
from proxy.http1.parser import ResponseParser

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.live import EndpointLive

READ_SIZE = 64 * 1024


class Upstream(asyncio.Protocol):
    __slots__ = (
        "endpoint",
        "exchange",
        "idle_limit_s",
        "idle_since",
        "is_reused",
        "parser",
        "transport",
    )

    def __init__(self, endpoint: EndpointLive) -> None:
        # fixed
        self.endpoint = endpoint
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # set before any use
        self.parser = ResponseParser()
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

    def _malformed(self, exchange: Exchange, bad: Malformed) -> None:
        if exchange.is_answered:  # the answer was whole; what follows it is not ours
            exchange.must_close_upstream = True
            exchange.flush_reply()
        else:
            exchange.upstream_failed(faults.ANSWER_INVALID, bad.sentence)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.endpoint.open.discard(self)
        if self.endpoint.gone:
            self.endpoint.publish()  # no sweep comes by there any more
        if exc is not None and self.exchange is not None:
            self._read_rest()
        exchange = self.exchange
        if exchange is not None:
            exchange.upstream_lost(exc)
            return
        try:
            self.endpoint.idle.remove(self)
        except ValueError:
            return

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

    def sweep(self, now: float, upstream_idle_s: float) -> None:
        """Close the connection when it has waited for work too long."""
        if self.exchange is None and now - self.idle_since > min(
            upstream_idle_s, self.idle_limit_s
        ):
            try:
                self.endpoint.idle.remove(self)
            except ValueError:
                return
            self.close()
