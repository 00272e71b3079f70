"""What the file says of a service, taken out of its configuration: values the pure parts know."""

from __future__ import annotations

from proxy.control.config.schema import PoolConfig, ServiceConfig
from proxy.control.drains import DrainRules
from proxy.control.state import Declared, Filling, Member


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


def _filling(pool: PoolConfig) -> Filling:
    members = (Member(address=each.address, weight=each.weight) for each in pool.endpoints)
    return Filling(members=tuple(members), release=pool.release)
