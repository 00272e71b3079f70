"""File against API: what a changed file means for what was set at run time.

Pure. A run-time value survives unless *that* value changed between the old file and the
new one; then the file wins. One decision for each value that changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

from proxy.control.decision import Decision
from proxy.control.filling import Filling, filling_in_words
from proxy.control.percent import Shares, percents
from proxy.control.state import Change, Declared, Override, ServiceState, same_shares

T = TypeVar("T")

BY_FILE = "file"


def begin(
    name: str, declared: Declared, *, after: ServiceState | None = None, offset: int = 0
) -> Change:
    """Begin a service that is new in the file; `after` is its former life, still leaving."""
    state = ServiceState(name=name, file=declared, offset=offset)
    if after is not None:
        state = replace(
            state,
            leaving=after.leaving,
            epochs=after.epochs,
            rollouts=after.rollouts,
            lockout=after.lockout,
        )
    return Change(state=state, decisions=(_record(name, "service", None, declared.active, _ADDED),))


def remove(state: ServiceState) -> Change:
    """The file no longer has the service: its endpoints leave, and it vanishes when empty."""
    after = replace(
        state,
        is_removed=True,
        weights=None,
        active=None,
        fillings={},
        previous_active=None,
        hold=None,
    )
    record = _record(state.name, "service", state.in_charge, None, "removed from the file")
    return Change(state=after, decisions=(record,))


def reconcile_file(state: ServiceState, declared: Declared) -> Change:
    """Put the new file under the run-time layer."""
    active, active_why = _active(state, declared)
    weights, weights_why = _weights(state, declared)
    fillings, filling_whys = _fillings(state, declared)
    after = replace(state, file=declared, active=active, weights=weights, fillings=fillings)
    after = replace(after, previous_active=_previous(state, after))
    if not weights_why and not same_shares(state.shares, after.shares):
        weights_why = _CHANGED  # they follow the active pool where the file gives none
    decisions = [
        _record(state.name, "active", state.in_charge, after.in_charge, active_why),
        _record(state.name, "weights", percents(state.shares), percents(after.shares), weights_why),
        *(
            _record(state.name, "pool", _pool(state, pool), _pool(after, pool), why)
            for pool, why in filling_whys.items()
        ),
    ]
    return Change(state=after, decisions=tuple(each for each in decisions if each.why))


_ADDED = "added to the file"
_CHANGED = "the file changed"


def _active(state: ServiceState, declared: Declared) -> tuple[Override[str] | None, str]:
    if declared.active != state.file.active:
        return None, _file_wins(state.active, lambda value: value)
    kept = _surviving(state.active, lambda value: value in declared.fillings)
    return kept, "" if kept is state.active else _gone(state.active)


def _weights(state: ServiceState, declared: Declared) -> tuple[Override[Shares] | None, str]:
    if not same_shares(declared.shares, state.file.shares):
        return None, _file_wins(state.weights, _shares_in_words)
    kept = _surviving(
        state.weights,
        lambda shares: all(pool in declared.fillings for pool, share in shares.items() if share),
    )
    return kept, "" if kept is state.weights else _gone(state.weights)


def _fillings(
    state: ServiceState, declared: Declared
) -> tuple[dict[str, Override[Filling]], dict[str, str]]:
    kept: dict[str, Override[Filling]] = {}
    whys: dict[str, str] = {}
    for pool in sorted({*state.file.fillings, *declared.fillings}):
        override = state.fillings.get(pool)
        if state.file.fillings.get(pool) == declared.fillings.get(pool):
            if override:
                kept[pool] = override
        elif pool not in declared.fillings:
            whys[pool] = "removed from the file"
        else:
            whys[pool] = _file_wins(override, _filling_in_short)
    return kept, whys


def _surviving(layer: Override[T] | None, can_stay: Any) -> Override[T] | None:
    """Return the layer without the values that name a pool that is gone."""
    if layer is None:
        return None
    under = _surviving(layer.under, can_stay)
    if not can_stay(layer.value):
        return under
    return layer if under is layer.under else replace(layer, under=under)


def _previous(before: ServiceState, after: ServiceState) -> str | None:
    previous = before.previous_active
    if after.in_charge != before.in_charge:
        previous = before.in_charge
    return previous if previous in after.file.fillings else None


def _file_wins(override: Override[T] | None, in_short: Any) -> str:
    if override is None:
        return _CHANGED
    why = f"{_CHANGED}; it wins over {override.who}'s {in_short(override.value)}"
    return f"{why} ({override.reason})" if override.reason else why


def _gone(override: Override[T] | None) -> str:
    assert override is not None, "only an override can name a pool that is gone"
    return f"what {override.who} set named a pool that the file no longer has"


def _shares_in_words(shares: Shares) -> str:
    return "/".join(str(share) for share in percents(shares).values())


def _filling_in_short(filling: Filling) -> str:
    return f"{_listing(filling.addresses())}, {f'release {filling.release}' if filling.release else 'no release'}"


def _listing(addresses: Iterable[str]) -> str:
    return ", ".join(addresses) or "no endpoints"


def _pool(state: ServiceState, pool: str) -> dict[str, Any] | None:
    if pool not in state.file.fillings:
        return None
    return {pool: filling_in_words(state.filling(pool))}


def _record(service: str, what: str, before: Any, after: Any, why: str) -> Decision:
    return Decision(what=what, who=BY_FILE, service=service, before=before, after=after, why=why)
