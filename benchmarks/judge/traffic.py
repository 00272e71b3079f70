"""Simulated traffic of two pools, a tick a second: what the workers' counters would have grown by.

Requests are independent here, so every count is a Poisson number of its own; `clients` has
clients that come again. A run is a function of the traffic and its seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Protocol

from benchmarks.judge.chance import rounded, spread, wandering
from benchmarks.judge.latencies import LOGS, Shape
from proxy.policy.judge import BUCKETS, Counts, Tick
from proxy.stats import BINS

Rate = Callable[[float], float]
"""Something by the second in which it happens, counted from 1."""
_BINS = range(BINS)


class Ticks(Protocol):
    """Traffic of any kind."""

    seconds: int

    def ticks(self, seed: int) -> Iterator[Tick]: ...


def always(value: float) -> Rate:
    return lambda _: value


def from_second(before: float, after: float, since: float) -> Rate:
    return lambda second: after if second > since else before


def during(base: float, value: float, since: float, until: float) -> Rate:
    return lambda second: value if since < second <= until else base


def stairs(*steps: tuple[float, float]) -> Rate:
    """`(since, value)`, in the order of time."""

    def rate(second: float) -> float:
        value = steps[0][1]
        for since, each in steps:
            if second > since:
                value = each
        return value

    return rate


USUAL, UNCHANGED = always(0.001), always(1.0)


@dataclass(kw_only=True)
class Traffic:
    """Requests per second, the candidate's part of them, and what fails when."""

    rps: float | Rate = 100.0
    part: float | Rate = 0.05
    candidate: Rate = USUAL
    """The candidate's share of errors, by the second."""
    active: Rate = USUAL
    refused: tuple[float, float] = (0.0, 0.0)
    """Shares of answers of class 4xx, of the active pool and of the candidate."""
    slower: Rate | None = None
    """Factor of the candidate's latency; None: no latencies at all."""
    both_slower: Rate = UNCHANGED
    tail: tuple[float, float, float] | None = None
    """From a second on, this part of the candidate's answers is so many times as slow."""
    stalls: tuple[float, float, float] | None = None
    """Each pool by itself: how many a second, how long, and up to how many seconds of wait."""
    errors_wander: tuple[float, float] | None = None
    """Each pool by itself: deviation of the logarithm, and memory in seconds."""
    latency_wanders: tuple[float, float] | None = None
    seconds: int = 600

    def ticks(self, seed: int) -> Iterator[Tick]:
        draw = Random(f"traffic {seed}")
        pools = (_Pool(self, draw), _Pool(self, draw))
        for second in range(1, self.seconds + 1):
            rps = _at(self.rps, second)
            part = _at(self.part, second)
            slower = self.slower(second) if self.slower else 1.0
            tail = self.tail[1:] if self.tail and second > self.tail[0] else None
            yield Tick(
                at_s=float(second),
                length_s=1.0,
                active=pools[0].counts(
                    second, rps * (1.0 - part), self.active(second), self.refused[0], 1.0, None
                ),
                candidate=pools[1].counts(
                    second, rps * part, self.candidate(second), self.refused[1], slower, tail
                ),
            )


class _Pool:
    """One pool in one run: what it has drawn for the whole of it, and its counts by the second."""

    def __init__(self, traffic: Traffic, draw: Random) -> None:
        self._traffic = traffic
        self._draw = draw
        seconds = traffic.seconds
        self._errors_path = _path(draw, seconds, traffic.errors_wander)
        self._latency_path = _path(draw, seconds, traffic.latency_wanders)
        self._stalled = _stalled(draw, seconds, traffic.stalls)

    def counts(  # noqa: PLR0917 - one row of a table
        self,
        second: int,
        mean: float,
        share: float,
        refused: float,
        slower: float,
        tail: tuple[float, float] | None,
    ) -> Counts:
        draw = self._draw
        if self._errors_path:
            share = min(1.0, share * self._errors_path[second - 1])
        fine = mean * (1.0 - share)
        errors_by = spread(draw, mean * share)
        refused_by = spread(draw, fine * refused)
        fine_by = spread(draw, fine * (1.0 - refused))
        answered_by = [x + y for x, y in zip(fine_by, refused_by, strict=True)]
        requests_by = [x + y for x, y in zip(answered_by, errors_by, strict=True)]
        counts = Counts(
            requests=sum(requests_by),
            errors=sum(errors_by),
            refused=sum(refused_by),
            requests_by=requests_by,
            errors_by=errors_by,
            refused_by=refused_by,
        )
        if self._traffic.slower is not None:
            scale = slower * self._traffic.both_slower(second)
            if self._latency_path:
                scale = rounded(scale * self._latency_path[second - 1])
            stall_s = self._traffic.stalls[2] if second in self._stalled else 0.0  # type: ignore[index]
            add_latencies(draw, counts, answered_by, Shape(scale, tail, stall_s))
        return counts


def add_latencies(draw: Random, counts: Counts, answered_by: list[int], shape: Shape) -> None:
    """Give every answer that is no error a latency."""
    bins = [0] * BINS
    sums, squares = [0.0] * BUCKETS, [0.0] * BUCKETS
    drawn = iter(draw.choices(_BINS, cum_weights=shape.cumulative, k=sum(answered_by)))
    for bucket, count in enumerate(answered_by):
        for _ in range(count):
            bin_ = next(drawn)
            bins[bin_] += 1
            sums[bucket] += LOGS[bin_]
            squares[bucket] += LOGS[bin_] ** 2
    counts.latencies = bins
    counts.latency_counts, counts.log_sums, counts.log_squares = answered_by, sums, squares


def _at(value: float | Rate, second: int) -> float:
    return value(second) if callable(value) else value


def _path(draw: Random, seconds: int, wanders: tuple[float, float] | None) -> list[float]:
    return wandering(draw, seconds, *wanders) if wanders else []


def _stalled(draw: Random, seconds: int, stalls: tuple[float, float, float] | None) -> set[int]:
    if stalls is None:
        return set()
    often, long_s, _ = stalls
    found: set[int] = set()
    for second in range(1, seconds + 1):
        if draw.random() < often:
            found |= set(range(second, second + max(1, round(long_s)) + (draw.random() < 0.5)))
    return found
