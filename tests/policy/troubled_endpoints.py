"""The nouns of the simulation of endpoints: what there is, and what is thought of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from proxy.policy.health import Health

Mood = Literal["well", "slow", "flaky", "failing", "dead"]
MOODS: tuple[Mood, ...] = ("well", "slow", "flaky", "failing", "dead")
FAILS = {"well": 0.0, "slow": 0.0, "flaky": 0.4, "failing": 1.0, "dead": 1.0}


@dataclass(eq=False)
class Endpoint:
    """What the world knows of an endpoint, and what the control plane has come to think of it."""

    name: str
    pool: str
    listed_weight: int
    mood: Mood = "well"
    health: Health = field(default_factory=Health)
    is_ejected: bool = False
    is_draining: bool = False
    since: float = -1e9
    readmitted_at: float = -1e9
    next_check: float = 0.0
    good: int = 0
    bad: int = 0
    trips: int = 0
    picked_at: float = 0.0
    available_since: float | None = None
    pool_picks: int = 0
    """First picks in its pool since the endpoint itself was picked."""

    @property
    def is_up(self) -> bool:
        return self.health.verdict == "up" and not self.health.asks_to_drain

    @property
    def is_available(self) -> bool:
        return self.is_up and not self.is_ejected and not self.is_draining


@dataclass(eq=False)
class Member:
    """An endpoint as one worker sees it."""

    endpoint: Endpoint
    key: int
    weight: float = 1.0
    busy: int = 0
    current: float = 0.0
    run: int = 0
    unreachable_until: float = 0.0


@dataclass
class Stretch:
    """A time in which a worker's choice did not change, and what it has picked."""

    signature: tuple[tuple[str, float], ...] = ()
    picks: Counter[str] = field(default_factory=Counter)
