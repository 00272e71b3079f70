"""Weights as people write them (percent, two decimals) and as we keep them (hundredths)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from proxy.control.refusal import Invalid
from proxy.model import WHOLE

Shares = Mapping[str, int]
"""Pool -> hundredths of a percent."""


def hundredths(pool: str, percent: Decimal) -> int:
    """Hundredths of a percent; Invalid when out of range or with more than two decimals."""
    if not percent.is_finite() or not 0 <= percent <= 100:
        raise Invalid(f"weights.{pool}: {percent} is not a percentage (expected 0 to 100)")
    scaled = percent * 100
    if scaled != int(scaled):
        raise Invalid(f"weights.{pool}: {percent} has more than two decimals")
    return int(scaled)


def percent(share: int) -> int | float:
    """90 for 9000, 37.5 for 3750: the number that JSON shows."""
    whole, rest = divmod(share, 100)
    return whole if rest == 0 else share / 100


def percents(shares: Shares) -> dict[str, int | float]:
    return {pool: percent(share) for pool, share in sorted(shares.items())}


def in_words(shares: Shares) -> str:
    """`blue 90 %, green 10 %`."""
    return ", ".join(f"{pool} {percent(share)} %" for pool, share in sorted(shares.items()))


def without_zeros(shares: Shares) -> dict[str, int]:
    """Shares by their meaning: a pool that is not named and one with zero are the same."""
    return {pool: share for pool, share in sorted(shares.items()) if share}


def everything_to(pool: str) -> dict[str, int]:
    return {pool: WHOLE}
