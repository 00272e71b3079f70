"""Patience with an exchange: what waits too long, or outlives a drain, is ended by the sweep."""

from __future__ import annotations

import fcntl
import math
import sys
import termios
from typing import TYPE_CHECKING

from proxy import stats
from proxy.dataplane import attempts, farewell, faults, judged, limits, retry
from proxy.model import Timeouts

if TYPE_CHECKING:
    from proxy.dataplane.downstream import Downstream
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.live import EndpointLive, PoolLive


def sweep(exchange: Exchange, now: float) -> None:
    """End what has waited too long, or outlived the drain of its pool or endpoint."""
    pool, endpoint, service = exchange.pool, exchange.endpoint, exchange.service
    if pool is None or endpoint is None or service is None:
        return
    if exchange.pending_since:
        _sweep_pending(exchange, pool, endpoint, now)
    else:
        if not exchange.is_started:
            judged.look(exchange, pool, service.spec.slot, now)
        _sweep_running(exchange, pool, endpoint, service.spec.timeouts, now)


def _sweep_running(
    exchange: Exchange, pool: PoolLive, endpoint: EndpointLive, timeouts: Timeouts, now: float
) -> None:
    told = exchange.farewell
    if told is not None and told.is_said:  # which stands, though the drain may be lifted since
        if now >= told.cut_at:
            cut(exchange)
    elif (pool.drain is not None or endpoint.drain is not None or endpoint.gone) and (
        _is_overdue(exchange, pool, endpoint, now)
    ):
        cut(exchange)
    elif not _leaves_with_the_worker(exchange, now):
        _sweep_waiting(exchange, timeouts, now)


def _leaves_with_the_worker(exchange: Exchange, now: float) -> bool:
    """Whether it has now been told that the worker ends; what cannot be told is cut at that end."""
    plane = exchange.plane
    return (
        exchange.kind != stats.REQUEST
        and farewell.is_due(exchange, plane.farewell_s, plane.farewell_spread_s, now)
        and farewell.say(exchange)
    )


def _sweep_waiting(exchange: Exchange, timeouts: Timeouts, now: float) -> None:
    waited = now - exchange.touched
    if exchange.kind == stats.TUNNEL:
        if waited > timeouts.tunnel_idle_s and exchange.tunnel is not None:
            exchange.tunnel.abort()
    elif exchange.upstream is None:
        return  # connecting has its own end in time
    elif exchange.is_started or exchange.client.is_paused:
        _sweep_answer(exchange, timeouts, waited, now)
    elif exchange.request_done or exchange.is_paused or _waits_to_be_asked(exchange):
        _sweep_asked(exchange, timeouts.response_s, waited)
    elif waited > timeouts.client_body_s:
        exchange.refuse(faults.BODY_TOO_SLOW, close=True)


def _waits_to_be_asked(exchange: Exchange) -> bool:
    """Whether the client keeps its body until the endpoint says 100; then it is the client's turn."""
    trail = exchange.trail
    return exchange.head.expect and not exchange.bytes_in and (trail is None or not trail.has_told)


def _sweep_pending(exchange: Exchange, pool: PoolLive, endpoint: EndpointLive, now: float) -> None:
    service, decision = exchange.service, exchange.decision
    assert service is not None and decision is not None, "pending after the decision"  # noqa: PT018
    if now - exchange.pending_since > service.spec.limits.pending_s:
        limits.refuse_pending(exchange, service, faults.PENDING_TOO_LONG)
    elif (
        endpoint not in pool.ready
        or endpoint.gone
        or endpoint.unreachable_until > now
        or not (pool.is_open or decision.pinned)
    ):
        attempts.begin_again(exchange)


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


def _sweep_asked(exchange: Exchange, response_s: float, waited: float) -> None:
    """The endpoint has all it needs for an answer."""
    endpoint = exchange.endpoint
    if waited > response_s:
        exchange.upstream_failed(faults.ANSWER_TOO_SLOW)
    elif waited > retry.SILENT_S and endpoint is not None and endpoint.state & retry.LOST:
        retry.leave_silent(exchange)


def _sweep_answer(exchange: Exchange, timeouts: Timeouts, waited: float, now: float) -> None:
    if exchange.client.is_paused:
        if is_deaf(exchange.client, exchange.touched, now):
            exchange.abandon(failed=True)
    else:
        is_stream = exchange.kind == stats.STREAM
        if waited > (timeouts.tunnel_idle_s if is_stream else timeouts.read_stall_s):
            exchange.upstream_failed(faults.ANSWER_STALLED)


def is_deaf(client: Downstream, since: float, now: float) -> bool:
    """Whether it has taken nothing of what is written to it for as long as it may rest.

    The loop hears of room only when a third of the kernel's buffer is free, which may take a
    slow client minutes. So the kernel is asked what it still holds.
    """
    idle_s = client.listener.spec.idle_s
    since = max(since, client.taken_at)
    if now - since <= idle_s / 2:
        return False
    untaken = client.transport.get_write_buffer_size() + _held_by_kernel(client)
    if untaken < client.untaken:
        client.taken_at = now
    elif now - since > idle_s:
        return True
    if untaken < client.untaken or client.untaken < 0:
        client.untaken = untaken
    return False


def _held_by_kernel(client: Downstream) -> int:
    """Bytes the kernel has of us that the client's side has not confirmed."""
    count = bytearray(4)
    sock = client.transport.get_extra_info("socket")
    try:
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, count)
    except (OSError, ValueError):  # it is closed
        return 0
    return int.from_bytes(count, sys.byteorder)


def _is_overdue(exchange: Exchange, pool: PoolLive, endpoint: EndpointLive, now: float) -> bool:
    """Whether the exchange is to be cut; one that can end gently is told so first."""
    if endpoint.gone:
        return True
    by_s, spread_s = math.inf, 0.0
    for drain, since in (
        (endpoint.drain, endpoint.drained_at),
        (pool.drain, pool.drained_at),
    ):
        if drain is None or exchange.started > since:
            continue  # it began later: a preview, or a client that is bound to the pool
        if exchange.kind == stats.REQUEST:
            if now >= drain.requests_by_s:
                return True
        elif drain.streams_by_s < by_s:
            by_s, spread_s = drain.streams_by_s, drain.spread_s
    return farewell.is_due(exchange, by_s, spread_s, now) and not farewell.say(exchange)
