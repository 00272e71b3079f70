"""May an endpoint get something new? Composed of its separate facts, for everybody who shows it.

Pure. The data plane composes the same facts on its own, from the board and the snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.stats import ASKS_TO_DRAIN, DOWN, EJECTED, UNCHECKED

STATES = ("available", "down", "unchecked", "ejected", "draining", "unreachable", "full")
"""Of an endpoint, for metrics and views; one that asks to be drained is draining."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is true of an endpoint, each by its own source."""

    up: bool
    """By its checks; without any, while it can be connected to."""
    checked: bool | None
    """Whether a check has passed since it was listed; None without checks."""
    ejected: bool
    asks_to_drain: bool
    draining: bool
    """By an operator, or because it leaves."""
    pool_draining: bool
    reachable: bool
    full: bool = False
    """By its connections; that passes, so it is no reason to send the proxy's own clients away."""

    @property
    def available(self) -> bool:
        return self.is_fit and not self.draining and not self.pool_draining and not self.full

    @property
    def is_fit(self) -> bool:
        """Available, but for a drain: whether its pool could take over."""
        return self.up and self.reachable and not self.ejected and not self.asks_to_drain

    @property
    def state(self) -> str:
        """Return the most telling word of STATES."""
        said = (
            ("draining", self.draining),  # who drains an endpoint may well stop it then
            ("unchecked", self.checked is False),
            ("down", self.checked is not None and not self.up),
            ("ejected", self.ejected),
            ("draining", self.asks_to_drain),
            ("unreachable", not self.reachable),
            ("draining", self.pool_draining),
            ("full", self.full),
        )
        return next((word for word, is_so in said if is_so), "available")


def facts(
    bits: int,
    *,
    has_checks: bool,
    draining: bool,
    pool_draining: bool,
    reachable: bool,
    full: bool = False,
) -> Facts:
    """Compose what the board says (`bits`) with what the snapshot and the workers say."""
    return Facts(
        up=not bits & (UNCHECKED | DOWN) if has_checks else reachable,
        checked=not bits & UNCHECKED if has_checks else None,
        ejected=bool(bits & EJECTED),
        asks_to_drain=bool(bits & ASKS_TO_DRAIN),
        draining=draining,
        pool_draining=pool_draining,
        reachable=reachable,
        full=full,
    )


def problem(found: Facts, last_check: str | None) -> str | None:
    """Why an endpoint cannot take traffic, with its last check in words; None when it can."""
    if found.is_fit:
        return None
    if not found.up and found.checked is not None:
        return last_check or "not checked yet"
    if found.ejected:
        return "ejected"
    if found.asks_to_drain:
        return "asks to be drained"
    return "could not be connected to"
