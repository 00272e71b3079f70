"""Evidence of one block: e-values, whose mean is at most 1 while the candidate is no worse.

Each function returns the natural logarithm of an e-value. The products of e-values of
successive blocks are supermartingales, so that they ever reach 1/alpha with a chance of at
most alpha (Ville 1939), however often one looks.
"""

from __future__ import annotations

from math import log


def of_excess(  # noqa: PLR0917 - the letters of one formula
    ratio: float,
    failed: float,
    requests: float,
    active_failed: float,
    active_requests: float,
    factor: float,
    slack: float,
) -> float:
    """Against "the candidate's share of failures is at most `factor` * the active's + `slack`".

    Valid whatever the active's share is, because it cancels: with `ratio` r,
    D = (factor*n*r + m) / (factor*n + m) for n and m requests and g = r/D,
    mean(g**failed * D**-active_failed) <= exp(slack * n * (g-1)). It grows fastest if the candidate
    fails r times as often. A ratio below 1 turns it into the evidence against "... is at least".

    With factor 1 and slack 0 it is the conditional test of two counts with a common rate
    (Lindon and Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022).
    """
    if requests <= 0 or active_requests <= 0:
        return 0.0
    scaled = factor * requests
    common = (scaled * ratio + active_requests) / (scaled + active_requests)
    gain = ratio / common
    return failed * log(gain) - active_failed * log(common) - slack * requests * (gain - 1.0)


def of_slowness(
    odds: float, slow: float, timed: float, active_slow: float, active_timed: float
) -> float:
    """Against "a slow answer is at most as likely on the candidate as on the active pool".

    Given how many were slow in all, the candidate's part is hypergeometric; its generating
    function is at most that of either binomial with the same mean (Hoeffding 1963), and the
    smaller bound is taken.
    """
    all_slow = slow + active_slow
    if timed <= 0 or active_timed <= 0 or all_slow <= 0:
        return 0.0
    everything = timed + active_timed
    by_slow = all_slow * log(1.0 + (odds - 1.0) * timed / everything)
    by_timed = timed * log(1.0 + (odds - 1.0) * all_slow / everything)
    return slow * log(odds) - min(by_slow, by_timed)


def against_record(ratio: float, failed: float, requests: float, highest: float) -> float:
    """Against "the candidate's share of failures is at most `highest`", a number known before."""
    return failed * log(ratio) - (ratio - 1.0) * highest * requests


def divergence(count: float, share: float, other: float) -> float:
    """`count` times the Kullback-Leibler divergence of two Bernoulli shares, in nats."""
    total = 0.0
    if share > 0.0:
        total += share * log(share / other)
    if share < 1.0:
        total += (1.0 - share) * log((1.0 - share) / (1.0 - other))
    return count * total
