"""An event stream on its way to the client, which can be ended between two events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy import stats
from proxy.http1.event_stream import EventBorders, retry_field
from proxy.http1.headers import Fields, value_of
from proxy.http1.message import ResponseHead

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange


class EventStream:
    """Stands between the parser and the exchange, so that other bodies need not be asked."""

    __slots__ = ("_borders", "_exchange", "_is_over", "_retry_ms")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._borders = EventBorders()
        self._retry_ms = 0  # not 0: the next end of an event is the last
        self._is_over = False

    # ---- called by the parser ----

    def response_interim(self, head: ResponseHead) -> None:
        self._exchange.response_interim(head)

    def response_head(self, head: ResponseHead) -> None:
        self._exchange.response_head(head)

    def response_body(self, data: bytes) -> None:
        if self._is_over:
            return
        if not self._retry_ms:
            self._borders.feed(data)
            self._exchange.response_body(data)
        elif (end := self._borders.find(data)) < 0:
            self._exchange.response_body(data)
        else:
            self._exchange.response_body(data[:end])
            self._end()

    def response_end(self, trailers: Fields | None) -> None:
        if not self._is_over:
            self._exchange.response_end(trailers)

    # ---- called by the sweep ----

    def end_gently(self, retry_ms: int) -> None:
        """End the answer between two events, and have the client wait before it comes back."""
        self._retry_ms = retry_ms
        if self._borders.is_between and not self._is_over:
            self._end()
            self._exchange.flush_reply()

    def _end(self) -> None:
        self._is_over = True
        exchange = self._exchange
        exchange.response_body(retry_field(self._retry_ms))
        exchange.response_end(None)
        exchange.must_close_upstream = True  # the endpoint goes on talking
        pool = exchange.pool
        if pool is not None:
            pool.words[pool.slot + stats.P_CLOSED + stats.STREAM] += 1


def may_end_early(head: ResponseHead) -> bool:
    """Whether our end can look like the endpoint's: plain text of no declared length."""
    return head.length is None and value_of(head.fields, b"content-encoding") is None
