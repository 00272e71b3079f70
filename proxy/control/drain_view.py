"""The drain object: what is left of a pool or endpoints that are being left, and until when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.control.decision import iso_utc
from proxy.control.drains import DrainRules, Gauges, is_empty, is_over
from proxy.control.fleet import InFlight
from proxy.control.state import Draining, ServiceState
from proxy.stats import CLASSES

View = dict[str, Any]

MOST_SHOWN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What drains: a pool, or one endpoint of it."""

    pool: str
    endpoint: str | None
    drain: Draining


def subjects(state: ServiceState) -> list[Subject]:
    """Everything that drains or has drained, what matters most first.

    Running drains before ended ones, later ones before earlier, pools before endpoints.
    """
    found = [
        Subject(pool=pool, endpoint=None, drain=drain) for pool, drain in state.pool_drains.items()
    ]
    for by_endpoint in (state.endpoint_drains, state.leaving):
        found.extend(
            Subject(pool=pool, endpoint=address, drain=drain)
            for pool, drains in by_endpoint.items()
            for address, drain in drains.items()
        )
    return sorted(
        found,
        key=lambda each: (not each.drain.is_running, -each.drain.since, each.endpoint is not None),
    )


def find(state: ServiceState, pool: str, endpoint: str | None) -> Subject | None:
    return next(
        (each for each in subjects(state) if (each.pool, each.endpoint) == (pool, endpoint)), None
    )


def main_drain_view(
    state: ServiceState, rules: DrainRules, gauges: Gauges, now: float
) -> View | None:
    """The drain of a service that matters most; None when there is none."""
    found = subjects(state)
    return drain_view(state, found[0], rules, gauges, now=now) if found else None


def drain_view(
    state: ServiceState,
    subject: Subject,
    rules: DrainRules,
    gauges: Gauges,
    *,
    now: float,
    items: Iterable[InFlight] = (),
) -> View:
    """The drain object; `items` are exchanges in flight in the subject, when they were asked for."""
    drain, seen = subject.drain, list(items)
    remaining = _remaining(state, subject, gauges, seen) if drain.is_running else (0, 0, 0)
    cut = gauges.cut_since(state.name, subject.pool, drain.since) if drain.is_running else drain.cut
    keeps_bound = rules if subject.endpoint is None else DrainRules()
    left = sum(remaining)
    is_done = not drain.is_running or (
        is_empty(drain, left, keeps_bound, now) or is_over(drain, now)
    )
    view = {
        "pool": subject.pool,
        "endpoint": subject.endpoint,
        "since": iso_utc(drain.since),
        "deadline_s": _left(max(drain.requests_by, drain.streams_by), now, drain),
        "requests_left_s": _left(drain.requests_by, now, drain),
        "streams_left_s": _left(drain.streams_by, now, drain),
        "remaining": dict(zip(CLASSES, remaining, strict=True)),
        "cut": dict(zip(CLASSES, cut, strict=True)),
        "items": [_item(each) for each in seen[:MOST_SHOWN]] if drain.is_running else [],
        "done": is_done,
        "endpoints": _endpoints(state, subject, gauges),
    }
    if keeps_bound.keeps_bound and drain.is_running:
        view["bound_until_s"] = view["streams_left_s"]
    return view


def undone(pool: str, endpoint: str | None) -> View:
    """The object that answers when a drain was undone: the same shape, with nothing left in it."""
    zeros = dict.fromkeys(CLASSES, 0)
    return {
        "pool": pool,
        "endpoint": endpoint,
        "since": None,
        "deadline_s": 0.0,
        "requests_left_s": 0.0,
        "streams_left_s": 0.0,
        "remaining": zeros,
        "cut": dict(zeros),
        "items": [],
        "done": True,
        "undone": True,
        "endpoints": [],
    }


def _left(until: float, now: float, drain: Draining) -> float:
    return round(max(0.0, until - now), 3) if drain.is_running else 0.0


def _remaining(
    state: ServiceState, subject: Subject, gauges: Gauges, seen: list[InFlight]
) -> tuple[int, ...]:
    """In flight by class; of an endpoint only the sum is counted, so `seen` tells the classes."""
    in_pool = gauges.pool(state.name, subject.pool)
    if subject.endpoint is None:
        return in_pool
    total = gauges.endpoint(state.name, subject.pool, subject.endpoint)
    by_class = [sum(each.kind == name for each in seen) for name in CLASSES]
    # Some may have begun or ended since they were listed, or nobody listed them: most likely
    # they are requests, but no more of a class than the whole pool has.
    for place, most in enumerate(in_pool):
        by_class[place] += max(0, min(total - sum(by_class), most - by_class[place]))
    by_class[0] = max(0, by_class[0] + total - sum(by_class))
    return tuple(by_class)


def _endpoints(state: ServiceState, subject: Subject, gauges: Gauges) -> list[View]:
    """Addresses of the pool that drain or leave, with what they have in flight."""
    own: Mapping[str, Draining] = state.endpoint_drains.get(subject.pool, {})
    leaving: Mapping[str, Draining] = state.leaving.get(subject.pool, {})
    listed = (
        [address for pool, address in state.listed() if pool == subject.pool]
        if subject.endpoint is None
        else list(own)
    )
    return [
        {
            "address": address,
            "in_flight": gauges.endpoint(state.name, subject.pool, address),
            "leaving": address in leaving,
        }
        for address in dict.fromkeys((*listed, *leaving))
    ]


def _item(item: InFlight) -> View:
    return {
        "class": item.kind,
        "age_s": round(item.age_s, 3),
        "pool": item.pool,
        "endpoint": item.endpoint,
        "route": item.route,
        "request_id": item.request_id,
    }
