"""What the file says of a service, taken out of its configuration: values the pure parts know."""

from __future__ import annotations

from proxy.control.config.schema import PoolConfig, ServiceConfig
from proxy.control.drains import DrainRules
from proxy.control.prober import CheckSettings
from proxy.control.state import Declared, Filling, Member
from proxy.policy.health import Thresholds


def declared(service: ServiceConfig) -> Declared:
    return Declared(
        active=service.active,
        shares=service.declared_weights(),
        has_weights=bool(service.weights),
        fillings={name: _filling(pool) for name, pool in service.pools.items()},
    )


def drain_rules(service: ServiceConfig) -> DrainRules:
    return DrainRules(
        requests_s=service.drain.requests,
        streams_s=service.drain.streams,
        spread_s=service.drain.spread,
        keeps_bound=service.sticky.by == "cookie" and service.sticky.on_zero == "finish",
    )


def check_settings(service: ServiceConfig) -> CheckSettings | None:
    """How the endpoints are checked; None when they are not."""
    health = service.health
    if health is None:
        return None
    return CheckSettings(
        kind=health.kind,
        path=health.path,
        host=health.host,
        headers={name: value.get_secret_value() for name, value in health.headers.items()},
        statuses=health.statuses,
        verify=health.verify,
        interval_s=health.interval,
        timeout_s=health.timeout,
        limits=Thresholds(rise=health.rise, fall=health.fall),
    )


def _filling(pool: PoolConfig) -> Filling:
    members = (Member(address=each.address, weight=each.weight) for each in pool.endpoints)
    return Filling(members=tuple(members), release=pool.release)
