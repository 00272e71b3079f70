"""The run-time layer of one service: what was set over its file, and what follows from both.

Frozen values of wall-clock seconds and plain words, kept in the state store. Weights in
force, the pool in charge and the endpoints listed are derived here and stored nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from proxy.control.decision import Decision
from proxy.control.filling import Filling
from proxy.control.percent import Shares, everything_to, without_zeros
from proxy.control.rollout.machine import Phase, Rollout
from proxy.model import CLOSE_GRACE_S, WHOLE

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What the file says of one service, as far as the run-time layer may say otherwise."""

    active: str
    shares: Shares
    """Derived where the file gives no weights: everything to the active pool."""
    has_weights: bool = False
    """Whether the file itself gives weights."""
    fillings: Mapping[str, Filling]


@dataclass(frozen=True, slots=True, kw_only=True)
class Override(Generic[T]):
    """A value set at run time over the file's, by whom, why, since when and until when."""

    value: T
    who: str
    reason: str = ""
    at: float
    until: float | None = None
    under: Override[T] | None = None
    """In force again when `until` is over; None is the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """The drain of a pool or an endpoint, in wall seconds, so that it outlives a restart."""

    since: float
    requests_by: float
    streams_by: float
    spread_s: float = 0.0
    by_operator: bool = False
    ended: float | None = None
    cut: tuple[int, int, int] = (0, 0, 0)
    """Exchanges cut at the deadlines by class, known when the drain has ended."""

    @property
    def over_at(self) -> float:
        """When the last class has been cut: what is told to close has until then at most."""
        return max(self.requests_by, self.streams_by + self.spread_s + CLOSE_GRACE_S)

    @property
    def is_running(self) -> bool:
        return self.ended is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """New requests wait: since when, by whom, how long and how many; in wall seconds."""

    since: float
    who: str
    reason: str = ""
    timeout_s: float
    most: int
    until: float | None = None
    """Released by itself then."""
    released: float | None = None
    """Since then those that waited are let go, over `over_s`."""
    over_s: float = 0.0

    @property
    def is_held(self) -> bool:
        return self.released is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lockout:
    """After a rollback the same release may not start again until it is unlocked."""

    release: str
    """Its label, or its endpoints where it has none (see `release_key`)."""
    at: float
    until: float | None = None
    reason: str = ""
    rollout: int = 0

    def is_over(self, now: float) -> bool:
        return self.until is not None and self.until <= now


ByEndpoint = Mapping[str, Mapping[str, Draining]]
"""Pool -> address -> drain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """All that the control plane remembers of one service beside its file."""

    name: str
    file: Declared
    weights: Override[Shares] | None = None
    active: Override[str] | None = None
    fillings: Mapping[str, Override[Filling]] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)
    offset: int = 0
    previous_active: str | None = None
    """The pool to go back to; None when there is none."""
    pool_drains: Mapping[str, Draining] = field(default_factory=dict)
    endpoint_drains: ByEndpoint = field(default_factory=dict)
    """Drains an operator asked for."""
    leaving: ByEndpoint = field(default_factory=dict)
    """Endpoints no longer listed that may still have something in flight."""
    hold: Holding | None = None
    rollout: Rollout | None = None
    """The last one, running or over; None before the first."""
    rollouts: int = 0
    """How many there have been: the last one's id."""
    lockout: Lockout | None = None
    is_removed: bool = False
    """The file no longer has the service; it stays until its endpoints are empty."""
    revision: int = 0
    """Revision of the last change that concerned this service."""

    @property
    def pools(self) -> tuple[str, ...]:
        return tuple(sorted(self.file.fillings))

    @property
    def in_charge(self) -> str:
        """The active pool in force."""
        return self.active.value if self.active else self.file.active

    @property
    def shares(self) -> dict[str, int]:
        """Weights in force, for every pool of the file; they sum to WHOLE.

        Without weights in the file, everything goes to the active pool *in force*.
        """
        if self.is_split_by_rollout:
            assert self.rollout is not None, "it is what splits"
            given: Shares = self.rollout.shares()
        elif self.weights:
            given = self.weights.value
        elif self.file.has_weights:
            given = self.file.shares
        else:
            given = everything_to(self.in_charge)
        return {pool: given.get(pool, 0) for pool in self.pools}

    @property
    def is_split_by_rollout(self) -> bool:
        """Whether the weights follow from the rollout's phase and step."""
        return self.rollout is not None and self.rollout.phase in _SPLITTING

    @property
    def rolling(self) -> Rollout | None:
        """The rollout that is under way."""
        return self.rollout if self.rollout and not self.rollout.is_over else None

    @property
    def source(self) -> str:
        """Say where the weights in force come from: `rollout`, `api` or `file`."""
        if self.is_split_by_rollout:
            return "rollout"
        if self.weights or (self.active and not self.file.has_weights):
            return "api"
        return "file"

    @property
    def candidate(self) -> str | None:
        """The other pool, while both have weight."""
        others = [pool for pool, share in self.shares.items() if share and pool != self.in_charge]
        return others[0] if others and self.shares[self.in_charge] else None

    def filling(self, pool: str) -> Filling:
        override = self.fillings.get(pool)
        return override.value if override else self.file.fillings[pool]

    def listed(self) -> Iterator[tuple[str, str]]:
        """Pool and address of every endpoint that belongs to the service now."""
        if self.is_removed:
            return
        for pool in self.pools:
            for address in self.filling(pool).addresses():
                yield pool, address

    def usable(self, pool: str) -> list[str]:
        """Addresses of the pool that are listed and not drained by an operator."""
        drained = self.endpoint_drains.get(pool, {})
        return [address for address in self.filling(pool).addresses() if address not in drained]

    def is_all_on(self, pool: str) -> bool:
        return self.shares.get(pool) == WHOLE

    def other_pools(self, pool: str) -> list[str]:
        return [name for name in self.pools if name != pool]


_SPLITTING = frozenset(
    {Phase.WARMING, Phase.BAKING, Phase.PAUSED, Phase.MANUAL, Phase.ASKING, Phase.STUCK}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a verb comes to: the state after it, and the records of what it did."""

    state: ServiceState
    decisions: tuple[Decision, ...] = ()


def same_shares(one: Shares, other: Shares) -> bool:
    return without_zeros(one) == without_zeros(other)
