"""The part of its weight that an endpoint has through its slow start."""

from __future__ import annotations

import pytest

from proxy.policy.slow_start import READMIT_S, part

LONG_AGO = -1e6


@pytest.mark.parametrize(
    ("elapsed", "expected"),
    [(-1.0, 0.1), (0.0, 0.1), (5.0, 0.55), (9.9, 0.991), (10.0, 1.0), (1e6, 1.0)],
)
def test_it_grows_evenly_from_a_tenth_to_the_whole(elapsed: float, expected: float) -> None:
    found = part(elapsed, since=0.0, readmitted_at=LONG_AGO, slow_start_s=10.0)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("since", [5.0, 5.001])
def test_without_slow_start_it_is_whole_at_once_even_if_it_came_up_a_moment_after_now(
    since: float,
) -> None:
    assert part(5.0, since=since, readmitted_at=LONG_AGO, slow_start_s=0.0) == 1.0


@pytest.mark.parametrize(("slow_start_s", "length_s"), [(0.0, READMIT_S), (60.0, 60.0)])
def test_after_an_ejection_it_takes_a_while_at_least(slow_start_s: float, length_s: float) -> None:
    def at(now: float) -> float:
        return part(now, since=LONG_AGO, readmitted_at=0.0, slow_start_s=slow_start_s)

    assert at(0.0) == pytest.approx(0.1)
    assert at(length_s / 2) == pytest.approx(0.55)
    assert at(length_s) == 1.0


def test_of_two_reasons_the_stricter_one_counts() -> None:
    assert part(4.0, since=0.0, readmitted_at=3.0, slow_start_s=5.0) == pytest.approx(0.28)
    assert part(4.0, since=3.0, readmitted_at=0.0, slow_start_s=5.0) == pytest.approx(0.28)
