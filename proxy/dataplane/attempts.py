"""Attempts of an exchange: an endpoint is picked and connected to, and the next one when that fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from proxy import stats
from proxy.dataplane import faults, judged, lease, limits
from proxy.dataplane.decision import Decision, pick
from proxy.dataplane.trail import note_failure
from proxy.errors import Fault

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.live import EndpointLive, ServiceLive
    from proxy.dataplane.upstream import Upstream

IDEMPOTENT = frozenset(
    {b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE", b"PROPFIND", b"REPORT", b"SEARCH"}
)
"""Methods that may be sent twice (RFC 9110 section 9.2.2, and WebDAV's readers)."""


def begin(exchange: Exchange, fault: Fault | None) -> None:
    """Take an endpoint that was not tried yet; `fault` is why the last one failed."""
    service, decision, plane = exchange.service, exchange.decision, exchange.plane
    assert service is not None and decision is not None, "begun after the decision"  # noqa: PT018
    now = plane.clock.now
    home = decision.pool
    endpoint = pick(service, decision, exchange.client.origin.address, exchange.tried, now)
    if endpoint is None:
        judged.absent(exchange, home)
        _give_up(exchange, service, decision, fault)
        return
    if endpoint.pool is not home:
        judged.absent(exchange, home)
    if service.adapts and limits.is_over(endpoint.pool):
        limits.refuse_overloaded(exchange, service, endpoint.pool)
        return
    exchange.enter(endpoint)
    head, trail = exchange.head, exchange.trail
    may_repeat = head.length == 0 and head.method in IDEMPOTENT
    if trail is not None:
        if trail.fault is not None:
            trail.attempts += 1
    elif head.length and head.method in IDEMPOTENT and service.spec.retry.attempts:
        exchange.keep_for_retry()
    connection = lease.kept(endpoint, now, may_repeat=may_repeat) if endpoint.idle else None
    if connection is not None:
        exchange.attach(connection)
    else:
        _open(exchange, endpoint)


def _open(exchange: Exchange, endpoint: EndpointLive) -> None:
    """Open a connection, or wait for one; where too many wait already, go elsewhere."""
    room = endpoint.room
    if room.queue:
        room.fill()
    if not room.queue and room.reserve():
        connect(exchange)
    elif not room.wait(exchange, exchange.plane.clock.now):
        _take_back(exchange)
        _note_tried(exchange, endpoint)
        begin(exchange, faults.FULL)


def connect(exchange: Exchange) -> None:
    """Open a connection to the endpoint that was picked, where there is room for it."""
    endpoint, service = exchange.endpoint, exchange.service
    assert endpoint is not None and service is not None, "picked before"  # noqa: PT018
    timeout_s = service.spec.timeouts.connect_s
    lease.connect(endpoint, exchange, timeout_s, time.monotonic, exchange.plane.report)


def _give_up(
    exchange: Exchange, service: ServiceLive, decision: Decision, fault: Fault | None
) -> None:
    """Answer that nobody takes the request, and why."""
    pool = decision.pool
    if fault is None and pool is not None and pool.is_full:
        fault = faults.FULL
    sticky = service.spec.sticky
    if fault is faults.FULL:
        limits.refuse_pending(exchange, service, fault)
    elif fault is None or (sticky.by != "none" and sticky.on_unavailable == "fail"):
        exchange.refuse(faults.NO_POOL)
    else:
        exchange.refuse(fault)


def begin_again(exchange: Exchange) -> None:
    """Decide once more on a request that waits for a connection: its endpoint takes nothing now."""
    endpoint, since = exchange.endpoint, exchange.pending_since
    if endpoint is None:
        return
    endpoint.room.leave(exchange)
    _take_back(exchange)
    decide_again(exchange)
    begin(exchange, None)
    exchange.flush_request()
    if exchange.pending_since:
        exchange.pending_since = since


def _take_back(exchange: Exchange) -> None:
    """Leave the endpoint as if it had not been picked: nothing was sent or even tried."""
    exchange.leave()
    trail = exchange.trail
    if trail is not None and trail.fault is not None:
        trail.attempts -= 1


def connect_failed(exchange: Exchange, fault: Fault) -> None:
    """Pass the endpoint over: nothing was sent, so another one may have the request."""
    endpoint, pool = exchange.endpoint, exchange.pool
    if exchange.is_done or endpoint is None or pool is None:
        return
    pool.words[pool.slot + stats.P_PASSED_OVER] += 1
    exchange.count_failure(fault)
    note_failure(exchange, fault)
    exchange.leave()
    _note_tried(exchange, endpoint)
    decide_again(exchange)
    begin(exchange, fault)
    exchange.flush_request()


def may_send_again(exchange: Exchange, upstream: Upstream, exc: Exception | None) -> bool:
    """Whether a kept connection had died before the endpoint can have seen the request."""
    trail = exchange.trail
    return (
        upstream.is_reused
        and not upstream.parser.began
        and exchange.head.method in IDEMPOTENT
        and (not exchange.body_sent or (trail is not None and trail.kept is not None))
        and upstream.was_dead(exc, judged.began(exchange))
    )


def send_again(exchange: Exchange) -> None:
    """Send the request on a new connection: the kept one had died before we used it."""
    endpoint, pool, service = exchange.endpoint, exchange.pool, exchange.service
    if endpoint is None or pool is None or service is None:
        return
    pool.words[pool.slot + stats.P_STALE] += 1
    if exchange.body_sent:
        exchange.rewind()
    if endpoint.drain is not None or endpoint.gone or not pool.is_open:
        exchange.leave()
        decide_again(exchange)
        begin(exchange, None)
        exchange.flush_request()
    else:
        _open(exchange, endpoint)


def _note_tried(exchange: Exchange, endpoint: EndpointLive) -> None:
    if exchange.tried is None:
        exchange.tried = set()
    exchange.tried.add(endpoint)


def decide_again(exchange: Exchange) -> None:
    """Follow the newest snapshot: a request that was not sent yet shall not be stale."""
    before, decision = exchange.service, exchange.decision
    service = exchange.plane.table.find(exchange.head.host, exchange.head.target)
    if service is None or before is None or decision is None or service is before:
        return
    exchange.service = service
    pool = None if decision.pool is None else service.by_name.get(decision.pool.name)
    if not decision.pinned and (pool is None or not pool.is_open):
        pool = service.pools[service.split.index(decision.bucket)]
    decision.pool = pool
    decision.until = 0.0
