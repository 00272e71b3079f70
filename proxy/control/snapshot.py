"""Configuration and run-time states become the Snapshot that the workers obey.

Pure, but for the areas of the counters that are dealt on the way. Wall-clock times of
the states become monotonic ones here, so that all processes mean the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from proxy.control.config.files import Files
from proxy.control.config.schema import Config, ServiceConfig
from proxy.control.config.sections.door import HeaderRules as HeaderRulesConfig
from proxy.control.config.sections.listener import HstsConfig, ListenerConfig, RedirectConfig
from proxy.control.config.sections.listener import ListenerTls as ListenerTlsConfig
from proxy.control.config.sections.traffic import (
    PreviewConfig,
    RetryConfig,
    ServiceLimits,
    StickyConfig,
)
from proxy.control.keys import Ring, Rings, hex_keys
from proxy.control.slots import SlotBook
from proxy.control.state import Draining, Holding, ServiceState
from proxy.model import (
    AccessLog,
    Certificate,
    Drain,
    Endpoint,
    HeaderRules,
    Hold,
    Limits,
    Listener,
    ListenerTls,
    Page,
    Pool,
    PoolTls,
    Preview,
    Redirect,
    Retries,
    Route,
    Service,
    Snapshot,
    Sticky,
    Timeouts,
)

NO_FILES = Files()


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The same moment on both clocks."""

    monotonic: float
    wall: float

    def monotonic_of(self, wall: float) -> float:
        return self.monotonic + (wall - self.wall)

    def wall_of(self, monotonic: float) -> float:
        return self.wall + (monotonic - self.monotonic)


class Ground(NamedTuple):
    """What every part of a snapshot may be built from."""

    files: Files
    book: SlotBook
    now: Moment
    ticket_secret: str = ""


def build(
    config: Config,
    services: Mapping[str, ServiceConfig],
    states: Mapping[str, ServiceState],
    rings: Rings,
    book: SlotBook,
    *,
    files: Files = NO_FILES,
    ticket_secret: str = "",
    revision: int,
    now: Moment,
) -> Snapshot:
    """Build the snapshot; `services` has those of the file and those that are still leaving."""
    ground = Ground(files, book, now, ticket_secret)
    return Snapshot(
        revision=revision,
        listeners=tuple(_listener(each, ground) for each in config.listeners),
        services=tuple(
            _service(services[name], states[name], rings.get(name, ()), ground)
            for name in sorted(states)
        ),
        access_log=AccessLog(path=config.access_log.path, format=config.access_log.format),
    )


def _listener(listener: ListenerConfig, ground: Ground) -> Listener:
    return Listener(
        bind=listener.bind,
        trusted_proxies=listener.trusted_proxies,
        header_s=listener.timeouts.header,
        idle_s=listener.timeouts.idle,
        max_header=listener.limits.max_header,
        max_headers=listener.limits.max_headers,
        max_connections=listener.limits.max_connections,
        max_per_client=listener.limits.max_connections_per_client,
        tls=_listener_tls(listener.tls, ground),
        proxy_protocol=listener.proxy_protocol,
        redirect=_redirect(listener.redirect),
        slot=ground.book.listener(listener.bind),
    )


def _redirect(redirect: RedirectConfig | None) -> Redirect | None:
    return None if redirect is None else Redirect(port=redirect.port, status=redirect.status)


def _listener_tls(tls: ListenerTlsConfig | None, ground: Ground) -> ListenerTls | None:
    if tls is None:
        return None
    files = ground.files
    return ListenerTls(
        certificates=tuple(
            Certificate(
                chain=files.text(each.cert),
                key=files.text(each.key),
                names=_names(each.cert, files),
            )
            for each in tls.certificates
        ),
        min_version=tls.min_version,
        client_ca=files.text(tls.client_ca),
        client_auth=tls.client_auth,
        ticket_secret=ground.ticket_secret,
        hsts=_hsts(tls.hsts),
    )


def _names(written: str, files: Files) -> tuple[str, ...]:
    facts = files.certificates.get(written)
    return () if facts is None else facts.names


def _hsts(hsts: HstsConfig | None) -> str:
    """The header's value (RFC 6797 section 6.1)."""
    if hsts is None:
        return ""
    parts = [f"max-age={int(hsts.max_age)}"]
    parts += ["includeSubDomains"] if hsts.include_subdomains else []
    parts += ["preload"] if hsts.preload else []
    return "; ".join(parts)


def pool_tls(
    service: ServiceConfig, state: ServiceState, pool: str, files: Files
) -> PoolTls | None:
    """How TLS is spoken to a pool; one that is leaving is not connected to any more."""
    tls = service.pools[pool].tls if pool in service.pools and not state.is_removed else None
    if tls is None:
        return None
    return PoolTls(
        verify=tls.verify,
        ca=files.text(tls.ca),
        server_name=tls.server_name or "",
        certificate=Certificate(chain=files.text(tls.cert), key=files.text(tls.key))
        if tls.cert and tls.key
        else None,
    )


def _rules(rules: HeaderRulesConfig) -> HeaderRules:
    return HeaderRules(
        set=tuple((name, value.get_secret_value()) for name, value in rules.set.items()),
        remove=rules.remove,
    )


def _pages(service: ServiceConfig, files: Files) -> tuple[Page, ...]:
    """Pages by what their files are called: `502.html`, `50x.html`, `error.html` for all others."""
    if service.errors is None:
        return ()
    found = files.pages(service.errors.page)
    return tuple(
        Page(status=int(name.partition(".")[0].rstrip("x").replace("error", "0")), html=html)
        for name, html in found.items()
    )


def _service(service: ServiceConfig, state: ServiceState, ring: Ring, ground: Ground) -> Service:
    routes = () if state.is_removed else service.routes
    now, files = ground.now, ground.files
    pools = sorted({*state.pools, *state.leaving})
    return Service(
        name=state.name,
        routes=tuple(
            Route(host=each.host, path=each.path, strip_prefix=each.strip_prefix) for each in routes
        ),
        pools=tuple(
            _pool(state, pool, pool_tls(service, state, pool, files), ground) for pool in pools
        ),
        active=state.in_charge,
        slot=ground.book.service(state.name),
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
        request_headers=_rules(service.headers.request),
        response_headers=_rules(service.headers.response),
        pages=() if state.is_removed else _pages(service, files),
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


def _pool(state: ServiceState, pool: str, tls: PoolTls | None, ground: Ground) -> Pool:
    book, now = ground.book, ground.now
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
        tls=tls,
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
