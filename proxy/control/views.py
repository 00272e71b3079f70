"""What the admin API shows: services, pools, endpoints, drains and overrides as plain JSON values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.control import availability
from proxy.control.availability import Facts
from proxy.control.decision import iso_utc
from proxy.control.drain_view import main_drain_view
from proxy.control.drains import DrainRules
from proxy.control.filling import filling_in_words
from proxy.control.fleet import WorkerState
from proxy.control.gauges import FleetGauges, is_full
from proxy.control.guard.watch import Seen
from proxy.control.health import HealthBook
from proxy.control.percent import percent, percents
from proxy.control.rollout.view import guard_view, lockout_view, rollout_view
from proxy.control.snapshot import Moment
from proxy.control.state import Holding, Override, ServiceState, same_shares
from proxy.model import Endpoint, Limits, Pool, Service
from proxy.policy.ejection import Ejected
from proxy.stats import (
    CLASSES,
    E_FAILURES,
    E_IDLE,
    E_IN_FLIGHT,
    E_OPEN,
    E_PENDING,
    E_REQUESTS,
    E_UNREACHABLE_MS,
    FAILURE_KINDS,
    P_ANSWERS,
    P_CUT,
    P_FAILURES,
    P_IN_FLIGHT,
    P_LATER,
    P_PASSED_OVER,
    P_STALE,
    P_WENT_ON,
    RETRY_OUTCOMES,
    S_RETRY_OUTCOMES,
    Board,
    Totals,
)

View = dict[str, Any]

MOST_REASONS = 5
"""Endpoints that are named where a service has none available."""

_ANSWERS = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaze:
    """What a view is made from, beside the service itself."""

    totals: Totals
    gauges: FleetGauges
    board: Board
    health: HealthBook
    now: Moment
    ejection: Callable[[str, str, str], Ejected | None] = lambda *_: None
    """The ejection of an endpoint by service, pool and address."""
    seen: Callable[[str], Seen | None] = lambda _: None
    """What the guard saw last of a service."""
    guard_mode: Callable[[str], str] = lambda _: "off"

    def facts(self, service: str, pool: Pool, endpoint: Endpoint, *, full: bool = False) -> Facts:
        """What is true of an endpoint at this moment; `full` is only for who shows it."""
        return availability.facts(
            self.board.state(endpoint.slot),
            has_checks=self.health.get((service, pool.name, endpoint.address)) is not None,
            draining=endpoint.drain is not None,
            pool_draining=pool.drain is not None,
            reachable=is_reachable(endpoint, self.totals, self.now.monotonic),
            full=full,
        )

    def problem(self, service: str, pool: Pool, endpoint: Endpoint) -> str | None:
        """Why an endpoint cannot take traffic, in words; None when only a drain keeps it away."""
        known = self.health.get((service, pool.name, endpoint.address))
        found = self.facts(service, pool, endpoint)
        return availability.problem(found, known.words if known else None)


def service_view(service: Service, state: ServiceState, rules: DrainRules, gaze: Gaze) -> View:
    """One service as GET /v1/services/{s} shows it."""
    return {
        "name": state.name,
        "active": state.in_charge,
        "candidate": _candidate(state),
        "previous_active": state.previous_active,
        "weights": {
            "declared": percents(state.file.shares),
            "in_force": percents(state.shares),
            "source": state.source,
        },
        "rollout": rollout_view(state.rollout),
        "guard": guard_view(gaze.guard_mode(state.name), state.rollout, gaze.seen(state.name)),
        "pools": {pool.name: _pool(pool, service.limits, state, gaze) for pool in service.pools},
        "drain": main_drain_view(state, rules, gaze.gauges, gaze.now.wall),
        "hold": hold_view(state.name, state.hold, gaze) if state.hold else None,
        "lockout": lockout_view(state.lockout, gaze.now.wall),
        "overrides": overrides(state),
        "is_leaving": state.is_removed,
        "revision": state.revision,
        "counts": _counts(service.pools, gaze.totals),
        "retries": _retries(service, gaze.totals),
    }


def _candidate(state: ServiceState) -> str | None:
    """The pool on trial, also while it has nothing yet; without a rollout the other one of two."""
    rollout = state.rolling
    if rollout is None:
        return state.candidate
    return None if rollout.candidate_is_active else rollout.candidate


def _pool(pool: Pool, limits: Limits, state: ServiceState, gaze: Gaze) -> View:
    leaving = state.leaving.get(pool.name, {})
    in_flight = gaze.totals.gauges(pool.slot + P_IN_FLIGHT, len(CLASSES))
    return {
        "release": pool.release,
        "weight": percent(pool.weight),
        "draining": pool.drain is not None,
        "in_flight": dict(zip(CLASSES, in_flight, strict=True)),
        "endpoints": [
            _endpoint(state.name, pool, each, limits, gaze) | {"leaving": each.address in leaving}
            for each in pool.endpoints
        ],
    }


def _endpoint(service: str, pool: Pool, endpoint: Endpoint, limits: Limits, gaze: Gaze) -> View:
    totals, slot = gaze.totals, endpoint.slot
    full = is_full(endpoint, limits, totals)
    found = gaze.facts(service, pool, endpoint, full=full)
    known = gaze.health.get((service, pool.name, endpoint.address))
    ejected = gaze.ejection(service, pool.name, endpoint.address)
    return {
        "address": endpoint.address,
        "weight": endpoint.weight,
        "available": found.available,
        "state": found.state,
        "up": found.up,
        "checked": found.checked,
        "last_check": known.words if known else None,
        "last_check_at": known.last_check_at if known else None,
        "since": iso_utc(known.since) if known else None,
        "ejected": found.ejected,
        "ejected_why": ejected.why if ejected else None,
        "ejected_until": iso_utc(gaze.now.wall_of(ejected.until)) if ejected else None,
        "asks_to_drain": found.asks_to_drain,
        "draining": found.draining or found.pool_draining or found.asks_to_drain,
        "reachable": found.reachable,
        "full": full,
        "in_flight": totals.gauge(slot + E_IN_FLIGHT),
        "idle": totals.gauge(slot + E_IDLE),
        "open": totals.gauge(slot + E_OPEN),
        "pending": totals.gauge(slot + E_PENDING),
        "requests": totals.counter(slot + E_REQUESTS),
        "failures": totals.counter(slot + E_FAILURES),
    }


def hold_view(service: str, holding: Holding, gaze: Gaze) -> View:
    """A hold, or the release that follows it until the last held request has gone."""
    left_s = 0.0
    if holding.released is not None:
        left_s = max(0.0, holding.released + holding.over_s - gaze.now.wall)
    return {
        "since": iso_utc(holding.since),
        "by": holding.who,
        "reason": holding.reason,
        "until": iso_utc(holding.until) if holding.until is not None else None,
        "timeout_s": holding.timeout_s,
        "most": holding.most,
        "held": gaze.gauges.held(service),
        "held_bytes": gaze.gauges.held_bytes(service),
        "releasing": not holding.is_held,
        "over_s": holding.over_s,
        "release_left_s": round(left_s, 3),
    }


def is_reachable(endpoint: Endpoint, totals: Totals, monotonic: float) -> bool:
    """Whether a worker would try the endpoint now; without workers nothing speaks against it."""
    until = totals.each(endpoint.slot + E_UNREACHABLE_MS).values()
    return not until or any(each <= monotonic * 1000.0 for each in until)


def why_unavailable(service: Service, gaze: Gaze) -> str | None:
    """Why new traffic of the service, as its weights are, finds no endpoint; None when it does."""
    reasons = []
    for pool in service.pools:
        for endpoint in pool.endpoints if pool.weight else ():
            if gaze.facts(service.name, pool, endpoint).available:
                return None
            reason = gaze.problem(service.name, pool, endpoint) or "draining"
            reasons.append(f"{endpoint.address}: {reason}")
    named = "; ".join(reasons[:MOST_REASONS])
    more = f"; and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
    return f" ({named}{more})" if reasons else ""


def overrides(state: ServiceState) -> list[View]:
    """Every value that differs from the file: since when, by whom, why, until when."""
    shown = []
    if state.active and state.active.value != state.file.active:
        shown.append(_override("active", state.active, state.active.value, state.file.active))
    if state.weights and not same_shares(state.weights.value, state.file.shares):
        value, declared = percents(state.shares), percents(state.file.shares)
        shown.append(_override("weights", state.weights, value, declared))
    for pool, filled in sorted(state.fillings.items()):
        value, declared = (
            filling_in_words(filled.value),
            filling_in_words(state.file.fillings[pool]),
        )
        shown.append(_override(f"pools.{pool}", filled, value, declared))
    return shown


def _override(key: str, override: Override[Any], value: Any, file_value: Any) -> View:
    return {
        "key": key,
        "value": value,
        "file_value": file_value,
        "who": override.who,
        "reason": override.reason,
        "at": iso_utc(override.at),
        "until": iso_utc(override.until) if override.until is not None else None,
    }


def _counts(pools: Iterable[Pool], totals: Totals) -> View:
    return {pool.name: _pool_counts(pool, totals) for pool in pools}


def _pool_counts(pool: Pool, totals: Totals) -> View:
    answers = totals.counters(pool.slot + P_ANSWERS, len(_ANSWERS))
    failures = totals.counters(pool.slot + P_FAILURES, len(FAILURE_KINDS))
    cut = totals.counters(pool.slot + P_CUT, len(CLASSES))
    return {
        "requests": sum(answers),
        "answers": dict(zip(_ANSWERS, answers, strict=True)),
        "failures": dict(zip(FAILURE_KINDS, failures, strict=True)),
        "cut": dict(zip(CLASSES, cut, strict=True)),
        "passed_over": totals.counter(pool.slot + P_PASSED_OVER),
        "stale_connections": totals.counter(pool.slot + P_STALE),
        "tried_again": totals.counter(pool.slot + P_WENT_ON),
        "later_attempts": totals.counter(pool.slot + P_LATER),
    }


def _retries(service: Service, totals: Totals) -> View:
    counts = totals.counters(service.slot + S_RETRY_OUTCOMES, len(RETRY_OUTCOMES))
    return dict(zip(RETRY_OUTCOMES, counts, strict=True))


def worker_view(worker: WorkerState) -> View:
    return {
        "slot": worker.slot,
        "pid": worker.pid,
        "revision": worker.revision,
        "up": worker.up,
        "started_at": iso_utc(worker.started_at),
        "restarts": worker.restarts,
    }


def changes_in_words(decisions: Iterable[Mapping[str, Any]]) -> list[str]:
    """One sentence for each decision of a reload: `shop: weights: the file changed`."""
    return [
        f"{each['service'] or 'proxy'}: {each['what']}"
        f"{_named(each)}: {_brief(each['from'])} -> {_brief(each['to'])} ({each['why']})"
        for each in decisions
    ]


def _named(record: Mapping[str, Any]) -> str:
    key = record["numbers"].get("key")
    return f" {key}" if key else ""


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_brief(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_brief(each) for each in value) + "]"
    return "none" if value is None else str(value)
