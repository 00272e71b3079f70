"""What an operator may set of the judge, and the constants that were measured, not tuned per site."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """Shares are fractions of one, times seconds."""

    false_alarm: float = 0.01
    """Chance of turning a healthy release back, over one whole rollout."""
    tolerance: float = 0.20
    tolerance_abs: float = 0.0005
    """The candidate may fail `(1 + tolerance) * active's share + tolerance_abs` of its requests."""
    latency: bool = True
    latency_tolerance: float = 0.20
    latency_floor_s: float = 0.005
    hard_rate: float = 0.30
    """The rate guard turns back at this share of errors, if the active pool is clearly better."""
    min_requests: int = 40
    """The rate guard and PASS need as many of the candidate's."""
    warmup_s: float = 30.0
    """Seconds with traffic on the candidate before its latency is judged."""
    count_4xx: bool = True


MIN_ERRORS = 5
"""Fewer credited errors than this turn nothing back, whatever the evidence."""
HARD_DOWN = 8
"""Errors of an unbroken run that the down guard needs."""
BLOCK_REQUESTS, BLOCK_S = 10, 10.0
"""A block is closed when both pools have had so many requests, or after so long."""
SLOW_S = 30.0
"""Small effects are judged by half minutes: they have to last."""
ERRORS_FAST, ERRORS_SLOW = (5.0, 15.0, 60.0), (1.5, 2.5)
"""How many times as often the candidate might fail: what the bets are on."""
REFUSED = (1.5, 2.5, 5.0, 15.0, 60.0)
REFUSED_TOLERANCE, REFUSED_TOLERANCE_ABS = 1.5, 0.05
PASSES = (0.05, 0.3, 0.6, 0.8)
PASS_TOLERANCE, PASS_CHANCE = 2.0, 0.05
SLOWER_FAST, SLOWER_SLOW = (3.0, 8.0, 30.0), (1.3, 1.8)
"""Odds ratios of a slow answer."""
QUANTILES = (0.50, 0.90, 0.99)
CAP_ERRORS, CAP_SLOW, CAP_MILD = 6.0, 2.0, 1.5
"""The most that one block may add to a log wealth: errors, half minutes, latency and 4xx."""
