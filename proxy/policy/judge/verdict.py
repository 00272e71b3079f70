"""A verdict: what the judge says at the end of a tick, with its numbers, and in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Call(Enum):
    CONTINUE = "CONTINUE"
    PASS = "PASS"  # noqa: S105 - no password
    HOLD = "HOLD"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What people call the two pools, and since when they are compared."""

    candidate: str = "candidate"
    active: str = "active"
    since: str = ""
    """Such as `14:02:10 UTC`; empty: not said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One of the tests as it stands: it turns back when `evidence` (in nats) reaches `bar`."""

    __test__ = False  # pytest: this is no test case

    name: str
    evidence: float
    bar: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    call: Call
    reason: str = ""
    """One of the judge's short names, such as `errors` or `guard: down`; empty for CONTINUE."""
    words: str = ""
    """The numbers behind it, in one sentence."""
    tests: tuple[Test, ...] = ()


def share_in_words(bad: float, of: float) -> str:
    """`23 of 412 (5.6 %)`."""
    if of <= 0:
        return "no requests"
    return f"{bad:,.0f} of {of:,.0f} ({_percent(bad / of)})"


def _percent(share: float) -> str:
    percent = 100.0 * share
    if percent == 0 or percent >= 99.95:
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if percent >= 1 else f"{percent:.2g} %"
