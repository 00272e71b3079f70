"""One limit over all workers: each gets a share, and nothing is given before it was given back.

A worker may go up to its share without asking anybody, so the shares together are never
more than the limit. Moving a part of it takes two turns: first it is taken from one worker;
a turn later, when that one has seen it and what it has taken meanwhile has been read, it is
given to the other.
"""

from __future__ import annotations

from collections.abc import Sequence

ROTATE_AFTER = 5
"""Turns (half a second) after which a share moves on where there is not one for everybody."""


def deal_caps(
    limit: int, used: Sequence[int], wanted: Sequence[int], *, first: int = 0
) -> list[int]:
    """Shares of `limit`: what each worker uses, what it waits for, and a part of the rest.

    Where there is not enough for all, the modest get what they ask for and the others the
    same each (max-min fairness), which may be less than they use: they take nothing more
    until they are below it. What cannot be divided goes to worker `first` and those after
    it. The shares never sum to more than `limit`. They are where to go, not what to write
    at once: see `Caps`.
    """
    demand = [has + asks for has, asks in zip(used, wanted, strict=True)]
    shares = _fair(limit, demand, first)
    part, odd = divmod(limit - sum(shares), len(shares)) if sum(shares) < limit else (0, 0)
    shares = [share + part for share in shares]
    for worker in sorted(_from(first, len(shares)), key=lambda worker: shares[worker])[:odd]:
        shares[worker] += 1
    return shares


class Caps:
    """The shares of one limit from turn to turn.

    The worker's part of the bargain: it counts what it is about to take where the dealer
    reads it, and only then looks at its share.
    """

    __slots__ = ("_first", "_limit", "_short_for", "shares")

    def __init__(self, workers: int) -> None:
        self.shares = [0] * workers
        self._limit = -1
        self._first = 0
        self._short_for = 0

    def deal(
        self,
        limit: int,
        used: Sequence[int],
        wanted: Sequence[int],
        idle: Sequence[int] | None = None,
    ) -> list[int]:
        """Return the shares to be written now.

        `idle` is the part of `used` that a worker can do without when others wait.
        """
        if limit == self._limit and self._are_good(used, wanted):
            return self.shares
        self._limit = limit
        busy = used
        if idle is not None and any(wanted):
            busy = [max(0, has - rests) for has, rests in zip(used, idle, strict=True)]
        targets = deal_caps(limit, busy, wanted, first=self._first)
        self._rotate(targets, wanted)
        self.shares = _towards(targets, limit, self.shares, used)
        return self.shares

    def _are_good(self, used: Sequence[int], wanted: Sequence[int]) -> bool:
        """Nobody waits or is about to, and nothing is on its way from one to the other."""
        return (
            not any(wanted)
            and sum(self.shares) == self._limit
            and all(has * 2 <= share for has, share in zip(used, self.shares, strict=True))
        )

    def _rotate(self, targets: Sequence[int], wanted: Sequence[int]) -> None:
        is_short = any(asks and not share for asks, share in zip(wanted, targets, strict=True))
        self._short_for = self._short_for + 1 if is_short else 0
        if self._short_for >= ROTATE_AFTER:
            self._short_for = 0
            self._first = (self._first + 1) % len(self.shares)


def _towards(
    targets: Sequence[int], limit: int, shares: Sequence[int], used: Sequence[int]
) -> list[int]:
    """As near to the targets as is safe: what was taken now may still be used until read again."""
    reserved = [max(share, has) for share, has in zip(shares, used, strict=True)]
    free = max(0, limit - sum(reserved))
    result = []
    for target, kept in zip(targets, reserved, strict=True):
        more = min(free, max(0, target - kept))
        free -= more
        result.append(min(target, kept + more))
    return result


def _fair(limit: int, demand: Sequence[int], first: int) -> list[int]:
    """Max-min fair parts of `limit`, at most what is demanded."""
    if sum(demand) <= limit:
        return list(demand)
    shares = [0] * len(demand)
    left = limit
    order = sorted(_from(first, len(demand)), key=lambda worker: demand[worker])
    for place, worker in enumerate(order):
        shares[worker] = min(demand[worker], left // (len(order) - place))
        left -= shares[worker]
    # The last in line got the odd ones; one each from `first` on instead.
    level = max(shares)
    top = [worker for worker in _from(first, len(demand)) if demand[worker] >= level]
    spare = sum(shares[worker] for worker in top)
    part, odd = divmod(spare, len(top))
    for place, worker in enumerate(top):
        shares[worker] = part + (place < odd)
    return shares


def _from(first: int, count: int) -> list[int]:
    return [(first + step) % count for step in range(count)]
