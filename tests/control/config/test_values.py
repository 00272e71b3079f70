from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.control.config import values
from proxy.control.config.problem import Wrong
from proxy.control.config.values import Expanded

PARSERS: list[Callable[[Any], Any]] = [
    values.boolean,
    values.duration,
    values.name,
    values.percent,
    values.positive_duration,
    values.positive_size,
    values.release,
    values.secret,
    values.share,
    values.share_or_off,
    values.size,
    values.sticky_by,
    values.text,
    values.token,
    values.unless_off,
    values.workers,
    lambda value: values.integer(value, least=1, most=10),
    lambda value: values.choice(value, ("json", "combined")),
]
ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text(alphabet="0123456789.-+%eE_ smhdKMGiB").map(Expanded)
    | st.text(alphabet="0123456789.-smhdKMGiB:/[]*")
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(), st.integers(), max_size=2)
)


@given(ANYTHING)
def test_whatever_a_value_is_it_is_taken_or_called_wrong(value: Any) -> None:
    for parse in PARSERS:
        try:
            parse(value)
        except Wrong as wrong:
            assert str(wrong).isprintable()  # noqa: PT017 - most values are wrong, not all


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("0s", 0),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("24h", 86_400),
        ("2d", 172_800),
    ],
)
def test_durations_are_seconds(written: str, seconds: float) -> None:
    assert values.duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "",
        "s",
        "30",
        "-5s",
        "+5s",
        "5 s",
        "1h!30m",
        "1.2.3s",
        ".5s",
        "5y",
        "3mm",
        "٣s",
        "1e3s",
        "soon",
    ],
)
def test_nonsense_is_no_duration(written: str) -> None:
    with pytest.raises(Wrong):
        values.duration(written)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (30, "30s"),
        (1.5, "1.5s"),
        ("30", "30s"),
        ("-5s", "5s"),
        ("5 min", "5m"),
        ("30 seconds", "30s"),
    ],
)
def test_a_slip_in_a_duration_is_understood(written: Any, meant: str) -> None:
    with pytest.raises(Wrong) as caught:
        values.duration(written)
    assert caught.value.suggestion == meant
    assert "a duration such as 250ms, 30s" in caught.value.expected


@pytest.mark.parametrize("written", ["99999999h", "9" * 500 + "s", "9" * 5000 + "d"])
def test_a_duration_beyond_ten_years_is_refused(written: str) -> None:
    with pytest.raises(Wrong, match="ten years at most"):
        values.duration(written)


def test_some_durations_must_be_longer_than_nothing() -> None:
    assert values.positive_duration("1ms") == 0.001
    with pytest.raises(Wrong, match="longer than 0s"):
        values.positive_duration("0s")


@given(st.integers(0, 10**10))
def test_a_duration_survives_being_written(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert values.duration(values.duration_text(seconds)) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (60, "60s"),
        (75, "75s"),
        (90.5, "90.5s"),
        (600, "10m"),
        (3600, "1h"),
        (5400, "1h30m"),
        (3661, "1h1m1s"),
        (86_400, "24h"),
    ],
)
def test_durations_are_written_as_people_write_them(seconds: float, written: str) -> None:
    assert values.duration_text(seconds) == written


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("64KiB", 65_536),
        ("1MiB", 2**20),
        ("2GiB", 2**31),
        ("512B", 512),
        ("512", 512),
        (512, 512),
        (0, 0),
    ],
)
def test_sizes_are_bytes(written: Any, count: int) -> None:
    assert values.size(written) == count


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("64KB", "64KiB"),
        ("64k", "64KiB"),
        ("1 MiB", "1MiB"),
        ("1.5MiB", ""),
        (-1, ""),
        (True, ""),
        ("KiB", ""),
    ],
)
def test_a_slip_in_a_size_is_refused_with_what_was_meant(written: Any, meant: str) -> None:
    with pytest.raises(Wrong) as caught:
        values.size(written)
    assert caught.value.suggestion == meant


@given(st.integers(0, 2**50))
def test_a_size_survives_being_written(count: int) -> None:
    assert values.size(values.size_text(count)) == count


@pytest.mark.parametrize(
    ("written", "hundredths"),
    [
        (90, 9000),
        (12.5, 1250),
        (33.33, 3333),
        (0.05, 5),
        (Decimal("99.95"), 9995),
        (Expanded("7.5"), 750),
    ],
)
def test_percentages_are_hundredths(written: Any, hundredths: int) -> None:
    assert values.percent(written) == hundredths


@pytest.mark.parametrize(
    "written", [-1, 100.01, 33.333, math.nan, math.inf, True, "90", "90%", None]
)
def test_what_is_no_percentage_is_refused(written: Any) -> None:
    with pytest.raises(Wrong):
        values.percent(written)


@given(st.integers(0, 10_000))
def test_every_hundredth_of_a_percent_survives_being_written(hundredths: int) -> None:
    assert values.percent(values.percent_number(hundredths)) == hundredths


def test_whole_percentages_are_written_whole() -> None:
    assert repr(values.percent_number(9000)) == "90"
    assert repr(values.percent_number(3750)) == "37.5"


@pytest.mark.parametrize(
    ("written", "hundredths"), [("10%", 1000), ("0%", 0), ("100%", 10_000), ("12.5%", 1250)]
)
def test_shares_are_hundredths_of_a_percent(written: str, hundredths: int) -> None:
    assert values.share(written) == hundredths
    assert values.share_text(hundredths) == written
    assert values.share_or_off(written) == hundredths


@pytest.mark.parametrize("written", ["101%", "1.234%", "%", "-1%", "10 %", None, True, "ten"])
def test_what_is_no_share_is_refused(written: Any) -> None:
    with pytest.raises(Wrong, match="from 0% to 100%"):
        values.share(written)


@pytest.mark.parametrize(
    ("written", "meant"), [(10, "10%"), (1, "1%"), (0.1, "10%"), (0.015, "1.5%"), (100, "100%")]
)
def test_a_share_without_its_sign_is_understood(written: float, meant: str) -> None:
    with pytest.raises(Wrong) as caught:
        values.share(written)
    assert caught.value.suggestion == meant


@pytest.mark.parametrize("written", [150, -1, 100.5])
def test_a_number_that_could_be_no_share_suggests_none(written: float) -> None:
    with pytest.raises(Wrong) as caught:
        values.share(written)
    assert not caught.value.suggestion


def test_a_chance_of_nothing_and_a_part_that_is_all_are_refused() -> None:
    assert (values.positive_share("0.01%"), values.part_share("99.99%")) == (1, 9_999)
    with pytest.raises(Wrong, match="above 0%"):
        values.positive_share("0%")
    with pytest.raises(Wrong, match="leaves nothing"):
        values.part_share("100%")


def test_what_can_be_turned_off_is_none_then() -> None:
    assert values.share_or_off("off") is None
    with pytest.raises(Wrong, match="or off"):
        values.share_or_off("of")


def test_text_from_the_environment_may_be_a_number_or_a_boolean() -> None:
    assert values.integer(Expanded("4"), least=1, most=10) == 4
    assert values.boolean(Expanded("true")) is True
    assert values.workers(Expanded("4")) == 4
    assert values.workers(Expanded("auto")) == "auto"
    assert type(values.text(Expanded("4"))) is str


def test_quoted_numbers_of_the_file_are_no_numbers() -> None:
    with pytest.raises(Wrong, match="did you mean 4 without quotes"):
        values.integer("4", least=1, most=10)


def test_the_words_of_old_yaml_are_no_booleans_but_understood() -> None:
    with pytest.raises(Wrong, match="did you mean false"):
        values.boolean("off")


def test_numbers_must_be_quoted_where_text_is_wanted() -> None:
    with pytest.raises(Wrong, match="in quotes"):
        values.release(1.1)


@pytest.mark.parametrize("written", ["blue", "v2", "eu-west.1", "_x", "A" * 63])
def test_names_of_services_and_pools(written: str) -> None:
    assert values.name(written) == written


@pytest.mark.parametrize("written", ["", "a b", "-a", "a/b", "a:b", "ü", "A" * 64, "a\n", "."])
def test_names_that_would_break_paths_or_cookies_are_refused(written: str) -> None:
    with pytest.raises(Wrong):
        values.name(written)


def test_a_secret_is_never_shown() -> None:
    with pytest.raises(Wrong) as caught:
        values.secret("hunter2\n")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(Wrong) as caught:
        values.secret(271828)
    assert "271828" not in str(caught.value)


def test_an_empty_secret_is_a_secret_and_an_empty_release_is_none() -> None:
    assert values.secret("") == ""
    assert values.release("") is None


@pytest.mark.parametrize("written", ["none", "cookie", "client_ip", "header:X-User"])
def test_what_clients_are_recognised_by(written: str) -> None:
    assert values.sticky_by(written) == written


@pytest.mark.parametrize(
    ("written", "meant"),
    [("cooky", "cookie"), ("header", "header:X-User-Id"), ("header:", "header:X-User-Id")],
)
def test_a_slip_in_what_clients_are_recognised_by(written: str, meant: str) -> None:
    with pytest.raises(Wrong) as caught:
        values.sticky_by(written)
    assert caught.value.suggestion == meant


@pytest.mark.parametrize(
    ("written", "ranges", "shown"),
    [
        ("200-399", ((200, 399),), "200-399"),
        (204, ((204, 204),), "204"),
        ("200-299, 401", ((200, 299), (401, 401)), "200-299,401"),
    ],
)
def test_statuses_are_ranges_and_single_codes(
    written: Any, ranges: tuple[tuple[int, int], ...], shown: str
) -> None:
    assert values.statuses(written) == ranges
    assert values.statuses_text(ranges) == shown


@pytest.mark.parametrize("written", ["", "2xx", "100", "600", "300-200", "200-", True, None, [200]])
def test_what_is_no_final_status_is_refused(written: Any) -> None:
    with pytest.raises(Wrong):
        values.statuses(written)


@pytest.mark.parametrize("written", [{}, None, {"path": "/"}])
def test_a_mapping_that_may_be_off_stays_what_it_is(written: Any) -> None:
    assert values.off_is_none(written) is written
    assert values.off_is_none("off") is None
    assert values.off_is_none(value=False) is None


@pytest.mark.parametrize("written", [None, False, "of", []])
def test_what_is_on_by_itself_is_switched_off_by_that_word_only(written: Any) -> None:
    assert values.unless_off("off") is None
    with pytest.raises(Wrong, match="a mapping, or off"):
        values.unless_off(written)


@pytest.mark.parametrize("written", ["of", "on", "none"])
def test_what_is_neither_a_mapping_nor_off_says_so(written: Any) -> None:
    with pytest.raises(Wrong, match="a mapping, or off"):
        values.off_is_none(written)


@pytest.mark.parametrize("written", ["a\r\nb: c", " a", "ä", 3, None])
def test_a_value_that_no_header_carries_is_refused_without_being_shown(written: Any) -> None:
    with pytest.raises(Wrong) as caught:
        values.header_value(written)
    assert "b: c" not in str(caught.value)


@pytest.mark.parametrize("written", [10, 0.1, "10", "101%", "-1%", "1.234%", "%", "ten%", True])
def test_a_share_has_its_sign_and_is_no_more_than_all(written: Any) -> None:
    with pytest.raises(Wrong):
        values.share(written)


@pytest.mark.parametrize("value", [301, 302, 307, 308, Expanded("308")])
def test_a_redirection_leads_to_the_same_place(value: object) -> None:
    assert values.redirect_status(value) == int(str(value))


@pytest.mark.parametrize("value", [300, 303, 304, 305, 200, True, "308", None, 308.5, []])
def test_other_statuses_do_not(value: object) -> None:
    with pytest.raises(Wrong) as caught:
        values.redirect_status(value)
    assert caught.value.expected == "301, 302, 307 or 308"
