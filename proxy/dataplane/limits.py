"""Limits of a service and of its pools: who is let in, and what the others are told.

Every limit holds over all workers together. This worker may go up to its shares, which are
on the board; what it uses of them it counts before it looks, so that the dealer can rely on
what it reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy import stats
from proxy.dataplane import faults
from proxy.dataplane.trail import retry_failed
from proxy.errors import Fault

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.live import PoolLive, ServiceLive

_RATE, _CONCURRENCY, _PENDING, _ADAPTIVE = (
    stats.S_LIMITED + stats.LIMITS.index(reason)
    for reason in ("rate", "concurrency", "pending", "adaptive")
)


def admit(exchange: Exchange, service: ServiceLive) -> bool:
    """Whether the service takes one more request; where it does not, the exchange is over."""
    spec, plane = service.spec, exchange.plane
    words, board, slot = plane.words, plane.board, spec.slot
    if spec.limits.rate:
        if words[slot + stats.S_BEGUN] >= board[service.rate_share]:
            _refuse(exchange, service, _RATE, faults.TOO_MANY_REQUESTS)
            return False
        words[slot + stats.S_BEGUN] += 1
    if spec.limits.concurrency:
        words[slot + stats.S_EXCHANGES] += 1
        exchange.admitted = service
        if words[slot + stats.S_EXCHANGES] > board[service.concurrency_share]:
            _refuse(exchange, service, _CONCURRENCY, faults.TOO_MANY_AT_ONCE)
            return False
    return True


def leave(exchange: Exchange) -> None:
    """Count an admitted exchange no longer; it is over."""
    service, exchange.admitted = exchange.admitted, None
    if service is not None:
        exchange.plane.words[service.spec.slot + stats.S_EXCHANGES] -= 1


def is_over(pool: PoolLive) -> bool:
    """Whether the pool has as many requests in flight as it can take without a queue.

    Streams and tunnels do not count: they last, and say nothing about how busy it is.
    """
    words = pool.words
    in_flight = words[pool.slot + stats.P_IN_FLIGHT + stats.REQUEST]
    return bool(in_flight >= pool.desk.board[pool.share])


def refuse_overloaded(exchange: Exchange, service: ServiceLive, pool: PoolLive) -> None:
    """Not to the other pool: what one release cannot take must not be poured over the other."""
    pool.words[pool.slot + stats.P_LIMITED] += 1
    _refuse(exchange, service, _ADAPTIVE, faults.OVERLOADED)


def refuse_pending(exchange: Exchange, service: ServiceLive, fault: Fault) -> None:
    """Nobody has a connection for it, or has had one for too long."""
    _refuse(exchange, service, _PENDING, fault)


def _refuse(exchange: Exchange, service: ServiceLive, reason: int, fault: Fault) -> None:
    """Answer, and count it here: it is no answer of a pool's, and nobody's failure.

    But a request that an endpoint had failed before gets that failure for an answer: it only
    was not helped.
    """
    exchange.plane.words[service.spec.slot + reason] += 1
    if exchange.pending_since and exchange.endpoint is not None:
        exchange.endpoint.room.leave(exchange)
    exchange.leave()
    trail = exchange.trail
    if trail is not None and trail.fault is not None:
        retry_failed(exchange)
        exchange.pool = trail.pool
        fault = trail.fault
    else:
        exchange.pool = None
    exchange.refuse(fault)
