"""A service's state as JSON and back, for the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from proxy.control.state import (
    ByEndpoint,
    Declared,
    Draining,
    Filling,
    Holding,
    Member,
    Override,
    ServiceState,
)

T = TypeVar("T")

Plain = Mapping[str, Any]


def to_plain(state: ServiceState) -> dict[str, Any]:
    return asdict(state)


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
