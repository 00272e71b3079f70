"""An endpoint's health by its active checks: what one more result makes of it.

Pure. Whether it is up and whether it asks to be drained are two facts of their own: an
endpoint that asks is not down, else the work that is bound to it would be taken away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Verdict = Literal["unchecked", "up", "down"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Results in a row that change a verdict."""

    rise: int = 2
    fall: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one check has shown."""

    is_pass: bool
    asks_to_drain: bool | None = None
    """Whether the answer asked for it; None where there was no answer to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What all checks so far have come to."""

    verdict: Verdict = "unchecked"
    against: int = 0
    """Results in a row that speak against the verdict."""
    asks_to_drain: bool = False


def checked(before: Health, outcome: Outcome, limits: Thresholds) -> Health:
    """The health after one more check.

    An endpoint that was never seen up gets its verdict by its first pass: it has nothing to
    lose yet, and waiting for more would only make a deployment slower. Until then no number of
    failures makes it anything but unchecked.

    A failing answer that asks for a drain counts neither way. Applications announce their end
    just so, with a status that fails; the endpoint is alive, and its bound work goes on.
    """
    asks = before.asks_to_drain if outcome.asks_to_drain is None else outcome.asks_to_drain
    after = replace(before, asks_to_drain=asks)
    if outcome.asks_to_drain and not outcome.is_pass:
        return after
    if before.verdict == "unchecked":
        return replace(after, verdict="up", against=0) if outcome.is_pass else after
    if outcome.is_pass == (before.verdict == "up"):
        return replace(after, against=0)
    against = before.against + 1
    if against < (limits.rise if outcome.is_pass else limits.fall):
        return replace(after, against=against)
    return replace(after, verdict="up" if outcome.is_pass else "down", against=0)
