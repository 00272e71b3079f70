"""The pace of a release: steady, whole at the end, never backwards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.pace import due

waiting = st.integers(0, 2000)
seconds = st.floats(0, 100)


@given(waiting, st.floats(0.01, 100), st.lists(seconds, max_size=50))
def test_it_never_goes_backwards_and_never_beyond_those_who_waited(
    waited: int, over_s: float, moments: list[float]
) -> None:
    gone = [due(waited, moment, over_s) for moment in sorted(moments)]
    assert gone == sorted(gone)
    assert all(0 <= each <= waited for each in gone)


@given(waiting, st.floats(0.01, 100), st.floats(0, 0.999))
def test_each_part_of_the_time_has_its_part_of_the_requests(
    waited: int, over_s: float, part: float
) -> None:
    assert abs(due(waited, part * over_s, over_s) - waited * part) <= 1.001


@given(waiting, seconds, seconds)
def test_all_have_gone_when_the_time_is_over(waited: int, over_s: float, later_s: float) -> None:
    assert due(waited, over_s + later_s, over_s) == waited


def test_one_goes_at_once_and_nobody_before_the_release() -> None:
    assert due(10, 0.0, 5.0) == 1
    assert due(10, -0.1, 5.0) == 0
    assert due(0, 0.0, 5.0) == 0
    assert due(10, 0.0, 0.0) == 10
