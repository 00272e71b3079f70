from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.control.percent import hundredths, in_words, percent, without_zeros
from proxy.control.refusal import Invalid


@pytest.mark.parametrize(
    ("written", "kept"), [("90", 9000), ("37.5", 3750), ("0.01", 1), ("100.00", 10_000), ("0", 0)]
)
def test_percent_is_kept_in_hundredths(written: str, kept: int) -> None:
    assert hundredths("blue", Decimal(written)) == kept


@pytest.mark.parametrize("written", ["-1", "100.01", "NaN", "Infinity", "0.001", "1e-9", "1E+30"])
def test_what_is_no_percentage_is_invalid_and_named(written: str) -> None:
    with pytest.raises(Invalid, match=r"weights\.blue"):
        hundredths("blue", Decimal(written))


def test_whole_percents_are_shown_without_a_point() -> None:
    assert repr([percent(9000), percent(3750), percent(1)]) == "[90, 37.5, 0.01]"


@given(st.integers(min_value=0, max_value=10_000))
def test_what_is_shown_reads_back_the_same(share: int) -> None:
    assert hundredths("blue", Decimal(repr(percent(share)))) == share


def test_shares_read_in_words() -> None:
    assert in_words({"green": 1000, "blue": 9000}) == "blue 90 %, green 10 %"


def test_zero_and_absent_mean_the_same() -> None:
    assert without_zeros({"blue": 10_000, "green": 0}) == {"blue": 10_000}
