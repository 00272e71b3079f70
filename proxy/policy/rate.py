"""Requests per second over all workers: a token bucket, whose tokens are dealt to the workers.

A worker may have begun as many requests as it was granted since ever. A grant that was not
used is dealt again at the next turn, so that the tokens are where the requests are. What a
worker begins between the reading and the writing is a debt, taken off the next grants: in
the long run not one request too many is let through.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.policy.shares import deal_caps

LEAST_BURST_S = 0.2
"""The bucket holds at least what comes in this time: tokens are dealt ten times a second."""


class TokenBucket:
    """The grants of one service's rate."""

    __slots__ = ("_at", "_first", "_rest", "granted")

    def __init__(self, workers: int) -> None:
        self.granted = [0] * workers
        """What each worker may have begun since its start."""
        self._at: float | None = None
        self._rest = 0.0
        """Tokens that nobody has: less than one, or a debt."""
        self._first = 0

    def restarted(self, worker: int) -> None:
        """A worker has begun to count from zero again; what the last one had is lost."""
        self.granted[worker] = 0

    def deal(
        self, now: float, rate: float, burst: int, begun: Sequence[int], asked: Sequence[int]
    ) -> list[int]:
        """Return the new grants. `asked` is how many requests wanted to begin since the last turn.

        The bucket is full at first and never holds more than `burst`, but at least one token
        for each worker: a lone request must not be refused because it met the wrong one.
        """
        room = max(burst, int(rate * LEAST_BURST_S), len(begun))
        unused = sum(has - spent for has, spent in zip(self.granted, begun, strict=True))
        if self._at is None:
            tokens = float(room)
        else:
            tokens = min(float(room), self._rest + unused + rate * (now - self._at))
        self._at = now
        whole = max(0, int(tokens))
        self._rest = tokens - whole
        self._first = (self._first + 1) % len(begun)
        parts = deal_caps(whole, [0] * len(begun), asked, first=self._first)
        self.granted = [spent + part for spent, part in zip(begun, parts, strict=True)]
        return self.granted
