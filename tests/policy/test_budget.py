from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.policy.budget import SLACK_S, WINDOW_S, RetryBudget, deal

SHARE, FLOOR = 1000, 3


def test_before_the_first_look_there_is_nothing_to_deal() -> None:
    assert RetryBudget(SHARE, FLOOR).remaining(5.0) == 0


def test_a_service_without_traffic_has_the_floor() -> None:
    budget = RetryBudget(SHARE, FLOOR)
    budget.note(0.0, 0, 0)
    assert budget.remaining(0.0) == FLOOR


def test_what_was_counted_before_the_first_look_is_history() -> None:
    budget = RetryBudget(SHARE, FLOOR)
    budget.note(0.0, 1_000_000, 50)
    assert budget.remaining(0.0) == FLOOR


def test_a_share_of_the_requests_is_left_less_what_was_done() -> None:
    budget = RetryBudget(SHARE, FLOOR)
    budget.note(0.0, 0, 0)
    budget.note(1.0, 1000, 0)
    assert budget.remaining(1.0) == 100
    budget.note(1.1, 1000, 40)
    assert budget.remaining(1.1) == 60
    budget.note(1.2, 1000, 100)
    assert budget.remaining(1.2) == 0


def test_retries_are_forgotten_after_the_window_and_requests_a_little_earlier() -> None:
    """Requests came between the looks at 1 and 1.25 s, retries between those at 2 and 2.25 s."""
    budget = RetryBudget(SHARE, FLOOR)
    remaining = {}
    for quarter in range(60):
        now = quarter / 4
        budget.note(now, 1000 if now > 1 else 0, 20 if now > 2 else 0)
        remaining[now] = budget.remaining(now)
    assert remaining[1 + WINDOW_S - SLACK_S] == 80
    assert remaining[1.25 + WINDOW_S - SLACK_S] == 0, "the requests are too old"
    assert remaining[2 + WINDOW_S] == 0, "the retries are not"
    assert remaining[2.25 + WINDOW_S] == FLOOR


def test_a_budget_of_nothing_allows_nothing() -> None:
    budget = RetryBudget(0, 0)
    budget.note(0.0, 0, 0)
    budget.note(1.0, 10_000, 0)
    assert budget.remaining(1.0) == 0


@pytest.mark.parametrize(
    ("remaining", "demand", "shares"),
    [
        (0, [1, 2], [0, 0]),
        (5, [], []),
        (1, [0, 7, 3], [0, 1, 0]),
        (2, [0, 7, 3], [0, 1, 1]),
        (4, [0, 0], [2, 2]),
        (10, [0, 0, 0, 8], [1, 1, 1, 7]),
        (102, [30, 10], [76, 26]),
    ],
)
def test_everybody_gets_one_and_the_busier_worker_more(
    remaining: int, demand: Sequence[float], shares: Sequence[int]
) -> None:
    assert deal(remaining, demand) == shares


@given(
    st.integers(0, 1000),
    st.lists(st.floats(0, 1e6, allow_nan=False, allow_subnormal=False), min_size=1, max_size=16),
)
def test_all_that_remains_is_dealt_and_no_more(remaining: int, demand: list[float]) -> None:
    shares = deal(remaining, demand)
    assert sum(shares) == remaining
    assert sum(share > 0 for share in shares) == min(remaining, len(demand)) or remaining > len(
        demand
    )
    assert min(shares) >= (1 if remaining >= len(demand) else 0)


class _Fleet:
    """Workers that retry whenever they may, and beats that come when they come."""

    def __init__(self, workers: int, share: int, floor: int) -> None:
        self.budget = RetryBudget(share, floor)
        self.requests: list[float] = []
        self.retries: list[float] = []
        self.counts = [0] * workers
        self.granted = [0] * workers

    def beat(self, now: float) -> None:
        self.budget.note(now, len(self.requests), len(self.retries))
        shares = deal(self.budget.remaining(now), [1.0 + count for count in self.counts])
        self.granted = [count + share for count, share in zip(self.counts, shares, strict=True)]

    def request(self, now: float) -> None:
        self.requests.append(now)

    def try_again(self, now: float, worker: int) -> None:
        if self.counts[worker] < self.granted[worker]:
            self.counts[worker] += 1
            self.retries.append(now)
            self._check(now)

    def die(self, worker: int) -> None:
        """A successor begins at nothing, and gets its share with the next beat."""
        self.counts[worker] = self.granted[worker] = 0

    def _check(self, now: float) -> None:
        began = now - WINDOW_S
        requests = sum(began < each <= now for each in self.requests)
        retries = sum(began < each <= now for each in self.retries)
        bound = max(self.budget.floor, requests * self.budget.share // 10_000)
        assert retries <= bound, f"{retries} retries for {requests} requests at {now}"


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["beat", "request", "burst", "retry", "retries", "die", "pause"]),
        st.floats(0.0, 1.0),
        st.integers(0, 2),
    ),
    max_size=250,
)


@settings(max_examples=150, deadline=None)
@given(_EVENTS, st.sampled_from([0, 500, 1000, 5000, 10_000]), st.integers(0, 5))
def test_whatever_the_workers_do_a_retry_never_exceeds_the_budget_of_the_seconds_before_it(
    events: list[tuple[str, float, int]], share: int, floor: int
) -> None:
    fleet = _Fleet(3, share, floor)
    now = last_beat = 0.0
    for what, after, worker in events:
        now += after * 0.1
        if what == "pause":
            now += after * 5
        while now - last_beat > SLACK_S:  # the pulse goes on whatever happens
            last_beat += SLACK_S * (0.2 + 0.8 * after)
            fleet.beat(last_beat)
        if what == "beat":
            last_beat = now
            fleet.beat(now)
        elif what == "die":
            fleet.die(worker)
        for _ in range(40 if what == "burst" else 20 if what == "retries" else 1):
            if what in {"request", "burst"}:
                fleet.request(now)
            elif what in {"retry", "retries"}:
                fleet.try_again(now, worker)
