"""The gentle end of tunnels and event streams: each one's moment, and what is said then.

A WebSocket gets a Close between two messages, an event stream ends between two events. The
moments are spread, so that the clients do not all come back at once; those in which little
moves go first.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from proxy.model import CLOSE_GRACE_S

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange

IDLE_S = 1.0
"""Without a byte for so long, an exchange goes with the first half."""
MIN_RETRY_S = 0.5
"""Browsers keep a `retry:` for later failures as well: none shall hammer for ever."""


class Farewell:
    """When an exchange is told to end, and when it is cut if it has not."""

    __slots__ = ("at", "cut_at", "is_said", "spread_s")

    def __init__(self, at: float, cut_at: float, spread_s: float) -> None:
        self.at = at
        self.cut_at = cut_at
        self.spread_s = spread_s
        self.is_said = False


def is_due(exchange: Exchange, by_s: float, spread_s: float, now: float) -> bool:
    """Whether its moment has come: drawn at the deadline `by_s`, from the `spread_s` after it."""
    if now < by_s:
        return False
    farewell = exchange.farewell
    if farewell is None or farewell.at < by_s:  # that of a drain which was lifted
        is_idle = now - exchange.touched > IDLE_S
        farewell = exchange.farewell = drawn(by_s, spread_s, is_idle=is_idle)
    return now >= farewell.at


def drawn(by_s: float, spread_s: float, *, is_idle: bool) -> Farewell:
    """Draw a moment that leaves room for the closing handshake before the spread is over."""
    half = max(spread_s - CLOSE_GRACE_S, spread_s / 2) / 2
    at = by_s + half * (random.random() if is_idle else 1.0 + random.random())
    return Farewell(at, max(by_s + spread_s, at + CLOSE_GRACE_S), spread_s)


def say(exchange: Exchange) -> bool:
    """Have it end where that breaks nothing; False if there is no such place: it is to be cut."""
    farewell, tunnel, stream = exchange.farewell, exchange.tunnel, exchange.stream
    assert farewell is not None, "said when it is due"
    if tunnel is not None:
        farewell.is_said = tunnel.end_gently()
    elif stream is not None:
        farewell.is_said = True
        stream.end_gently(_retry_ms(farewell.spread_s))
    return farewell.is_said


def _retry_ms(spread_s: float) -> int:
    longest_s = spread_s + 1.0
    return int(1000 * (MIN_RETRY_S + random.random() * (longest_s - MIN_RETRY_S)))
