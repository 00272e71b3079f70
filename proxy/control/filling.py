"""What a pool is filled with: its endpoints, and the release they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An address of a pool as it was listed, and its weight among the others."""

    address: str
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """What a pool was filled with: its endpoints and the release they run."""

    members: tuple[Member, ...] = ()
    release: str | None = None

    def addresses(self) -> tuple[str, ...]:
        return tuple(member.address for member in self.members)


def release_key(filling: Filling) -> str:
    """What a lockout is known by: the release's label, else the set of its endpoints."""
    return filling.release or ", ".join(sorted(filling.addresses()))


def filling_in_words(filling: Filling) -> dict[str, Any]:
    """Return the filling as plain values, endpoints written as in the file."""
    return {
        "endpoints": [
            member.address
            if member.weight == 1
            else {"address": member.address, "weight": member.weight}
            for member in filling.members
        ],
        "release": filling.release,
    }
