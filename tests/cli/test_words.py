"""Values in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.cli import words


@pytest.mark.parametrize(
    ("value", "text"),
    [(90, "90 %"), (37.5, "37.5 %"), (0.25, "0.25 %"), (0, "0 %"), (100.0, "100 %")],
)
def test_percent_has_no_decimals_that_say_nothing(value: float, text: str) -> None:
    assert words.percent(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.4, "0.4s"),
        (12.9, "12s"),
        (60, "1m"),
        (298.2, "4m58s"),
        (7500, "2h5m"),
        (273_600, "3d4h"),
        (-3, "0s"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_shares_name_both_pools_or_the_one_that_has_all() -> None:
    assert words.shares({"blue": 90, "green": 10}) == "blue 90 %, green 10 %"
    assert words.shares({"blue": 0, "green": 100}) == "green 100 %"
    assert words.traffic({"blue": 0, "green": 100}) == "all traffic to green"


def test_what_is_left_is_counted_in_its_classes() -> None:
    assert words.remaining({"request": 3, "stream": 0, "tunnel": 1}) == "3 requests, 1 tunnel"
    assert words.remaining({"request": 1, "stream": 12_000, "tunnel": 0}) == (
        "1 request, 12 000 streams"
    )


def test_an_empty_drain_says_what_was_cut() -> None:
    drain = {"pool": "blue", "remaining": {"request": 0}, "cut": {"request": 2}}
    assert words.drain_sentence(drain) == "blue is empty (2 requests cut at the deadline)."


def test_a_drain_of_an_endpoint_names_it_and_its_pool() -> None:
    drain = {
        "pool": "blue",
        "endpoint": "10.0.0.1:80",
        "remaining": {"request": 1},
        "deadline_s": 5,
    }
    assert words.drain_sentence(drain) == "10.0.0.1:80 of blue drains: 1 request, 5s left."


def test_the_time_left_is_that_of_the_classes_that_are_left() -> None:
    drain = {"pool": "blue", "deadline_s": 299.0, "requests_left_s": 29.0}
    requests = {**drain, "remaining": {"request": 2, "tunnel": 0}}
    tunnels = {**drain, "remaining": {"request": 2, "tunnel": 1}}
    assert words.drain_sentence(requests) == "blue drains: 2 requests, 29s left."
    assert words.drain_sentence(tunnels) == "blue drains: 2 requests, 1 tunnel, 4m59s left."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"blue": 90, "green": 10}, "blue 90 %, green 10 %"),
        ({"endpoints": [{"address": "a:1", "weight": 1}, "b:2"], "release": "v2"}, "a:1, b:2 (v2)"),
        ({"endpoints": [], "release": None}, "none"),
        ("green", "green"),
        (None, "none"),
        ({"pool": "blue", "endpoint": None}, "pool blue"),
        ({}, ""),
    ],
)
def test_settings_of_every_kind_have_words(value: Any, text: str) -> None:
    assert words.setting(value) == text


def test_moments_come_as_text_or_seconds() -> None:
    now = datetime(2026, 5, 4, 10, 3, 12, tzinfo=UTC)
    assert words.ago("2026-05-04T10:00:00.000Z", now) == "3m12s ago"
    assert words.ago(now.timestamp() - 5, now) == "5s ago"
    assert words.ago(None, now) == ""
    assert words.ago("nonsense", now) == ""
