"""The plan of a rollout: its steps and rules, fixed when it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from proxy.model import WHOLE

Advance = Literal["bake", "evidence"]
OnStarved = Literal["wait", "promote", "roll_back"]
OnFail = Literal["roll_back", "pause"]
OnRestart = Literal["resume", "pause"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    weight: int
    """Of the candidate, in hundredths of a percent, 1..WHOLE."""
    bake_s: float = 0.0
    """Judged time to be spent at this weight."""
    pause: bool = False
    """A person has to say go on when it is baked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    steps: tuple[Step, ...]
    """At least one; their weights rise, and the last one is WHOLE."""
    min_requests: int = 100
    advance: Advance = "bake"
    starve_limit_s: float = 1800.0
    on_starved: OnStarved = "wait"
    holdback: int = 100
    """Hundredths of a percent that stay with the old pool while the last step bakes."""
    keep_old_s: float = 600.0
    on_fail: OnFail = "roll_back"
    on_restart: OnRestart = "resume"
    ready_timeout_s: float = 60.0
    """How long the candidate may take to be ready before the first step."""
    min_ready: int | None = None
    """How many endpoints of the candidate have to be ready; None: all."""
    ask: bool = True
    """Whether the old pool is asked before traffic is turned back from 100 %."""

    def weight(self, step: int) -> int:
        """The candidate's weight in a step (counted from 0), the holdback taken off."""
        given = self.steps[step].weight
        return min(given, WHOLE - self.holdback) if step == len(self.steps) - 1 else given

    def step_at_or_above(self, weight: int) -> int:
        """The first step whose weight is at least this one; the last one if none is."""
        for index, step in enumerate(self.steps):
            if step.weight >= weight:
                return index
        return len(self.steps) - 1
