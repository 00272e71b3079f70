"""What the file says of a service, taken out of its configuration: values the pure parts know."""

from __future__ import annotations

from proxy.control.config.schema import ServiceConfig
from proxy.control.config.sections.pool import PoolConfig
from proxy.control.drains import DrainRules
from proxy.control.filling import Filling, Member
from proxy.control.guard.rules import Rules
from proxy.control.hooks import Hook
from proxy.control.prober import CheckSettings
from proxy.control.rollout.plan import Plan, Step
from proxy.control.state import Declared
from proxy.model import WHOLE, PoolTls
from proxy.policy.health import Thresholds
from proxy.policy.judge import Knobs


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


def check_settings(service: ServiceConfig, tls: PoolTls | None = None) -> CheckSettings | None:
    """How the endpoints of a pool are checked; None when they are not."""
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
        tls=tls,
        interval_s=health.interval,
        timeout_s=health.timeout,
        limits=Thresholds(rise=health.rise, fall=health.fall),
    )


def _filling(pool: PoolConfig) -> Filling:
    members = (Member(address=each.address, weight=each.weight) for each in pool.endpoints)
    return Filling(members=tuple(members), release=pool.release)


def plan(service: ServiceConfig) -> Plan:
    """The plan that a rollout beginning now would follow."""
    rollout = service.rollout
    return Plan(
        steps=tuple(
            Step(weight=each.weight, bake_s=each.bake, pause=each.pause) for each in rollout.steps
        ),
        min_requests=rollout.min_requests,
        advance=rollout.advance,
        starve_limit_s=rollout.starve_limit,
        on_starved=rollout.on_starved,
        holdback=rollout.holdback,
        keep_old_s=rollout.keep_old,
        on_fail=rollout.on_fail,
        on_restart=rollout.on_restart,
        ask=service.guard.ask,
    )


def guard_rules(service: ServiceConfig) -> Rules:
    """How a rollout that begins now is judged."""
    guard = service.guard
    return Rules(
        mode=guard.mode,
        knobs=Knobs(
            false_alarm=guard.false_alarm / WHOLE,
            tolerance=guard.tolerance / WHOLE,
            tolerance_abs=guard.tolerance_abs / WHOLE,
            latency=guard.latency,
            latency_tolerance=guard.latency_tolerance / WHOLE,
            latency_floor_s=guard.latency_floor,
            hard_rate=guard.hard_rate / WHOLE,
            min_requests=guard.min_requests,
            warmup_s=guard.warmup,
            count_4xx=guard.count_4xx,
        ),
        lockout_s=guard.lockout or None,
    )


def hooks(service: ServiceConfig) -> tuple[Hook, ...]:
    """Who is told of the moves of the service's rollouts."""
    return tuple(
        Hook(on=each.on, url=each.url, timeout_s=each.timeout, blocking=each.blocking)
        for each in service.rollout.hooks
    )
