"""Split and sequence: exact shares, moves in one direction only, no luck."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import WHOLE
from proxy.policy.split import Sequence, Split

weights_of_one = st.integers(0, WHOLE)
offsets = st.integers(0, WHOLE - 1)


@st.composite
def cuts(draw: st.DrawFn) -> list[int]:
    """Weights of one to five pools, some of them perhaps zero."""
    borders = draw(st.lists(weights_of_one, max_size=4))
    return [high - low for low, high in pairwise([0, *sorted(borders), WHOLE])]


def assignment(weights: list[int], offset: int) -> list[int]:
    split = Split(weights, offset)
    return [split.index(bucket) for bucket in range(WHOLE)]


@given(weights=cuts(), offset=offsets)
def test_every_pool_gets_exactly_its_share_of_the_buckets(weights: list[int], offset: int) -> None:
    counts = Counter(assignment(weights, offset))
    assert [counts[index] for index in range(len(weights))] == weights


@given(before=weights_of_one, after=weights_of_one, offset=offsets)
def test_with_two_pools_only_the_difference_moves_and_only_toward_the_raised_one(
    before: int, after: int, offset: int
) -> None:
    low, high = sorted((before, after))
    old = assignment([WHOLE - low, low], offset)
    new = assignment([WHOLE - high, high], offset)
    moved = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert moved == [(0, 1)] * (high - low)


@given(offset=offsets)
def test_a_weight_raised_and_lowered_again_moves_the_same_clients_back(offset: int) -> None:
    before = assignment([9000, 1000], offset)
    assignment([5000, 5000], offset)
    assert assignment([9000, 1000], offset) == before


@given(weight=st.integers(1, WHOLE), offset=offsets)
def test_the_last_pool_begins_at_the_offset(weight: int, offset: int) -> None:
    split = Split([WHOLE - weight, weight], offset)
    assert split.index(offset) == 1
    assert split.index((offset + weight - 1) % WHOLE) == 1
    if weight < WHOLE:
        assert split.index((offset + weight) % WHOLE) == 0
        assert split.index((offset - 1) % WHOLE) == 0


def test_another_offset_lets_other_clients_go_first() -> None:
    first = Split([9900, 100], 0)
    second = Split([9900, 100], 5000)
    went = {bucket for bucket in range(WHOLE) if first.index(bucket)}
    assert not went & {bucket for bucket in range(WHOLE) if second.index(bucket)}


@pytest.mark.parametrize("weights", [[WHOLE], [WHOLE, 0], [0, WHOLE], [0, WHOLE, 0]])
def test_zero_means_zero(weights: list[int]) -> None:
    assert set(assignment(weights, 4321)) == {weights.index(WHOLE)}


@pytest.mark.parametrize("weights", [[WHOLE - 1], [5000, 5001], [-1, WHOLE + 1]])
def test_weights_that_are_no_cut_of_the_whole_are_refused(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="sum to 10000"):
        Split(weights, 0)


def counts_in_every_interval(window: int, width: int) -> set[int]:
    """How often a window of consecutive buckets falls into an interval, for all intervals.

    Windows that start elsewhere are this one moved round the range, so all
    positions of the interval stand for all windows too.
    """
    sequence = Sequence(0)
    hits = [0] * WHOLE
    for _ in range(window):
        hits[sequence.next()] += 1
    sums = list(accumulate([0, *hits, *hits]))
    return {sums[start + width] - sums[start] for start in range(WHOLE)}


@pytest.mark.parametrize(("width", "due"), [(10, 1), (100, 10), (1000, 100), (3750, 375)])
def test_any_thousand_requests_give_any_pool_its_share_give_or_take_one(
    width: int, due: int
) -> None:
    counts = counts_in_every_interval(window=1000, width=width)
    assert min(counts) >= due - 1
    assert max(counts) <= due + 1


@pytest.mark.parametrize("start", [0, 1, 4567, WHOLE - 1, WHOLE + 5])
def test_a_window_that_starts_elsewhere_is_the_same_window_moved(start: int) -> None:
    here, there = Sequence(start), Sequence(0)
    for _ in range(1000):
        assert here.next() == (there.next() + start) % WHOLE


def test_any_hundred_requests_give_ten_percent_its_ten_give_or_take_one() -> None:
    assert counts_in_every_interval(window=100, width=1000) <= {9, 10, 11}


@given(start=st.integers(0, 10**9))
def test_ten_thousand_consecutive_buckets_are_a_permutation(start: int) -> None:
    sequence = Sequence(start)
    assert sorted(sequence.next() for _ in range(WHOLE)) == list(range(WHOLE))
