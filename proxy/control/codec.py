"""A service's state as JSON and back, for the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from enum import Enum
from typing import Any, TypeVar

from proxy.control.filling import Filling, Member
from proxy.control.rollout.machine import End, Phase, Rollout, Why
from proxy.control.rollout.plan import Plan, Step
from proxy.control.state import (
    ByEndpoint,
    Declared,
    Draining,
    Holding,
    Lockout,
    Override,
    ServiceState,
)

T = TypeVar("T")

Plain = Mapping[str, Any]


def to_plain(state: ServiceState) -> dict[str, Any]:
    return asdict(state, dict_factory=_plain)


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value.value if isinstance(value, Enum) else value for key, value in pairs}


def from_plain(plain: Plain) -> ServiceState:
    """Build a state from what `to_plain` gave; KeyError, TypeError or ValueError if it did not."""
    return ServiceState(
        name=str(plain["name"]),
        file=_declared(plain["file"]),
        weights=_override(plain["weights"], _shares),
        active=_override(plain["active"], str),
        fillings=_present({pool: _override(o, _filling) for pool, o in plain["fillings"].items()}),
        epochs={pool: int(epoch) for pool, epoch in plain["epochs"].items()},
        offset=int(plain["offset"]),
        previous_active=plain["previous_active"],
        pool_drains={pool: _draining(drain) for pool, drain in plain["pool_drains"].items()},
        endpoint_drains=_by_endpoint(plain["endpoint_drains"]),
        leaving=_by_endpoint(plain["leaving"]),
        hold=_holding(plain.get("hold")),
        rollout=_rollout(plain.get("rollout")),  # states of before the first rollout have none
        rollouts=int(plain.get("rollouts", 0)),
        lockout=_lockout(plain.get("lockout")),
        is_removed=bool(plain["is_removed"]),
        revision=int(plain["revision"]),
    )


def _declared(plain: Plain) -> Declared:
    return Declared(
        active=str(plain["active"]),
        shares=_shares(plain["shares"]),
        has_weights=bool(plain["has_weights"]),
        fillings={pool: _filling(filling) for pool, filling in plain["fillings"].items()},
    )


def _shares(plain: Plain) -> dict[str, int]:
    return {pool: int(share) for pool, share in plain.items()}


def _filling(plain: Plain) -> Filling:
    members = (
        Member(address=str(each["address"]), weight=int(each["weight"]))
        for each in plain["members"]
    )
    return Filling(members=tuple(members), release=plain["release"])


def _override(plain: Plain | None, value_of: Callable[[Any], T]) -> Override[T] | None:
    if plain is None:
        return None
    return Override(
        value=value_of(plain["value"]),
        who=str(plain["who"]),
        reason=str(plain["reason"]),
        at=float(plain["at"]),
        until=None if plain["until"] is None else float(plain["until"]),
        under=_override(plain["under"], value_of),
    )


def _present(overrides: Mapping[str, Override[T] | None]) -> dict[str, Override[T]]:
    return {pool: override for pool, override in overrides.items() if override}


def _by_endpoint(plain: Plain) -> ByEndpoint:
    return {
        pool: {address: _draining(drain) for address, drain in drains.items()}
        for pool, drains in plain.items()
    }


def _draining(plain: Plain) -> Draining:
    request, stream, tunnel = plain["cut"]
    return Draining(
        since=float(plain["since"]),
        requests_by=float(plain["requests_by"]),
        streams_by=float(plain["streams_by"]),
        spread_s=float(plain["spread_s"]),
        by_operator=bool(plain["by_operator"]),
        ended=None if plain["ended"] is None else float(plain["ended"]),
        cut=(int(request), int(stream), int(tunnel)),
    )


def _holding(plain: Plain | None) -> Holding | None:
    if plain is None:
        return None
    return Holding(
        since=float(plain["since"]),
        who=str(plain["who"]),
        reason=str(plain["reason"]),
        timeout_s=float(plain["timeout_s"]),
        most=int(plain["most"]),
        until=None if plain["until"] is None else float(plain["until"]),
        released=None if plain["released"] is None else float(plain["released"]),
        over_s=float(plain["over_s"]),
    )


def _rollout(plain: Plain | None) -> Rollout | None:
    if plain is None:
        return None
    before = plain["before"]
    return Rollout(
        id=int(plain["id"]),
        old=str(plain["old"]),
        candidate=str(plain["candidate"]),
        release=plain["release"],
        plan=_plan(plain["plan"]),
        phase=Phase(plain["phase"]),
        step=int(plain["step"]),
        manual_weight=int(plain["manual_weight"]),
        baked_s=float(plain["baked_s"]),
        had=int(plain["had"]),
        began_at=float(plain["began_at"]),
        step_at=float(plain["step_at"]),
        phase_at=float(plain["phase_at"]),
        why=Why(plain["why"]),
        reason=str(plain["reason"]),
        end=End(plain.get("end", "")),
        before=None if before is None else Phase(before),
        who=str(plain["who"]),
        undo=None if plain.get("undo") is None else _filling(plain["undo"]),
    )


def _plan(plain: Plain) -> Plan:
    steps = (
        Step(weight=int(each["weight"]), bake_s=float(each["bake_s"]), pause=bool(each["pause"]))
        for each in plain["steps"]
    )
    return Plan(
        steps=tuple(steps),
        min_requests=int(plain["min_requests"]),
        advance=plain["advance"],
        starve_limit_s=float(plain["starve_limit_s"]),
        on_starved=plain["on_starved"],
        holdback=int(plain["holdback"]),
        keep_old_s=float(plain["keep_old_s"]),
        on_fail=plain["on_fail"],
        on_restart=plain["on_restart"],
        ready_timeout_s=float(plain["ready_timeout_s"]),
        min_ready=None if plain.get("min_ready") is None else int(plain["min_ready"]),
        ask=bool(plain["ask"]),
    )


def _lockout(plain: Plain | None) -> Lockout | None:
    if plain is None:
        return None
    return Lockout(
        release=str(plain["release"]),
        at=float(plain["at"]),
        until=None if plain["until"] is None else float(plain["until"]),
        reason=str(plain["reason"]),
        rollout=int(plain["rollout"]),
    )
