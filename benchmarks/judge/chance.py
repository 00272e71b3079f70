"""Chance, seeded and quick: Poisson counts from tables, paths that wander, intervals of shares."""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from math import ceil, exp, lgamma, log, sqrt
from random import Random

from proxy.policy.judge import BUCKETS

_ALL = range(BUCKETS)
FEW = 12.0
"""Below this mean a count is drawn as one number and then spread, which is quicker."""


@lru_cache(maxsize=20_000)
def _table(mean: float) -> tuple[range, list[float]]:
    """Counts that are not next to impossible, and how likely it is to have as many or fewer."""
    width = 8.0 * sqrt(mean) + 12.0
    low, high = max(0, int(mean - width)), int(mean + width) + 1
    chances = (exp(count * log(mean) - mean - lgamma(count + 1)) for count in range(low, high))
    return range(low, high), list(accumulate(chances))


def rounded(mean: float) -> float:
    """To three digits, so that rates that wander share their tables."""
    return float(f"{mean:.3g}")


def poisson(draw: Random, mean: float) -> int:
    if mean <= 0.0:
        return 0
    counts, chances = _table(rounded(mean))
    return draw.choices(counts, cum_weights=chances)[0]


def spread(draw: Random, mean: float) -> list[int]:
    """A Poisson count with this mean, by client bucket; every bucket is as likely."""
    if mean <= 0.0:
        return [0] * BUCKETS
    if mean > FEW * BUCKETS / 8:
        counts, chances = _table(rounded(mean / BUCKETS))
        return draw.choices(counts, cum_weights=chances, k=BUCKETS)
    buckets = [0] * BUCKETS
    for bucket in draw.choices(_ALL, k=poisson(draw, mean)):
        buckets[bucket] += 1
    return buckets


def wandering(draw: Random, seconds: int, deviation: float, memory_s: float) -> list[float]:
    """Factors around 1 that wander by themselves: an AR(1) path of their logarithm."""
    keep = exp(-1.0 / memory_s)
    step = deviation * sqrt(1.0 - keep * keep)
    place = draw.gauss(0.0, deviation)
    path = []
    for _ in range(seconds):
        place = keep * place + draw.gauss(0.0, step)
        path.append(exp(place))
    return path


def wilson(found: int, of: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, Journal of the American Statistical Association 22, 1927)."""
    if not of:
        return 0.0, 1.0
    square = 1.96**2
    share = found / of
    middle = share + square / (2 * of)
    half = 1.96 * sqrt(share * (1.0 - share) / of + square / (4 * of * of))
    scale = 1.0 + square / of
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def quantile(numbers: list[float], part: float) -> float:
    """The smallest number that is at least as large as this part of them; nan of none."""
    if not numbers:
        return float("nan")
    place = ceil(part * len(numbers)) - 1
    return sorted(numbers)[max(0, min(len(numbers) - 1, place))]
