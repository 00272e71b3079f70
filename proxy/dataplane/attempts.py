"""Attempts of an exchange: an endpoint is picked and connected to, and the next one when that fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from proxy import stats
from proxy.dataplane import faults, lease
from proxy.dataplane.decision import pick
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
    endpoint = pick(service, decision, exchange.client.origin.address, exchange.tried, now)
    if endpoint is None:
        sticky = service.spec.sticky
        bound = sticky.by != "none" and sticky.on_unavailable == "fail"
        exchange.refuse(faults.NO_POOL if fault is None or bound else fault)
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
        _connect(exchange, endpoint, service)


def connect_failed(exchange: Exchange, fault: Fault) -> None:
    """Pass the endpoint over: nothing was sent, so another one may have the request."""
    endpoint, pool = exchange.endpoint, exchange.pool
    if exchange.is_done or endpoint is None or pool is None:
        return
    pool.words[pool.slot + stats.P_PASSED_OVER] += 1
    exchange.count_failure(fault)
    note_failure(exchange, fault)
    exchange.leave()
    if exchange.tried is None:
        exchange.tried = set()
    exchange.tried.add(endpoint)
    decide_again(exchange)
    begin(exchange, fault)
    exchange.flush_request()


def may_send_again(exchange: Exchange, upstream: Upstream) -> bool:
    """Whether a kept connection has died before the endpoint can have seen the request."""
    return (
        upstream.is_reused
        and not upstream.parser.began
        and not exchange.body_sent
        and exchange.head.method in IDEMPOTENT
    )


def send_again(exchange: Exchange) -> None:
    """Send the request on a new connection: the kept one had died before we used it."""
    endpoint, pool, service = exchange.endpoint, exchange.pool, exchange.service
    if endpoint is None or pool is None or service is None:
        return
    pool.words[pool.slot + stats.P_STALE] += 1
    if endpoint.drain is not None or endpoint.gone or not pool.is_open:
        exchange.leave()
        decide_again(exchange)
        begin(exchange, None)
        exchange.flush_request()
    else:
        _connect(exchange, endpoint, service)


def _connect(exchange: Exchange, endpoint: EndpointLive, service: ServiceLive) -> None:
    timeout_s = service.spec.timeouts.connect_s
    lease.connect(endpoint, exchange, timeout_s, time.monotonic, exchange.plane.report)


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
