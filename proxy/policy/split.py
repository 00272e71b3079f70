"""The weights cut the range of buckets into pools; a sequence deals the buckets out evenly."""

from __future__ import annotations

from collections import abc

from proxy.model import WHOLE

STEP = 6201
"""The step from one bucket of a `Sequence` to the next.

The golden section of 10,000 would be 6180. Of the steps coprime to 10,000 from
6000 to 6400 this one comes closest to the fair share: in any 1,000 consecutive
buckets an interval of 0.1, 1, 10 or 37.5 %, wherever it lies, gets what is due
to it give or take 1 (6181: give or take 2). A test counts all of them.
"""


class Split:
    """From bucket to pool. Built when a snapshot is applied, asked once per request.

    The weights are those of the pools in the order of their names, in hundredths
    of a percent, and sum to WHOLE. The last pool's interval begins at `offset`,
    the one before it follows, and so on round the range to the first. The border
    at `offset` stands still, so with two pools a change of the weights moves only
    the buckets between the old and the new border of the other end, all in the
    same direction. With more than two this holds for the outer ones: what the
    first gives up the last takes by pushing those between along.
    """

    __slots__ = ("_borders", "_last", "_last_weight", "_offset")

    def __init__(self, weights: abc.Sequence[int], offset: int) -> None:
        if sum(weights) != WHOLE or min(weights) < 0:
            raise ValueError(f"weights must not be negative and sum to {WHOLE}, got {weights}")
        self._offset = offset
        self._last = len(weights) - 1
        self._last_weight = weights[-1]
        self._borders = _borders_before_last(weights)

    def index(self, bucket: int) -> int:
        """Index of the pool that a bucket of 0..WHOLE-1 belongs to."""
        place = (bucket - self._offset) % WHOLE
        if place < self._last_weight:
            return self._last
        for border, index in self._borders:
            if place < border:
                return index
        # The borders end at WHOLE and a place is below it, so this cannot be.
        raise AssertionError(f"bucket {bucket} lies in no pool")


def _borders_before_last(weights: abc.Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(place where its interval ends, index) of every pool but the last, backwards.

    A pool without weight has an interval without places, so it is never reached.
    """
    borders = []
    end = weights[-1]
    for index in range(len(weights) - 2, -1, -1):
        end += weights[index]
        borders.append((end, index))
    return tuple(borders)


class Sequence:
    """Buckets for requests without stickiness, far more even than luck: an additive recurrence.

    The step is coprime to WHOLE, so any WHOLE consecutive buckets are a permutation.
    """

    __slots__ = ("_at",)

    def __init__(self, start: int) -> None:
        self._at = start % WHOLE

    def next(self) -> int:
        """The next bucket; the first one is `start` itself."""
        bucket = self._at
        self._at = (bucket + STEP) % WHOLE
        return bucket
