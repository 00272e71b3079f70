"""What callers give, made into the values we work with, or refused with the key that is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

from proxy.control.config import addresses, values
from proxy.control.config.problem import Wrong
from proxy.control.filling import Filling, Member
from proxy.control.refusal import Invalid
from proxy.model import WHOLE

LONGEST_HOLD_S = 3600.0
"""That a request may wait, and that a release may take."""
MOST_HELD = 100_000
"""Each one costs its connection and a few KiB."""


def filling(endpoints: Sequence[tuple[str, int]], release: str | None) -> Filling:
    """Endpoints as address and weight, in the spelling that the file's are kept in."""
    members = tuple(
        Member(address=address(f"endpoints[{index}]", written), weight=weight)
        for index, (written, weight) in enumerate(endpoints)
    )
    try:
        label = None if release is None else values.release(release)
    except Wrong as wrong:
        raise Invalid(f"release: {wrong}") from None
    return Filling(members=members, release=label)


def address(key: str, written: str) -> str:
    try:
        return addresses.address(written)
    except Wrong as wrong:
        raise Invalid(f"{key}: {wrong}") from None


def ttl_s(seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds < math.inf:
        raise Invalid("ttl: expected a duration above 0, such as 2h")
    return seconds


def hold_limits(timeout_s: float, most: int) -> None:
    """Refuse a hold nobody could wait in, or that would keep too many."""
    if not 0 < timeout_s <= LONGEST_HOLD_S:
        raise Invalid(f"timeout: expected a duration above 0, up to {LONGEST_HOLD_S:g}s")
    if not 0 < most <= MOST_HELD:
        raise Invalid(f"most: expected a whole number from 1 to {MOST_HELD}")


def over_s(seconds: float) -> float:
    if not 0 <= seconds <= LONGEST_HOLD_S:
        raise Invalid(f"over: expected a duration from 0 to {LONGEST_HOLD_S:g}s")
    return seconds


def check_steps(steps: Sequence[tuple[int, float, bool]]) -> None:
    """Refuse steps that do not rise to everything."""
    if not steps:
        raise Invalid("steps: expected at least one")
    before = 0
    for index, (weight, bake_s, _) in enumerate(steps):
        if not before < weight <= WHOLE:
            raise Invalid(f"steps[{index}].weight: expected weights that rise, up to 100")
        if not 0 <= bake_s < math.inf:
            raise Invalid(f"steps[{index}].bake: expected a duration such as 5m")
        before = weight
    if before != WHOLE:
        raise Invalid("steps: expected 100 in the last step")


def ready_timeout_s(seconds: float) -> float:
    if not 0 < seconds <= LONGEST_HOLD_S:
        raise Invalid(f"ready_timeout: expected a duration above 0, up to {LONGEST_HOLD_S:g}s")
    return seconds
