"""What a service's file says of its guard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from proxy.policy.judge import Knobs

Mode = Literal["enforce", "observe", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    mode: Mode = "enforce"
    knobs: Knobs = field(default_factory=Knobs)
    lockout_s: float | None = None
    """How long a release that was turned back stays locked out; None: until it is unlocked."""
