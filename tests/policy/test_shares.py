"""Shares of one limit: never more than the limit together, and nobody starves."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.shares import ROTATE_AFTER, Caps, deal_caps

COUNTS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8)


@given(st.integers(0, 100), COUNTS, st.integers(0, 7))
def test_the_shares_are_the_whole_limit_and_never_more(
    limit: int, counts: list[tuple[int, int]], first: int
) -> None:
    used, wanted = zip(*counts, strict=True)
    shares = deal_caps(limit, used, wanted, first=first % len(counts))
    assert min(shares) >= 0
    assert sum(shares) == limit


@given(st.integers(0, 100), COUNTS)
def test_who_uses_and_asks_for_less_than_there_is_gets_it(
    limit: int, counts: list[tuple[int, int]]
) -> None:
    used, wanted = zip(*counts, strict=True)
    shares = deal_caps(limit, used, wanted)
    demand = [sum(each) for each in counts]
    if sum(demand) <= limit:
        assert all(share >= asked for share, asked in zip(shares, demand, strict=True))
    else:
        level = limit // len(counts)
        assert all(share >= min(level, asked) for share, asked in zip(shares, demand, strict=True))


def test_what_is_free_is_dealt_evenly_and_the_odd_ones_to_who_has_least() -> None:
    assert deal_caps(1024, [300, 10], [0, 0]) == [657, 367]
    assert deal_caps(2, [1, 0], [0, 0]) == [1, 1]


def test_when_there_is_not_enough_the_greedy_yield() -> None:
    assert deal_caps(10, [10, 0], [20, 3]) == [7, 3]
    assert deal_caps(10, [10, 0], [20, 20]) == [5, 5]


def test_what_cannot_be_divided_goes_to_the_first_in_turn() -> None:
    assert deal_caps(1, [1, 1], [1, 1], first=1) == [0, 1]
    assert deal_caps(5, [9, 9, 9], [0, 0, 0], first=2) == [2, 1, 2]


def test_nothing_is_given_before_it_was_given_back() -> None:
    caps = Caps(2)
    assert caps.deal(1, [0, 0], [0, 0]) == [1, 0]
    assert caps.deal(1, [0, 0], [0, 1]) == [0, 0], "taken from the first: it may be using it now"
    assert caps.deal(1, [0, 0], [0, 1]) == [0, 1], "it was not"


def test_what_was_used_at_the_last_moment_is_waited_for() -> None:
    caps = Caps(2)
    caps.deal(1, [0, 0], [0, 0])
    caps.deal(1, [0, 0], [0, 1])
    assert caps.deal(1, [1, 0], [0, 1]) != [0, 1], "the first took it before it saw"
    assert sum(caps.deal(1, [1, 0], [0, 1])) <= 1


def test_what_rests_is_given_up_only_when_others_wait() -> None:
    caps = Caps(2)
    caps.deal(2, [0, 0], [0, 0])
    assert caps.deal(2, [1, 1], [0, 0], idle=[1, 1]) == [1, 1]
    caps.deal(2, [1, 1], [0, 1], idle=[0, 1])
    shares = caps.deal(2, [2, 0], [0, 0], idle=[2, 0])
    assert sum(shares) <= 2
    caps.deal(2, [2, 0], [0, 1], idle=[2, 0])
    assert caps.deal(2, [1, 0], [0, 1], idle=[1, 0]) == [1, 1]


def test_shares_rest_while_nobody_comes_near_them() -> None:
    caps = Caps(2)
    before = list(caps.deal(100, [0, 0], [0, 0]))
    assert caps.deal(100, [25, 3], [0, 0]) == before
    assert caps.deal(100, [40, 3], [0, 0]) != before, "with room ahead, before anybody waits"


def test_a_lower_limit_is_reached_by_taking_only() -> None:
    caps = Caps(2)
    caps.deal(10, [5, 5], [0, 0])
    assert sum(caps.deal(4, [5, 5], [0, 0])) <= 4
    assert caps.deal(4, [2, 2], [0, 0]) == [2, 2]


def test_where_there_is_not_one_for_everybody_it_goes_round() -> None:
    caps, had = Caps(3), [0, 0, 0]
    used = [0, 0, 0]
    for _ in range(12 * ROTATE_AFTER):
        shares = caps.deal(1, used, [1, 1, 1])
        used = list(shares)  # whoever loses its share gives back at once
        had = [count + share for count, share in zip(had, shares, strict=True)]
    assert min(had) >= 2 * ROTATE_AFTER


@pytest.mark.parametrize("seed", range(20))
def test_workers_that_see_their_share_late_are_never_over_the_limit_together(seed: int) -> None:
    draw = random.Random(seed)
    workers = draw.randint(1, 5)
    limit = draw.randint(1, 12)
    caps = Caps(workers)
    shares = [0] * workers
    used = [0] * workers
    starved = [0] * workers
    for _ in range(2000):
        wants = [draw.choice((0, 0, 1, 5, 30)) for _ in range(workers)]
        read = list(used)
        _work(draw, used, shares, wants)  # between the reading and the writing
        waiting = [max(0, want - has) for want, has in zip(wants, read, strict=True)]
        shares = list(caps.deal(limit, read, waiting))
        assert sum(used) <= limit, f"seed {seed}"
        _work(draw, used, shares, wants)
        assert sum(used) <= limit, f"seed {seed}"
        for worker in range(workers):
            is_left_out = waiting[worker] and not shares[worker]
            starved[worker] = starved[worker] + 1 if is_left_out else 0
            assert starved[worker] < 60 * workers, f"seed {seed}"


def _work(draw: random.Random, used: list[int], shares: list[int], wants: list[int]) -> None:
    for worker, want in enumerate(wants):
        if used[worker] > want and draw.random() < 0.7:
            used[worker] -= draw.randint(0, used[worker] - want)
        if used[worker] > shares[worker]:
            used[worker] -= draw.randint(0, used[worker] - shares[worker])
        elif draw.random() < 0.7:
            used[worker] = max(used[worker], min(shares[worker], want))
