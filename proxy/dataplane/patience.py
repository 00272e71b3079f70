"""Patience with an exchange: what waits too long, or outlives a drain, is ended by the sweep."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from proxy import stats
from proxy.dataplane import faults

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.live import EndpointLive, PoolLive


def sweep(exchange: Exchange, now: float) -> None:
    """End what has waited too long, or outlived the drain of its pool or endpoint."""
    pool, endpoint, service = exchange.pool, exchange.endpoint, exchange.service
    if pool is None or endpoint is None or service is None:
        return
    if (pool.drain is not None or endpoint.drain is not None or endpoint.gone) and (
        _is_overdue(exchange, pool, endpoint, now)
    ):
        cut(exchange)
        return
    timeouts = service.spec.timeouts
    waited = now - exchange.touched
    if exchange.kind == stats.TUNNEL:
        if waited > timeouts.tunnel_idle_s and exchange.tunnel is not None:
            exchange.tunnel.abort()
    elif exchange.upstream is None:
        return  # connecting has its own end in time
    elif exchange.is_started or exchange.client.is_paused:
        _sweep_answer(exchange, waited)
    elif (
        exchange.request_done
        or exchange.is_paused
        or (exchange.head.expect and not exchange.bytes_in)
    ):
        if waited > timeouts.response_s:
            exchange.upstream_failed(faults.ANSWER_TOO_SLOW)
    elif waited > timeouts.client_body_s:
        exchange.refuse(faults.BODY_TOO_SLOW, close=True)


def cut(exchange: Exchange) -> None:
    """End the exchange at its drain's deadline."""
    pool = exchange.pool
    if pool is not None:
        pool.words[pool.slot + stats.P_CUT + exchange.kind] += 1
    if exchange.tunnel is not None:
        exchange.tunnel.abort()
    elif exchange.is_started:
        exchange.abandon(failed=True)
    else:
        exchange.refuse(faults.DRAINED, close=True)


def _sweep_answer(exchange: Exchange, waited: float) -> None:
    service = exchange.service
    if service is None:
        return
    if exchange.client.is_paused:
        if waited > exchange.client.listener.spec.idle_s:  # the client does not read
            exchange.abandon(failed=True)
    else:
        timeouts = service.spec.timeouts
        is_stream = exchange.kind == stats.STREAM
        if waited > (timeouts.tunnel_idle_s if is_stream else timeouts.read_stall_s):
            exchange.upstream_failed(faults.ANSWER_STALLED)


def _is_overdue(exchange: Exchange, pool: PoolLive, endpoint: EndpointLive, now: float) -> bool:
    if endpoint.gone:
        return True
    for drain, since in (
        (endpoint.drain, endpoint.drained_at),
        (pool.drain, pool.drained_at),
    ):
        if drain is None or exchange.started > since:
            continue  # it began later: a preview, or a client that is bound to the pool
        if exchange.kind == stats.REQUEST:
            overdue = now >= drain.requests_by_s
        elif exchange.kind == stats.STREAM:
            overdue = now >= drain.streams_by_s
        else:
            if exchange.cut_at < drain.streams_by_s:
                exchange.cut_at = drain.streams_by_s + random.random() * drain.spread_s
            overdue = now >= exchange.cut_at
        if overdue:
            return True
    return False
