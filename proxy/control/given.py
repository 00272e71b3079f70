"""What callers give, made into the values we work with, or refused with the key that is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

from proxy.control.config import addresses, values
from proxy.control.config.problem import Wrong
from proxy.control.refusal import Invalid
from proxy.control.state import Filling, Member


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
