"""At 100 %: the candidate against what the active pool's errors were before it gave everything up.

With nothing to compare with on the same seconds, the record of the last quarter of an hour
stands in: an exact upper bound of the old pool's share of errors, and one-sample bets
against it. A record cannot know of an outage that would hurt the old pool as well, so its
FAIL is a question to the old pool (`asking` in docs/rollouts.md), not yet an answer.
"""

from __future__ import annotations

from collections import deque
from math import exp, lgamma, log, log1p
from typing import Any

from proxy.policy.judge import knobs as constants
from proxy.policy.judge.evidence import against_record
from proxy.policy.judge.knobs import Knobs
from proxy.policy.judge.wealth import TwoSpeeds, Wealth

LENGTH_S = 900.0
GRAIN_S = 10.0


class Record:
    """The active pool's requests and errors of the last 15 minutes with traffic."""

    def __init__(self) -> None:
        self._rows: deque[list[float]] = deque()
        """Seconds with traffic, requests, errors; a row for every GRAIN_S."""

    def add(self, length_s: float, requests: int, errors: int) -> None:
        """Take a tick; time without traffic says nothing and makes nothing older."""
        if not requests:
            return
        if not self._rows or self._rows[-1][0] >= GRAIN_S:
            self._rows.append([0.0, 0.0, 0.0])
        row = self._rows[-1]
        row[0] += length_s
        row[1] += requests
        row[2] += errors
        while sum(each[0] for each in self._rows) - self._rows[0][0] >= LENGTH_S:
            self._rows.popleft()

    @property
    def requests(self) -> int:
        return round(sum(row[1] for row in self._rows))

    @property
    def errors(self) -> int:
        return round(sum(row[2] for row in self._rows))

    def highest_share(self, level: float) -> float | None:
        """Upper confidence bound of the share of errors, wrong with chance `level`; None: unknown."""
        return upper_bound(self.errors, self.requests, level) if self.requests else None

    def save(self) -> list[list[float]]:
        return [list(row) for row in self._rows]

    def load(self, saved: list[list[float]]) -> None:
        rows = []
        for row in saved:
            length_s, requests, errors = row
            rows.append([float(length_s), float(requests), float(errors)])
        self._rows = deque(rows)


class AgainstRecord:
    """Bets of the same kind as the judge's, against a number instead of a pool."""

    def __init__(self, knobs: Knobs, share: float) -> None:
        self.highest = min(1.0, (1.0 + knobs.tolerance) * share + knobs.tolerance_abs)
        """The largest share of errors that is still no worse."""
        self.bar = log(4.0 / knobs.false_alarm)
        self.wealth = TwoSpeeds(
            Wealth(len(constants.ERRORS_FAST), constants.CAP_ERRORS),
            Wealth(len(constants.ERRORS_SLOW), constants.CAP_SLOW),
        )

    def bet_block(self, requests: float, errors: float, length_s: float) -> None:
        self.wealth.fast.bet(self._evidence(constants.ERRORS_FAST, requests, errors), length_s)

    def bet_half_minute(self, requests: float, errors: float, length_s: float) -> None:
        self.wealth.slow.bet(self._evidence(constants.ERRORS_SLOW, requests, errors), length_s)

    def _evidence(self, ratios: tuple[float, ...], requests: float, errors: float) -> list[float]:
        return [against_record(ratio, errors, requests, self.highest) for ratio in ratios]

    def save(self) -> dict[str, Any]:
        return {"highest": self.highest, "wealth": self.wealth.save()}

    def load(self, saved: dict[str, Any]) -> None:
        self.highest = float(saved["highest"])
        self.wealth.load(saved["wealth"])


def upper_bound(errors: int, requests: int, level: float) -> float:
    """Exact upper confidence bound of a share (Clopper and Pearson, Biometrika 26, 1934).

    The largest p at which so few errors, or fewer, still have a chance of `level`.
    """
    if errors >= requests:
        return 1.0
    low, high = errors / requests, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if _at_most(errors, requests, middle) > level:
            low = middle
        else:
            high = middle
    return high


def _at_most(errors: int, requests: int, share: float) -> float:
    """Chance of `errors` or fewer; summed from the largest term down, so it is short."""
    if share <= 0.0:
        return 1.0
    if share >= 1.0:
        return 0.0
    term = exp(
        lgamma(requests + 1)
        - lgamma(errors + 1)
        - lgamma(requests - errors + 1)
        + errors * log(share)
        + (requests - errors) * log1p(-share)
    )
    total = 0.0
    odds = (1.0 - share) / share
    for count in range(errors, -1, -1):
        total += term
        if term < total * 1e-15:
            break
        term *= count / (requests - count + 1) * odds
    return total
