"""What an operator's verbs mean: state and arguments in, new state and decisions out.

Pure. A verb that makes no sense as things stand raises a Refusal. Drains and the offset
of the buckets follow from the change afterwards, in `drains.settle`, whoever made it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from proxy.control.decision import Author, Decision, because
from proxy.control.filling import Filling, filling_in_words
from proxy.control.percent import Shares, everything_to, in_words, percent, percents, without_zeros
from proxy.control.refusal import Invalid, NotFound, Refused
from proxy.control.state import Change, Override, ServiceState, same_shares
from proxy.model import WHOLE

T = TypeVar("T")


def set_weights(
    state: ServiceState, shares: Shares, author: Author, *, until: float | None = None
) -> Change:
    """Weights by hand; everything to the pool that is not active is a switch by hand."""
    check_shares(state, shares)
    after = _with_weights(state, shares, author, until)
    why = because("by hand", author.reason)
    target = next((pool for pool, share in shares.items() if share == WHOLE), None)
    if target is not None and target != state.in_charge:
        why = because(f"by hand, and {target} is the active pool now", author.reason)
        after = _with_active(after, target, author, until)
    numbers = {} if until is None else {"ttl_s": round(until - author.at, 3)}
    return _changed("weights", state, _tidy(after), author, why=why, numbers=numbers)


def check_switch(state: ServiceState, to: str) -> None:
    """Refuse a switch that cannot be made whatever the endpoints say."""
    _check_pool_named(state, to, "to")
    if state.is_all_on(to) and state.in_charge == to:
        raise Refused(f"{to} is already active and carries all of {state.name}")
    if not state.usable(to):
        raise Refused(f"{to} is not ready: {_no_endpoint(state, to)}")


def check_ready(
    state: ServiceState,
    to: str,
    problems: Mapping[str, str | None],
    *,
    beside: str | None = None,
    available: int | None = None,
) -> None:
    """Refuse a pool with nothing ready, or with fewer ready than half of what `beside` has.

    `problems` tells for each address why it is not ready, None when it is; `available` how
    many endpoints of `beside` can take traffic, where that is known.
    """
    ready = [address for address, problem in problems.items() if problem is None]
    said = "; ".join(f"{address}: {problem}" for address, problem in problems.items() if problem)
    if not ready:
        why = f"{said} ({_FORCE})" if said else _no_endpoint(state, to)
        raise Refused(f"{to} is not ready: {why}")
    wanted = available if available is not None else len(state.usable(beside)) if beside else 0
    if 2 * len(ready) < wanted:
        raise Refused(
            f"{to} is not ready: {len(ready)} of its {len(problems)} endpoints can take traffic, "
            f"fewer than half of the {wanted} of {beside}"
            + (f"; {said}" if said else "")
            + f" ({_FORCE})"
        )


_FORCE = "--force overrides"


def enough_ready(state: ServiceState, beside: str | None) -> int:
    """How many ready endpoints `check_ready` asks for."""
    return max(1, (len(state.usable(beside)) + 1) // 2) if beside else 1


def switch(state: ServiceState, to: str, author: Author, *, force: bool = False) -> Change:
    """All weight to `to` at once; what was active before is remembered."""
    check_switch(state, to)
    after = _with_active(state, to, author, None)
    after = _with_weights(after, everything_to(to), author, None)
    why = because("forced" if force else "by hand", author.reason)
    return _changed("switch", state, _tidy(after), author, why=why, numbers={"force": force})


def rollback_target(state: ServiceState) -> str:
    """Find where a rollback would go; Refused when there is nothing to go back to."""
    if state.candidate:
        return state.in_charge
    target = state.previous_active
    if target is None or target not in state.pools:
        raise Refused(
            f"{state.name} has nothing to go back to: no pool was active before {state.in_charge}"
        )
    if state.is_all_on(target):
        raise Refused(f"{target} carries all of {state.name} already")
    return target


def rollback(state: ServiceState, author: Author, *, force: bool = False) -> Change:
    """Everything back to the pool in charge before; cookies of the pool it leaves are void."""
    target = rollback_target(state)
    if not state.usable(target):
        raise Refused(f"{target} cannot take over: {_no_endpoint(state, target)}")
    left = [pool for pool, share in state.shares.items() if share and pool != target]
    epochs = dict(state.epochs) | {pool: state.epochs.get(pool, 0) + 1 for pool in left}
    after = _with_active(state, target, author, None)
    after = _with_weights(after, everything_to(target), author, None)
    # Going back once more would lead to the very pool that was just left.
    after = replace(after, epochs=epochs, previous_active=None)
    why = because("forced" if force else "by hand", author.reason)
    return _changed("rollback", state, _tidy(after), author, why=why, numbers={"force": force})


def with_everything_to(state: ServiceState, pool: str, author: Author) -> ServiceState:
    """All weight to `pool`, and `pool` in charge; nothing said where the file says the same."""
    after = _with_active(state, pool, author, None)
    return _tidy(_with_weights(after, everything_to(pool), author, None))


def set_pool(state: ServiceState, pool: str, filling: Filling, author: Author) -> Change:
    """Fill a pool with other endpoints or another release."""
    if pool not in state.pools:
        raise NotFound(f"{state.name} has no pool {pool} (it has {', '.join(state.pools)})")
    _check_filling(state, pool, filling)
    override = overlay(state.fillings.get(pool), filling, author, None)
    after = _tidy(replace(state, fillings=dict(state.fillings) | {pool: override}))
    decision = Decision(
        what="pool",
        who=author.who,
        service=state.name,
        before={pool: filling_in_words(state.filling(pool))},
        after={pool: filling_in_words(filling)},
        why=because("by hand", author.reason),
    )
    return Change(state=after, decisions=(decision,))


def expire(state: ServiceState, now: float) -> Change | None:
    """Drop what was set for a time that is over; None when there is nothing to drop."""
    if state.is_split_by_rollout:
        return None  # it is over them, and its end settles who has what
    weights, active = unexpired(state.weights, now), unexpired(state.active, now)
    if weights is state.weights and active is state.active:
        return None
    after = replace(state, weights=weights, active=active)
    if after.in_charge != state.in_charge:
        after = replace(after, previous_active=None)
    gone = state.weights if weights is not state.weights else state.active
    assert gone is not None, "one of the two has just run out"
    layer = after.weights or after.active
    then = f"what {layer.who} set before" if layer else "the file's value"
    why = because(f"the time set by {gone.who} is over; {then} is in force again", gone.reason)
    author = Author(who="ttl", at=now)
    return _changed("ttl", state, _tidy(after), author, why=why, numbers={})


def next_expiry(state: ServiceState) -> float | None:
    """Wall seconds of the next `expire` that has something to do."""
    times = [layer.until for layer in (state.weights, state.active) if layer]
    return min((until for until in times if until is not None), default=None)


def overlay(
    below: Override[T] | None, value: T, author: Author, until: float | None
) -> Override[T]:
    """A value set over `below`, which is kept only if it can ever be in force again."""
    under = below if until is not None else None
    while under and until is not None and under.until is not None and under.until <= until:
        under = under.under
    return Override(
        value=value, who=author.who, reason=author.reason, at=author.at, until=until, under=under
    )


def unexpired(layer: Override[T] | None, now: float) -> Override[T] | None:
    while layer and layer.until is not None and layer.until <= now:
        layer = layer.under
    return layer


def _with_weights(
    state: ServiceState, shares: Shares, author: Author, until: float | None
) -> ServiceState:
    value: Shares = without_zeros(shares)
    return replace(state, weights=overlay(state.weights, value, author, until))


def _with_active(
    state: ServiceState, pool: str, author: Author, until: float | None
) -> ServiceState:
    """Put `pool` in charge, and for good where it was so for a time only."""
    is_borrowed = state.active is not None and state.active.until is not None
    if pool == state.in_charge and not is_borrowed:
        return state
    previous = state.previous_active if pool == state.in_charge else state.in_charge
    active = overlay(state.active, pool, author, until)
    return replace(state, active=active, previous_active=previous)


def _tidy(state: ServiceState) -> ServiceState:
    """Drop what only repeats the file: nothing is left there to override."""
    if state.active and state.active.until is None and state.active.value == state.file.active:
        state = replace(state, active=None)
    bare = replace(state, weights=None)
    if (
        state.weights
        and state.weights.until is None
        and same_shares(state.weights.value, state.file.shares)
        and bare.shares == state.shares
    ):
        state = bare
    kept = {
        pool: override
        for pool, override in state.fillings.items()
        if override.value != state.file.fillings.get(pool)
    }
    return state if len(kept) == len(state.fillings) else replace(state, fillings=kept)


def _changed(
    what: str,
    before: ServiceState,
    after: ServiceState,
    author: Author,
    *,
    why: str,
    numbers: Mapping[str, object],
) -> Change:
    """Give a change of weights, with its record."""
    moved = {} if before.in_charge == after.in_charge else {"active": after.in_charge}
    decision = Decision(
        what=what,
        who=author.who,
        service=before.name,
        before=percents(before.shares),
        after=percents(after.shares),
        why=why,
        numbers=dict(numbers) | moved,
    )
    return Change(state=after, decisions=(decision,))


def check_shares(state: ServiceState, shares: Shares) -> None:
    for pool in shares:
        _check_pool_named(state, pool, "weights")
    total = sum(shares.values())
    if any(share < 0 for share in shares.values()) or total != WHOLE:
        raise Invalid(f"weights: {in_words(shares)} do not sum to 100")
    for pool, share in shares.items():
        if share and not state.filling(pool).members:
            raise Refused(f"{pool} has no endpoints; fill it before it gets traffic")


def _check_pool_named(state: ServiceState, pool: str, key: str) -> None:
    if pool not in state.pools:
        has = ", ".join(state.pools)
        raise Invalid(f"{key}: {state.name} has no pool {pool} (it has {has})")


def _check_filling(state: ServiceState, pool: str, filling: Filling) -> None:
    seen: set[str] = set()
    for index, member in enumerate(filling.members):
        key = f"endpoints[{index}]"
        if member.address in seen:
            raise Invalid(f"{key}: {member.address} is listed twice")
        if member.weight < 1:
            raise Invalid(f"{key}: weight {member.weight} (expected 1 or more)")
        seen.add(member.address)
    if filling.members:
        return
    if share := state.shares[pool]:
        raise Refused(
            f"{pool} carries {percent(share)} % of {state.name}; move its traffic before it is emptied"
        )
    later = expire(state, math.inf)
    if later and later.state.shares[pool]:
        raise Refused(f"{pool} gets traffic again when the time of the present weights is over")


def _no_endpoint(state: ServiceState, pool: str) -> str:
    if not state.filling(pool).members:
        return "it has no endpoints"
    return "all of its endpoints are draining"
