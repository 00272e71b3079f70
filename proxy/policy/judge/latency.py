"""Latency: whether slow answers are likelier on the candidate than on the active pool.

"Slow" is measured at three of the active pool's own quantiles, each from its past only; on
the candidate an answer is slow when it is slower than that by the tolerance. The thresholds
need not be right for the test to be valid, only for it to be sharp: if both pools become
three times as slow, both exceed them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Any

from proxy.policy.judge.credit import clearly_above_one
from proxy.policy.judge.evidence import of_slowness
from proxy.policy.judge.knobs import (
    CAP_MILD,
    CAP_SLOW,
    QUANTILES,
    SLOWER_FAST,
    SLOWER_SLOW,
    Knobs,
)
from proxy.policy.judge.tick import BUCKETS, Counts, Numbers, added
from proxy.policy.judge.verdict import Sides, share_in_words
from proxy.policy.judge.wealth import TwoSpeeds, Wealth
from proxy.stats import BINS, BINS_PER_OCTAVE, bin_upper_edge_s

HALF_LIFE_S = 300.0
KNOWN = 200
"""Answers of the active pool from which its quantiles are read."""
TELLING = 3.0
"""The odds by which the quantile that is told to people is chosen."""
BEYOND = 10
"""A quantile needs as many answers beyond it."""

Threshold = tuple[int, int] | None
"""Last bins that are not slow, of the active pool and of the candidate."""


class Latency:
    def __init__(self, knobs: Knobs) -> None:
        self._shift = max(1, round(BINS_PER_OCTAVE * log2(1.0 + knobs.latency_tolerance)))
        self._floor_s = knobs.latency_floor_s
        self.wealth = TwoSpeeds(
            Wealth(len(SLOWER_FAST) * len(QUANTILES), CAP_MILD),
            Wealth(len(SLOWER_SLOW) * len(QUANTILES), CAP_SLOW),
        )
        self.dispersion = 1.0
        """Design effect of clients that differ by themselves."""
        self._past: list[float] = [0.0] * BINS
        self._past_count = 0.0
        self._clients = [[0.0] * BUCKETS for _ in range(3)]
        """The candidate's answers by client bucket: count, sum and squares of log latency."""
        self._thresholds: list[Threshold] = []
        self._block: tuple[Numbers, Numbers] | None = None
        self._slow = self._no_slow()
        self._shown: tuple[list[Threshold], list[list[float]]] = ([], [])
        """Thresholds and sums of the half minute before, for people."""

    # ---- a tick ----

    def add(self, candidate: Counts, active: Counts, *, is_warm: bool) -> None:
        """Gather a tick; while the candidate is warming up only the active pool is learnt."""
        if candidate.latencies is None or active.latencies is None:
            return
        own: Numbers = candidate.latencies if is_warm else [0.0] * BINS
        if self._block is None:
            self._block = (own, active.latencies)
        else:
            self._block = (added(self._block[0], own), added(self._block[1], active.latencies))
        if is_warm and candidate.requests:
            self._add_clients(candidate)

    def _add_clients(self, candidate: Counts) -> None:
        new = (candidate.latency_counts, candidate.log_sums, candidate.log_squares)
        for index, numbers in enumerate(new):
            if numbers is not None:
                self._clients[index] = added(self._clients[index], numbers)

    # ---- a block ----

    def close_block(self, length_s: float) -> None:
        if self._block is None:
            return
        (own, active), self._block = self._block, None
        timed, active_timed = sum(own), sum(active)
        if not self._thresholds:
            self._thresholds = self._read_thresholds()
        if self._thresholds and timed and active_timed:
            self._bet(own, timed, active, active_timed, length_s)
            self._measure_dispersion()
        keep = 0.5 ** (length_s / HALF_LIFE_S)
        self._past = [keep * old + new for old, new in zip(self._past, active, strict=True)]
        self._past_count = keep * self._past_count + active_timed

    def _bet(
        self, own: Numbers, timed: float, active: Numbers, active_timed: float, length_s: float
    ) -> None:
        evidence: list[float] = []
        for threshold, sums in zip(self._thresholds, self._slow, strict=True):
            if threshold is None:
                evidence += [0.0] * len(SLOWER_FAST)
                continue
            counts = (
                sum(own[threshold[1] + 1 :]),
                timed,
                sum(active[threshold[0] + 1 :]),
                active_timed,
            )
            evidence += [of_slowness(odds, *counts) for odds in SLOWER_FAST]
            for index, count in enumerate(counts):
                sums[index] += count
        self.wealth.fast.bet(evidence, length_s)

    def close_half_minute(self, length_s: float) -> None:
        """Judge the small effects, and set the thresholds for the next half minute."""
        if self._thresholds and any(sums[1] for sums in self._slow):
            evidence = [of_slowness(odds, *sums) for sums in self._slow for odds in SLOWER_SLOW]
            self.wealth.slow.bet(evidence, length_s)
        if any(sums[1] for sums in self._slow):
            self._shown = (self._thresholds, self._slow)
        self._thresholds = self._read_thresholds()
        self._slow = self._no_slow()

    @staticmethod
    def _no_slow() -> list[list[float]]:
        return [[0.0, 0.0, 0.0, 0.0] for _ in QUANTILES]

    def _read_thresholds(self) -> list[Threshold]:
        """One for each quantile; None where the active pool's answers are too few for it."""
        if self._past_count < KNOWN:
            return []
        found: list[Threshold] = []
        below, place = 0.0, -1
        for quantile in QUANTILES:
            while below < quantile * self._past_count and place < BINS - 1:
                place += 1
                below += self._past[place]
            if self._past_count * (1.0 - quantile) < BEYOND:
                found.append(None)
            else:
                found.append((place, self._tolerated(place)))
        return found

    def in_words(self, sides: Sides) -> str:
        """How many were slow in this half minute, at the quantile that tells most; "" = unknown."""
        is_begun = any(sums[1] for sums in self._slow)
        thresholds, slow = (self._thresholds, self._slow) if is_begun else self._shown
        known = [
            (of_slowness(TELLING, *sums), threshold, sums)
            for threshold, sums in zip(thresholds, slow, strict=False)
            if threshold is not None
        ]
        if not known:
            return ""
        _, (place, tolerated), (late, timed, active_late, active_timed) = max(known)
        return (
            f"{sides.candidate} {share_in_words(late, timed)} slower than {_in_ms(tolerated)}, "
            f"{sides.active} {share_in_words(active_late, active_timed)} slower than {_in_ms(place)}"
            " in the last half minute"
        )

    def usual_s(self, quantile: float) -> float | None:
        """Upper edge of the active pool's quantile over the past; None where that is too little."""
        if self._past_count < KNOWN:
            return None
        below = 0.0
        for place, count in enumerate(self._past):
            below += count
            if below >= quantile * self._past_count:
                return bin_upper_edge_s(place)
        return bin_upper_edge_s(BINS - 1)

    def _tolerated(self, place: int) -> int:
        """The candidate's last bin that is not slow, where `place` is the active pool's."""
        least_s = bin_upper_edge_s(place) + self._floor_s - 1e-12
        tolerated = place + self._shift
        while tolerated < BINS - 1 and bin_upper_edge_s(tolerated) < least_s:
            tolerated += 1
        return tolerated

    def _measure_dispersion(self) -> None:
        """One-way analysis of variance: F of the log latency over client buckets."""
        counts, sums, squares = self._clients
        used = [bucket for bucket in range(BUCKETS) if counts[bucket] >= 2]
        if len(used) < 3:
            return
        total = sum(counts[each] for each in used)
        mean = sum(sums[each] for each in used) / total
        between = within = 0.0
        for each in used:
            own = sums[each] / counts[each]
            between += counts[each] * (own - mean) ** 2
            within += squares[each] - counts[each] * own * own
        freedom = len(used) - 1
        if total - len(used) <= 0 or within <= 0:
            return
        ratio = (between / freedom) / (within / (total - len(used)))
        self.dispersion = clearly_above_one(ratio, freedom)

    def restart(self) -> None:
        self.wealth.restart()

    # ---- over a restart ----

    def save(self) -> dict[str, Any]:
        """What outlives a restart; the block that is open is lost for both pools alike."""
        return {
            "wealth": self.wealth.save(),
            "dispersion": self.dispersion,
            "past": self._past,
            "past_count": self._past_count,
            "clients": self._clients,
        }

    def load(self, saved: dict[str, Any]) -> None:
        self.wealth.load(saved["wealth"])
        self.dispersion = float(saved["dispersion"])
        self._past = _numbers(saved["past"], BINS)
        self._past_count = float(saved["past_count"])
        self._clients = [_numbers(each, BUCKETS) for each in saved["clients"]]


def _in_ms(place: int) -> str:
    return f"{1000.0 * bin_upper_edge_s(place):,.{1 if place < BINS // 4 else 0}f} ms"


def _numbers(saved: Sequence[float], count: int) -> list[float]:
    if len(saved) != count:
        raise ValueError(f"{len(saved)} numbers where {count} were expected")
    return [float(each) for each in saved]
