"""Which of the available endpoints takes the request.

The choice is made among those available and by their own weights, so that the
others keep their ratios when one is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log
from typing import Protocol, TypeVar

from proxy.model import Balance

Draw = Callable[[], float]
"""A random number in [0, 1)."""


class Member(Protocol):
    """What balancing knows of an endpoint."""

    @property
    def weight(self) -> float: ...
    @property
    def busy(self) -> int:
        """Requests in flight in this worker."""

    @property
    def key(self) -> int:
        """64-bit hash of the address."""

    current: float
    """Round robin's own state; 0 at first."""


M = TypeVar("M", bound=Member)


class Balancer(Protocol):
    def pick(self, members: Sequence[M], key: int) -> M:
        """One of the available members (never empty); `key` is the client's 64-bit hash."""


class LeastRequests:
    """Power of two choices: of two members drawn by weight, the one with fewer requests per weight.

    A tie goes to the first drawn, so an idle pool is used in the ratio of its weights.
    """

    __slots__ = ("_draw",)

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def pick(self, members: Sequence[M], key: int) -> M:  # noqa: ARG002 - only hash looks at it
        count = len(members)
        if count == 1:
            return members[0]
        weight = members[0].weight
        total = 0.0
        is_even = True
        for member in members:
            total += member.weight
            if member.weight != weight:
                is_even = False
        if is_even:
            # One draw makes both choices: a pair of different members, in order.
            place, other = divmod(int(self._draw() * (count * (count - 1))), count - 1)
            first = members[place]
            second = members[other + 1 if other >= place else other]
            return first if first.busy <= second.busy else second
        first = _drawn(members, self._draw() * total)
        rest = [member for member in members if member is not first]
        second = rest[0] if count == 2 else _drawn(rest, self._draw() * (total - first.weight))
        return first if first.busy * second.weight <= second.busy * first.weight else second


def _drawn(members: Sequence[M], point: float) -> M:
    """The member whose interval of the sum of weights holds the point."""
    for member in members:
        point -= member.weight
        if point < 0:
            return member
    return members[-1]


class RoundRobin:
    """Smooth weighted round robin: 5:1:1 gives a a b a c a a, never five in a row.

    Every turn each member present earns its weight, and the richest one serves
    and pays what all of them earned.
    """

    __slots__ = ()

    def pick(self, members: Sequence[M], key: int) -> M:  # noqa: ARG002 - only hash looks at it
        total = 0.0
        best = members[0]
        richest = best.current + best.weight
        for member in members:
            weight = member.weight
            total += weight
            current = member.current = member.current + weight
            if current > richest:
                best, richest = member, current
        best.current -= total
        return best


class ByHash:
    """Weighted rendezvous hashing: the highest score of client and member together.

    A member's score depends on nobody else, so when one leaves only its own
    clients move. The score is weight / -ln(u) with u uniform in (0, 1), which
    makes each member win in proportion to its weight (Schindelhauer and
    Schomaker, "Weighted distributed hash tables", 2005).
    """

    __slots__ = ()

    def pick(self, members: Sequence[M], key: int) -> M:
        best = members[0]
        if len(members) == 1:
            return best
        highest = -1.0
        for member in members:
            score = member.weight / -log(_uniform(key ^ member.key))
            if score > highest:
                best, highest = member, score
        return best


_MASK = (1 << 64) - 1


def _uniform(bits: int) -> float:
    """A number in (0, 1) from 64 bits, every one of which counts.

    The finaliser of splitmix64; 52 bits and a half make sure that neither end is reached.
    """
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return (((bits ^ (bits >> 31)) >> 12) + 0.5) * 2.0**-52


def balancer(kind: Balance, draw: Draw) -> Balancer:
    """The balancer of a service's `balance` key."""
    if kind == "round_robin":
        return RoundRobin()
    if kind == "hash":
        return ByHash()
    return LeastRequests(draw)
