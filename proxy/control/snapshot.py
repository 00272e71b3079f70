"""Configuration and run-time states become the Snapshot that the workers obey.

Pure, but for the areas of the counters that are dealt on the way. Wall-clock times of
the states become monotonic ones here, so that all processes mean the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.control.config.schema import (
    Config,
    ListenerConfig,
    PreviewConfig,
    RetryConfig,
    ServiceConfig,
    ServiceLimits,
    StickyConfig,
)
from proxy.control.keys import Ring, Rings, hex_keys
from proxy.control.slots import SlotBook
from proxy.control.state import Draining, Holding, ServiceState
from proxy.model import (
    AccessLog,
    Drain,
    Endpoint,
    Hold,
    Limits,
    Listener,
    Pool,
    Preview,
    Retries,
    Route,
    Service,
    Snapshot,
    Sticky,
    Timeouts,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The same moment on both clocks."""

    monotonic: float
    wall: float

    def monotonic_of(self, wall: float) -> float:
        return self.monotonic + (wall - self.wall)

    def wall_of(self, monotonic: float) -> float:
        return self.wall + (monotonic - self.monotonic)


def build(
    config: Config,
    services: Mapping[str, ServiceConfig],
    states: Mapping[str, ServiceState],
    rings: Rings,
    book: SlotBook,
    *,
    revision: int,
    now: Moment,
) -> Snapshot:
    """Build the snapshot; `services` has those of the file and those that are still leaving."""
    return Snapshot(
        revision=revision,
        listeners=tuple(_listener(each, book) for each in config.listeners),
        services=tuple(
            _service(services[name], states[name], rings.get(name, ()), book, now)
            for name in sorted(states)
        ),
        access_log=AccessLog(path=config.access_log.path, format=config.access_log.format),
    )


def _listener(listener: ListenerConfig, book: SlotBook) -> Listener:
    return Listener(
        bind=listener.bind,
        trusted_proxies=listener.trusted_proxies,
        header_s=listener.timeouts.header,
        idle_s=listener.timeouts.idle,
        max_header=listener.limits.max_header,
        max_headers=listener.limits.max_headers,
        max_connections=listener.limits.max_connections,
        slot=book.listener(listener.bind),
    )


def _service(
    service: ServiceConfig, state: ServiceState, ring: Ring, book: SlotBook, now: Moment
) -> Service:
    routes = () if state.is_removed else service.routes
    pools = sorted({*state.pools, *state.leaving})
    return Service(
        name=state.name,
        routes=tuple(Route(host=each.host, path=each.path) for each in routes),
        pools=tuple(_pool(state, pool, book, now) for pool in pools),
        active=state.in_charge,
        slot=book.service(state.name),
        offset=state.offset,
        sticky=_sticky(service.sticky, ring, now),
        preview=_preview(service.preview),
        balance=service.balance,
        eject_after=service.ejection.consecutive_failures if service.ejection else 0,
        slow_start_s=service.slow_start,
        panic=service.panic,
        timeouts=_timeouts(service),
        retry=_retries(service.retry),
        max_body=service.limits.max_body,
        warm_connections=service.warm_connections,
        limits=_limits(service.limits),
        pass_pool=service.headers.pass_pool,
        expose_pool=service.headers.expose_pool,
        health_path=_health_path(service),
        hold=_hold(state.hold, now),
    )


def _hold(holding: Holding | None, now: Moment) -> Hold | None:
    if holding is None:
        return None
    return Hold(
        since_s=now.monotonic_of(holding.since),
        timeout_s=holding.timeout_s,
        most=holding.most,
        released_s=None if holding.released is None else now.monotonic_of(holding.released),
        over_s=holding.over_s,
    )


def _pool(state: ServiceState, pool: str, book: SlotBook, now: Moment) -> Pool:
    share = state.shares.get(pool, 0)
    drain = state.pool_drains.get(pool)
    return Pool(
        name=pool,
        release=state.filling(pool).release if pool in state.pools else None,
        endpoints=_endpoints(state, pool, book, now),
        weight=share,
        epoch=state.epochs.get(pool, 0),
        slot=book.pool(state.name, pool),
        # Weight zero keeps traffic away by itself: an ended drain has nothing left to say there.
        drain=_drain(drain, now) if drain and (drain.is_running or share) else None,
    )


def _endpoints(state: ServiceState, pool: str, book: SlotBook, now: Moment) -> tuple[Endpoint, ...]:
    drained = state.endpoint_drains.get(pool, {})
    leaving = state.leaving.get(pool, {})
    weights: dict[str, int] = {}
    if pool in state.pools and not state.is_removed:
        weights = {each.address: each.weight for each in state.filling(pool).members}
    return tuple(
        Endpoint(
            address=address,
            weight=weights.get(address, 1),
            slot=book.endpoint(state.name, pool, address),
            drain=_drain(drained.get(address) or leaving.get(address), now),
        )
        for address in (*weights, *leaving)
    )


def _drain(drain: Draining | None, now: Moment) -> Drain | None:
    if drain is None:
        return None
    return Drain(
        since_s=now.monotonic_of(drain.since),
        requests_by_s=now.monotonic_of(drain.requests_by),
        streams_by_s=now.monotonic_of(drain.streams_by),
        spread_s=drain.spread_s,
    )


def _sticky(sticky: StickyConfig, ring: Ring, now: Moment) -> Sticky:
    name = sticky.header if sticky.by == "header" else sticky.cookie
    return Sticky(
        by=sticky.by,
        name=name or "" if sticky.by in {"header", "cookie"} else "",
        max_idle_s=sticky.max_idle,
        max_age_s=sticky.max_age,
        on_zero=sticky.on_zero,
        on_unavailable=sticky.on_unavailable,
        endpoint=sticky.endpoint,
        keys=hex_keys(ring, now.wall) if sticky.by != "none" else (),
    )


def _preview(preview: PreviewConfig | None) -> Preview | None:
    secret = preview.secret.get_secret_value() if preview else ""
    if preview is None or not secret:
        return None
    return Preview(header=preview.header, cookie=preview.cookie, secret=secret)


def _health_path(service: ServiceConfig) -> str:
    """What a request for health asks for, without its query."""
    if service.health is None or service.health.kind == "tcp":
        return ""
    return service.health.path.partition("?")[0]


def _retries(retry: RetryConfig | None) -> Retries:
    if retry is None:
        return Retries(attempts=0)
    return Retries(
        attempts=retry.attempts, budget=retry.budget, floor=retry.floor, rescue=retry.rescue
    )


def _limits(given: ServiceLimits) -> Limits:
    return Limits(
        connections=given.per_endpoint_connections,
        pending=given.per_endpoint_pending,
        pending_s=given.pending_timeout,
        rate=given.rate,
        burst=given.burst,
        concurrency=given.concurrency,
        adaptive=given.adaptive == "on",
    )


def _timeouts(service: ServiceConfig) -> Timeouts:
    given = service.timeouts
    return Timeouts(
        connect_s=given.connect,
        response_s=given.response,
        read_stall_s=given.read_stall,
        client_body_s=given.client_body,
        upstream_idle_s=given.upstream_idle,
        upstream_max_age_s=given.upstream_max_age,
        tunnel_idle_s=given.tunnel_idle,
    )
