"""Drains: derived from every change in one place, asked for by operators, ended when empty.

Pure. A pool whose weight falls to zero drains; an endpoint that is no longer listed stays,
draining, until it is empty or its deadlines are over; an operator may drain either by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from proxy.control.decision import Author, Decision, because
from proxy.control.refusal import NotFound, Refused
from proxy.control.state import ByEndpoint, Change, Draining, ServiceState
from proxy.model import WHOLE
from proxy.stats import CLASSES

GRACE_S = 2.0
"""Workers look at deadlines in sweeps; only after this much more do we call a drain over."""

Cut = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRules:
    """The service's `drain` settings, and whether bound clients keep coming meanwhile."""

    requests_s: float = 30.0
    streams_s: float = 300.0
    spread_s: float = 10.0
    keeps_bound: bool = False
    """`sticky.on_zero: finish`."""

    def begin(self, now: float, *, by_operator: bool = False) -> Draining:
        return Draining(
            since=now,
            requests_by=now + self.requests_s,
            streams_by=now + self.streams_s,
            spread_s=self.spread_s,
            by_operator=by_operator,
        )


class Gauges(Protocol):
    """What the workers have in flight, read from their counters."""

    def pool(self, service: str, pool: str) -> tuple[int, int, int]:
        """In flight by class."""
        ...

    def endpoint(self, service: str, pool: str, address: str) -> int: ...

    def cut_since(self, service: str, pool: str, since: float) -> Cut:
        """Exchanges cut by class since the drain that began at `since`."""
        ...


# ---- what follows from a change ----


def settle(
    before: ServiceState, after: ServiceState, rules: DrainRules, *, now: float, offset: int
) -> ServiceState:
    """Add to a change what follows from it: drains begun and lifted, the offset redrawn.

    `offset` is where the candidate's interval begins if a split leaves 100/0 now, so that
    it is not always the same clients who go first. A split that goes back towards the pool
    that was in charge before keeps its offset: the last to leave are the first to return.
    """
    if WHOLE in before.shares.values() and WHOLE not in after.shares.values():
        rising = {p for p, share in after.shares.items() if share and not before.shares.get(p)}
        if before.previous_active not in rising:
            after = replace(after, offset=offset)
    leaving = _leaving(before, after, rules.begin(now))
    after = replace(after, pool_drains=_pool_drains(before, after, rules.begin(now)))
    listed = set(after.listed())
    kept = _only(after.endpoint_drains, lambda pool, address: (pool, address) in listed)
    return replace(after, leaving=leaving, endpoint_drains=kept)


def _pool_drains(before: ServiceState, after: ServiceState, fresh: Draining) -> dict[str, Draining]:
    drains = {pool: drain for pool, drain in after.pool_drains.items() if pool in after.pools}
    was, now = before.shares, after.shares
    for pool in after.pools:
        running = drains.get(pool)
        if was.get(pool, 0) > 0 and now[pool] == 0:
            drains[pool] = running if running and running.is_running else fresh
        elif now[pool] == WHOLE or (now[pool] > 0 and was.get(pool, 0) == 0):
            drains.pop(pool, None)
    return drains


def _leaving(
    before: ServiceState, after: ServiceState, fresh: Draining
) -> dict[str, dict[str, Draining]]:
    listed = set(after.listed())
    kept = _only(after.leaving, lambda pool, address: (pool, address) not in listed)
    leaving = {pool: dict(drains) for pool, drains in kept.items()}
    for pool, address in before.listed():
        if (pool, address) not in listed:
            drain = _already(before, pool, address) or fresh
            leaving.setdefault(pool, {})[address] = drain
    return leaving


def _already(state: ServiceState, pool: str, address: str) -> Draining | None:
    """Find a drain that concerns the endpoint already: being removed prolongs no deadline."""
    own = state.endpoint_drains.get(pool, {}).get(address)
    for drain in (own, state.pool_drains.get(pool)):
        if drain and drain.is_running:
            return drain
    return None


# ---- by command ----


def drain(
    state: ServiceState, pool: str, endpoint: str | None, rules: DrainRules, author: Author
) -> Change:
    """Drain a pool or an endpoint by hand; no decision when it joins a drain that runs already."""
    if endpoint is None:
        return _drain_pool(state, pool, rules, author)
    return _drain_endpoint(state, pool, endpoint, rules, author)


def undo(state: ServiceState, pool: str, endpoint: str | None, author: Author) -> Change:
    """Lift a drain: what it has not ended yet may go on, and new traffic may come."""
    if endpoint is None:
        if pool not in state.pool_drains:
            raise Refused(f"{pool} is not draining")
        drains = {name: drain for name, drain in state.pool_drains.items() if name != pool}
        after = replace(state, pool_drains=drains)
    else:
        if endpoint not in state.endpoint_drains.get(pool, {}):
            raise Refused(f"{endpoint} is not draining by command")
        kept = _only(state.endpoint_drains, lambda p, a: (p, a) != (pool, endpoint))
        after = replace(state, endpoint_drains=kept)
    why = because("drain undone by hand", author.reason)
    return Change(state=after, decisions=(_drain_record(state, pool, endpoint, author, why),))


def named(state: ServiceState, pool: str | None, endpoint: str | None) -> str:
    """The pool a drain is about: without a name, the idle one."""
    if pool is None:
        return _idle_pool(state)
    if pool not in state.pools:
        raise NotFound(f"{state.name} has no pool {pool} (it has {', '.join(state.pools)})")
    if endpoint is not None and endpoint not in state.filling(pool).addresses():
        raise NotFound(f"{pool} has no endpoint {endpoint}")
    return pool


def _idle_pool(state: ServiceState) -> str:
    idle = [pool for pool in state.pools if not state.shares[pool]]
    if not idle:
        raise Refused(f"all pools of {state.name} carry traffic; name the one to drain")
    return idle[0]


def _drain_pool(state: ServiceState, pool: str, rules: DrainRules, author: Author) -> Change:
    running = state.pool_drains.get(pool)
    if running and running.is_running:
        return Change(state=state)
    if state.shares[pool] and not _others_can_carry(state, pool):
        raise Refused(f"{pool} carries all of {state.name}; switch first")
    begun = rules.begin(author.at, by_operator=True)
    after = replace(state, pool_drains=dict(state.pool_drains) | {pool: begun})
    why = because("by hand", author.reason)
    return Change(state=after, decisions=(_drain_record(state, pool, None, author, why),))


def _drain_endpoint(
    state: ServiceState, pool: str, endpoint: str, rules: DrainRules, author: Author
) -> Change:
    drained = state.endpoint_drains.get(pool, {})
    if endpoint in drained:
        return Change(state=state)
    is_last = state.usable(pool) == [endpoint]
    if state.shares[pool] and is_last and not _others_can_carry(state, pool):
        raise Refused(f"{endpoint} is the last endpoint of {pool}, which carries {state.name}")
    begun = rules.begin(author.at, by_operator=True)
    drains = {name: dict(each) for name, each in state.endpoint_drains.items()}
    drains.setdefault(pool, {})[endpoint] = begun
    after = replace(state, endpoint_drains=drains)
    why = because("by hand", author.reason)
    return Change(state=after, decisions=(_drain_record(state, pool, endpoint, author, why),))


def _others_can_carry(state: ServiceState, pool: str) -> bool:
    return any(
        state.shares[other] and other not in state.pool_drains and state.usable(other)
        for other in state.other_pools(pool)
    )


def _drain_record(
    state: ServiceState, pool: str, endpoint: str | None, author: Author, why: str
) -> Decision:
    return Decision(
        what="drain",
        who=author.who,
        service=state.name,
        after={"pool": pool, "endpoint": endpoint},
        why=why,
    )


# ---- the end of a drain ----


def is_empty(drain: Draining, in_flight: int, rules: DrainRules, now: float) -> bool:
    """Nothing in flight, and nothing more can come."""
    return in_flight == 0 and not (rules.keeps_bound and now < drain.streams_by)


def is_over(drain: Draining, now: float) -> bool:
    """The workers have cut what was to be cut."""
    return now >= drain.over_at + GRACE_S


def finish(state: ServiceState, rules: DrainRules, gauges: Gauges, now: float) -> Change | None:
    """End the drains that are empty or over; None when there is none to end."""
    ended: list[Decision] = []
    pool_drains = dict(state.pool_drains)
    for pool, running in state.pool_drains.items():
        in_flight = sum(gauges.pool(state.name, pool))
        if running.is_running and (
            is_over(running, now) or is_empty(running, in_flight, rules, now)
        ):
            cut = gauges.cut_since(state.name, pool, running.since)
            pool_drains[pool] = replace(running, ended=now, cut=cut)
            ended.append(_ended(state, pool, None, pool_drains[pool], now))
    endpoint_drains = {pool: dict(each) for pool, each in state.endpoint_drains.items()}
    for pool, address, running in _done(state, state.endpoint_drains, gauges, now):
        cut = gauges.cut_since(state.name, pool, running.since)
        endpoint_drains[pool][address] = replace(running, ended=now, cut=cut)
        ended.append(_ended(state, pool, address, endpoint_drains[pool][address], now))
    gone = set()
    for pool, address, running in _done(state, state.leaving, gauges, now):
        cut = gauges.cut_since(state.name, pool, running.since)
        gone.add((pool, address))
        ended.append(_ended(state, pool, address, replace(running, ended=now, cut=cut), now))
    if not ended:
        return None
    after = replace(
        state,
        pool_drains=pool_drains,
        endpoint_drains=endpoint_drains,
        leaving=_only(state.leaving, lambda pool, address: (pool, address) not in gone),
    )
    return Change(state=after, decisions=tuple(ended))


def running_drains(state: ServiceState) -> list[Draining]:
    """Every drain that `finish` will end some day."""
    every = [*state.pool_drains.values()]
    for by_endpoint in (state.endpoint_drains, state.leaving):
        every.extend(_each(by_endpoint))
    return [each for each in every if each.is_running]


def _each(by_endpoint: ByEndpoint) -> Iterable[Draining]:
    for drains in by_endpoint.values():
        yield from drains.values()


def _done(
    state: ServiceState, by_endpoint: ByEndpoint, gauges: Gauges, now: float
) -> Iterator[tuple[str, str, Draining]]:
    for pool, drains in by_endpoint.items():
        for address, running in drains.items():
            if running.is_running and (
                gauges.endpoint(state.name, pool, address) == 0 or is_over(running, now)
            ):
                yield pool, address, running


def _ended(
    state: ServiceState, pool: str, endpoint: str | None, drain: Draining, now: float
) -> Decision:
    cut = sum(drain.cut)
    return Decision(
        what="drained",
        who="drain",
        service=state.name,
        after={"pool": pool, "endpoint": endpoint},
        why=f"{cut} cut at the deadline" if cut else "empty",
        numbers={
            "took_s": round(now - drain.since, 3),
            "cut": dict(zip(CLASSES, drain.cut, strict=True)),
        },
    )


def _only(
    by_endpoint: ByEndpoint, is_kept: Callable[[str, str], bool]
) -> Mapping[str, Mapping[str, Draining]]:
    """Return the drains of those endpoints only, without pools that have none left."""
    kept = {
        pool: {address: drain for address, drain in drains.items() if is_kept(pool, address)}
        for pool, drains in by_endpoint.items()
    }
    return {pool: drains for pool, drains in kept.items() if drains}
