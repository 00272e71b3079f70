"""Credit: how many errors of a client bucket count, so that no single client decides.

A bucket is credited with about as many errors as the others' share of errors predicts for
its own traffic. A client that fails alone therefore counts about once, while a failure that
everybody sees is not clipped. Clipping the candidate can only weaken the case against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from proxy.policy.judge.tick import BUCKETS, added

LEFT_OUT = 3
"""The worst buckets that do not help to predict, if there are four for each of them."""


class Credit:
    def __init__(self, floor: float, width: float, more: float = 0.0) -> None:
        # fixed: a bucket gets max(floor, more + predicted + width * sqrt(predicted)) at most
        self._floor = floor
        self._width = width
        self._more = more
        # since the rollout began, by bucket
        self.requests: list[float] = [0.0] * BUCKETS
        self._errors: list[float] = [0.0] * BUCKETS
        self._credited: list[float] = [0.0] * BUCKETS

    @property
    def clients(self) -> int:
        """Buckets with any traffic."""
        return sum(1 for count in self.requests if count)

    def saw(self, requests: Sequence[float]) -> None:
        self.requests = added(self.requests, requests)

    def give(self, errors: Sequence[float] | None, total: float, *, clip: bool) -> float:
        """How many of this tick's `total` errors, by bucket, count."""
        if not total or errors is None:
            return 0.0 if not total else float(total)
        self._errors = added(self._errors, errors)
        if not clip:
            self._credited = added(self._credited, errors)
            return float(total)
        return self._clipped(errors)

    def _clipped(self, errors: Sequence[float]) -> float:
        worst = self._worst()
        rest_errors = sum(self._errors) - sum(self._errors[each] for each in worst)
        rest_requests = sum(self.requests) - sum(self.requests[each] for each in worst)
        given = 0.0
        for bucket, count in enumerate(errors):
            if not count:
                continue
            is_worst = bucket in worst
            others_errors = rest_errors - (0.0 if is_worst else self._errors[bucket])
            others_requests = rest_requests - (0.0 if is_worst else self.requests[bucket])
            share = others_errors / others_requests if others_requests > 0 else 0.0
            room = self._most(bucket, self.requests[bucket] * share) - self._credited[bucket]
            if room > 0:
                counts = min(count, room)
                self._credited[bucket] += counts
                given += counts
        return given

    def _worst(self) -> Sequence[int]:
        count = min(LEFT_OUT, (self.clients - 1) // 4)
        if count <= 0:
            return ()
        return sorted(range(BUCKETS), key=self._errors.__getitem__, reverse=True)[:count]

    def _most(self, bucket: int, predicted: float) -> float:
        most = self._more + predicted + self._width * sqrt(predicted)
        if self._errors[bucket] > 2.0 * most:  # plainly an outlier: no benefit of the doubt
            most = self._more + predicted
        return max(most, self._floor)

    def dispersion(self) -> float:
        """Pearson's chi-square over its degrees of freedom; 1 unless it is clearly more.

        The design effect of traffic that comes in clusters: errors that sit on few clients are
        fewer observations than they look.
        """
        used = [bucket for bucket in range(BUCKETS) if self.requests[bucket]]
        freedom = len(used) - 1
        credited = sum(self._credited)
        if freedom < 1 or credited <= 0:
            return 1.0
        share = credited / sum(self.requests)
        chi_square = sum(
            (self._credited[each] - self.requests[each] * share) ** 2
            / (self.requests[each] * share)
            for each in used
        )
        return clearly_above_one(chi_square / freedom, freedom)

    def save(self) -> dict[str, Any]:
        return {"requests": self.requests, "errors": self._errors, "credited": self._credited}

    def load(self, saved: dict[str, Any]) -> None:
        self.requests = [float(each) for each in saved["requests"]]
        self._errors = [float(each) for each in saved["errors"]]
        self._credited = [float(each) for each in saved["credited"]]


def clearly_above_one(dispersion: float, freedom: int) -> float:
    """The dispersion if it is more than chance makes it, else 1."""
    return dispersion if dispersion > 1.0 + 2.0 * sqrt(2.0 / freedom) else 1.0
