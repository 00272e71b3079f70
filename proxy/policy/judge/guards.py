"""The guards: two plain rules that act within seconds when the candidate is plainly broken.

They stand outside the false-alarm budget; their thresholds are about 1e-5 to 1e-6 a look. A
dependency that fails under both pools trips neither while the active pool has traffic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import log
from typing import Any

from proxy.policy.judge.evidence import divergence
from proxy.policy.judge.knobs import HARD_DOWN
from proxy.policy.judge.verdict import Sides, share_in_words

CLEARLY = 11.5
"""Nats: about 1e-5."""
SURELY = log(1e6)
UNSEEN = 0.1
"""What the active pool's share of errors is taken for where it has no traffic."""
UNLIKELY = 4.6
"""Nats: 1 %, of the active pool having no error at all at the candidate's share."""
WINDOWS_S = (10.0, 60.0)

DEGRADED_SHARE, DEGRADED_TIMES = 0.05, 5.0
DEGRADED_REQUESTS, DEGRADED_ERRORS = 40, 5
LONG_RUN_S = 600.0
LONG_RUN_REQUESTS = 200
ACCEPTED_S = 1800.0
"""A baseline that is degraded for as long is the new normal."""
_EDGE = 1e-9

Row = tuple[float, float, float, float, float]
"""A tick's end, then requests and credited errors of the candidate, and of the active pool."""


class Window:
    """Sums over the last seconds."""

    def __init__(self, length_s: float) -> None:
        self.length_s = length_s
        self._rows: deque[Row] = deque()
        self.sums = [0.0, 0.0, 0.0, 0.0]

    def add(self, row: Row) -> list[Row]:
        """Take a tick, and give those that are too old now."""
        self._rows.append(row)
        for index in range(4):
            self.sums[index] += row[index + 1]
        gone: list[Row] = []
        while self._rows[0][0] <= row[0] - self.length_s + _EDGE:
            old = self._rows.popleft()
            gone.append(old)
            for index in range(4):
                self.sums[index] -= old[index + 1]
        return gone

    def save(self) -> list[list[float]]:
        return [list(row) for row in self._rows]

    def load(self, saved: Sequence[Sequence[float]]) -> None:
        self._rows.clear()
        self.sums = [0.0, 0.0, 0.0, 0.0]
        for at, *counts in saved:
            requests, failed, active_requests, active_failed = counts
            self._rows.append((at, requests, failed, active_requests, active_failed))
            self.sums = [x + y for x, y in zip(self.sums, counts, strict=True)]


class Guards:
    def __init__(self, hard_rate: float, min_requests: int, sides: Sides | None = None) -> None:
        self._sides = sides or Sides()
        self._hard_rate = hard_rate
        self._min_requests = min_requests
        self._windows = [Window(length_s) for length_s in WINDOWS_S]
        self._run = [0.0, 0.0, 0.0]
        """An unbroken run of failures: credited errors; the active pool's requests and errors."""
        self._long_run = [0.0, 0.0]
        """The active pool's requests and errors, decaying."""
        self.degraded_s = 0.0
        """For how long the active pool has failed far more than in the long run."""

    def look(
        self, row: Row, *, length_s: float, requests: int, errors: int
    ) -> tuple[str, str] | None:
        """Take a tick (`requests` and `errors` uncredited); give a reason and its words to turn back."""
        self._slide(row, length_s)
        self._mark_degraded(length_s)
        return self._down(row, requests, errors) or self._rate()

    def _slide(self, row: Row, length_s: float) -> None:
        longest = self._windows[-1]
        for window in self._windows:
            for _, _, _, active_requests, active_errors in window.add(row):
                # What leaves the longest window joins the long run, unless that is a bad time.
                if window is longest and self._is_typical():
                    keep = 0.5 ** (length_s / LONG_RUN_S)
                    self._long_run[0] = keep * self._long_run[0] + active_requests
                    self._long_run[1] = keep * self._long_run[1] + active_errors

    def _is_typical(self) -> bool:
        is_bad = 0.0 < self.degraded_s < ACCEPTED_S
        return not is_bad or self._long_run[0] < LONG_RUN_REQUESTS

    def _mark_degraded(self, length_s: float) -> None:
        _, _, requests, errors = self._windows[-1].sums
        usual = self._long_run[1] / max(1.0, self._long_run[0])
        is_degraded = (
            requests >= DEGRADED_REQUESTS
            and errors >= DEGRADED_ERRORS
            and errors / requests >= max(DEGRADED_SHARE, DEGRADED_TIMES * usual)
        )
        self.degraded_s = self.degraded_s + length_s if is_degraded else 0.0

    def degraded_in_words(self) -> str:
        _, _, requests, errors = self._windows[-1].sums
        return (
            f"{self._named(self._sides.active)} itself failed {share_in_words(errors, requests)}"
            " in the last minute"
        )

    @staticmethod
    def _named(name: str) -> str:
        return "the active pool" if name == "active" else name

    def _down(self, row: Row, requests: int, errors: int) -> tuple[str, str] | None:
        _, _, credited, active_requests, active_errors = row
        run = self._run
        if requests and errors < requests:
            self._run = [0.0, 0.0, 0.0]
            return None
        if not requests and not run[0]:
            return None
        run[1] += active_requests
        run[2] += active_errors
        if not requests:
            return None
        run[0] += credited
        if run[0] < HARD_DOWN:
            return None
        share = (run[2] + 1.0) / (run[1] + 2.0) if run[1] > 0 else UNSEEN
        if run[0] * log(1.0 / min(share, 0.999)) < SURELY:
            return None
        beside = share_in_words(run[2], run[1])
        return (
            "guard: down",
            f"every request failed, {run[0]:.0f} in a row; {self._sides.active} {beside} meanwhile",
        )

    def _rate(self) -> tuple[str, str] | None:
        for window in self._windows:
            requests, errors, active_requests, active_errors = window.sums
            if (
                requests >= self._min_requests
                and errors >= self._hard_rate * requests
                and is_clearly_better(window.sums, is_longest=window is self._windows[-1])
            ):
                return "guard: rate", (
                    f"{self._sides.candidate} {share_in_words(errors, requests)}, "
                    f"{self._sides.active} {share_in_words(active_errors, active_requests)} "
                    f"in the last {window.length_s:.0f} s"
                )
        return None

    def save(self) -> dict[str, Any]:
        return {
            "windows": [window.save() for window in self._windows],
            "run": self._run,
            "long_run": self._long_run,
            "degraded_s": self.degraded_s,
        }

    def load(self, saved: dict[str, Any]) -> None:
        for window, rows in zip(self._windows, saved["windows"], strict=True):
            window.load(rows)
        self._run = [float(each) for each in saved["run"]]
        self._long_run = [float(each) for each in saved["long_run"]]
        self.degraded_s = float(saved["degraded_s"])


def is_clearly_better(sums: Sequence[float], *, is_longest: bool) -> bool:
    """Whether the active pool is clearly better; a guard without any of its traffic is absolute.

    At most half of the candidate's share of errors, and a log likelihood ratio of two shares
    against one common share of at least CLEARLY. Where the active pool's traffic is too little
    ever to tell, "no error, and that is unlikely at the candidate's share" has to do.
    """
    requests, errors, active_requests, active_errors = sums
    if active_requests <= 0:
        return True
    common = (active_errors + errors) / (active_requests + requests)
    active_share, share = active_errors / active_requests, errors / requests
    if active_share > 0.5 * share:
        return False
    ratio = divergence(active_requests, active_share, common) + divergence(requests, share, common)
    if ratio >= CLEARLY:
        return True
    if not is_longest or active_errors > 0:
        return False
    return UNLIKELY <= -active_requests * log(1.0 - common) < CLEARLY
