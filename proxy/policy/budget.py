"""The retry budget: how many retries all workers together may still do.

A failing service must not get twice the traffic because everybody tries again. So the
retries of any ten seconds that end with a retry are at most a share of the requests of
these seconds, or a small number where there are few. The idea is that of Finagle's and
Linkerd's retry budgets (a share of the requests, a time to live of 10 s, a floor:
https://twitter.github.io/finagle/guide/Clients.html#retries) and of Envoy's
`retry_budget` (`budget_percent`, `min_retry_concurrency`).

The workers count, one reader looks a few times a second, and deals out what is left
until it looks again. Between two looks nothing is known, so it reckons on the safe
side: all retries since ten seconds before the look, but only those requests that
will still be less than ten seconds old at the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

WINDOW_S = 10.0
SLACK_S = 0.25
"""The longest time from one look to the next for which the bound is exact."""


class RetryBudget:
    """The window of one service. `share` in hundredths of a percent, `floor` in retries."""

    def __init__(self, share: int, floor: int) -> None:
        self.share = share
        self.floor = floor
        self._looks: deque[tuple[float, int, int]] = deque()
        """When, and how many requests and retries there had been since ever."""

    @property
    def last_look(self) -> float:
        """When it was told last; minus infinity before."""
        return self._looks[-1][0] if self._looks else float("-inf")

    def note(self, now: float, requests: int, retries: int) -> None:
        """Take note of the counts at a moment; both only ever grow."""
        looks = self._looks
        looks.append((now, requests, retries))
        while len(looks) > 1 and looks[1][0] <= now - WINDOW_S:
            looks.popleft()

    def remaining(self, now: float) -> int:
        """Retries that may still be begun until the next look."""
        if not self._looks:
            return 0
        _, requests, retries = self._looks[-1]
        begun = retries - self._looks[0][2]
        since = now - WINDOW_S + SLACK_S
        old = next((each[1] for each in self._looks if each[0] >= since), requests)
        return max(0, max(self.floor, (requests - old) * self.share // 10_000) - begun)


def deal(remaining: int, demand: Sequence[float]) -> list[int]:
    """Each worker's share of what remains, all of it: one for everybody, the rest by demand.

    Where there is not one for everybody, those with the highest demand get it.
    """
    count = len(demand)
    by_demand = sorted(range(count), key=lambda worker: -demand[worker])
    shares = [0] * count
    for worker in by_demand[:remaining]:
        shares[worker] = 1
    rest = remaining - count
    if rest <= 0 or not count:
        return shares
    total = sum(demand)
    parts = [rest * (each / total if total else 1 / count) for each in demand]
    for worker in range(count):
        shares[worker] += int(parts[worker])
    left = remaining - sum(shares)
    for worker in sorted(range(count), key=lambda worker: int(parts[worker]) - parts[worker])[
        :left
    ]:
        shares[worker] += 1
    return shares
