"""Wealth: what someone who bet against the candidate would own by now, having begun with 1.

The money is spread over several alternatives and cash, and a little of it is spread anew
after every bet ("fixed share", Herbster and Warmuth, "Tracking the best expert", Machine
Learning 32, 1998), so that a change that comes late is found almost as fast as an early one.
Spreading does not change the sum, so the total stays a supermartingale.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, log
from typing import Any

MEMORY_S = 300.0
CASH = 0.5
RESTART = 0.25
"""How much is spread anew when the weights change: a change of behaviour is likelier then."""
_NOTHING = -700.0
"""exp of less than this is zero."""


class Wealth:
    def __init__(self, alternatives: int, cap: float = inf) -> None:
        self._prior = [CASH] + [(1.0 - CASH) / alternatives] * alternatives
        self._shares = list(self._prior)
        self._cap = cap
        self._age_s = 0.0
        self.log = 0.0

    def bet(self, evidence: Sequence[float], length_s: float) -> None:
        """Take one block's log e-values, one for each alternative; cash earns nothing.

        An e-value is cut at exp(cap): its mean stays at most 1, and no single block decides.
        """
        capped = [min(each, self._cap) for each in evidence]
        highest = max(0.0, *capped)
        grown = [
            share * exp(each - highest) if each - highest > _NOTHING else 0.0
            for share, each in zip(self._shares, [0.0, *capped], strict=True)
        ]
        total = sum(grown)
        self.log += highest + log(total)
        self._age_s += length_s
        self._spread([each / total for each in grown], length_s / (self._age_s + MEMORY_S))

    def restart(self) -> None:
        """Spread anew: something has changed that makes a change likely."""
        self._spread(self._shares, RESTART)

    def _spread(self, shares: Sequence[float], part: float) -> None:
        keep = 1.0 - part
        self._shares = [
            keep * share + part * prior for share, prior in zip(shares, self._prior, strict=True)
        ]

    def save(self) -> dict[str, Any]:
        return {"log": self.log, "shares": list(self._shares), "age_s": self._age_s}

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from what `save` gave; ValueError when it does not fit."""
        if len(saved["shares"]) != len(self._prior):
            raise ValueError("a wealth of another number of alternatives")
        self.log = float(saved["log"])
        self._shares = [float(each) for each in saved["shares"]]
        self._age_s = float(saved["age_s"])


class TwoSpeeds:
    """Half of the money on large effects, block by block; half on small ones, which have to last."""

    def __init__(self, fast: Wealth, slow: Wealth) -> None:
        self.fast = fast
        self.slow = slow

    @property
    def log(self) -> float:
        fast, slow = self.fast.log, self.slow.log
        higher = max(fast, slow)
        return higher + log(0.5 * (exp(fast - higher) + exp(slow - higher)))

    def restart(self) -> None:
        self.fast.restart()
        self.slow.restart()

    def save(self) -> dict[str, Any]:
        return {"fast": self.fast.save(), "slow": self.slow.save()}

    def load(self, saved: dict[str, Any]) -> None:
        self.fast.load(saved["fast"])
        self.slow.load(saved["slow"])
