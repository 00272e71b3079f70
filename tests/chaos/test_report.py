"""A report says what happened to whom in which part of the plan."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos import plan
from tests.chaos.report import Report, Seen

PLAN = plan.make(3, 60, (4, 2))
RAW = {
    "gets": 900,
    "posts": 100,
    "failures": [[102.0, "GET", "502"], [120.0, "GET", "broken off"], [158.0, "POST", "503"]],
    "worst_s": 2.04,
    "p99_s": 0.031,
}
ORDERS = Counter({"Turnout-0-1": 1, "Turnout-0-2": 2, "nginx-0-2": 2, "nginx-1-1": 3})


def _seen(proxy: str) -> Seen:
    return Seen.of(proxy, RAW, ORDERS, PLAN, began_s=100.0)


def test_a_failure_belongs_to_the_part_of_the_plan_in_which_it_happened() -> None:
    parts = [(one.part, one.at_s) for one in _seen("Turnout").failures]
    assert parts == [("rolling restart", 2.0), ("trouble", 20.0), ("calm", 58.0)]


def test_the_share_is_of_gets_alone_and_posts_are_counted_apart() -> None:
    seen = _seen("Turnout")
    assert seen.share == 2 / 900
    assert [one.what for one in seen.failed("POST")] == ["503"]
    assert [one.what for one in seen.failed("GET", "trouble")] == ["broken off"]


def test_a_post_that_arrived_twice_is_counted_for_the_proxy_that_sent_it() -> None:
    assert _seen("Turnout").posts_twice == 1
    assert _seen("nginx").posts_twice == 2


def test_the_table_has_a_line_for_each_proxy_and_names_the_seed() -> None:
    text = str(Report(PLAN, (_seen("Turnout"), _seen("nginx"))))
    heading, columns, turnout, nginx, *kinds = text.splitlines()
    assert "seed 3" in heading
    assert columns.split("  ")[0] == "proxy"
    assert " ".join(turnout.split()) == "Turnout 1000 2 0.222 % 1 of 100 1 2.04 s 31 ms"
    assert nginx.startswith("nginx ")
    assert kinds[:2] == [
        "Turnout in rolling restart: 1 GET 502",
        "Turnout in trouble: 1 GET broken off",
    ]


def test_complaints_name_every_promise_that_was_broken() -> None:
    report = Report(PLAN, (_seen("Turnout"),))
    assert report.complaints("Turnout") == [
        "1 GETs failed in the rolling restart",
        "1 requests failed after the last trouble",
        "1 POSTs arrived twice",
    ]


@pytest.mark.parametrize(
    ("raw", "complaints"),
    [
        ({"failures": []}, []),
        ({"failures": [[120.0, "GET", "broken off"]] * 22}, []),
        ({"failures": [[120.0, "GET", "broken off"]] * 23}, ["2.56 % of GETs were broken off"]),
        ({"failures": [[120.0, "GET", "504"]] * 4}, []),
        ({"failures": [[120.0, "GET", "504"]] * 5}, ["0.56 % of GETs had no good answer"]),
        ({"failures": [], "gets": 10}, ["next to nothing was asked"]),
    ],
)
def test_a_few_failures_in_the_middle_of_trouble_are_borne(
    raw: dict[str, object], complaints: list[str]
) -> None:
    seen = Seen.of("Turnout", {**RAW, **raw}, Counter(), PLAN, began_s=100.0)
    assert Report(PLAN, (seen,)).complaints("Turnout") == complaints
