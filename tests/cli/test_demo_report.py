"""What the demo counts, and what it calls a failure."""

from __future__ import annotations

from proxy.cli.demo_load import Record
from proxy.cli.demo_report import (
    LATE_S,
    Act,
    Promise,
    Report,
    Trouble,
    of_release,
    pair,
    recent,
    shares,
)

KEPT = Promise("kept", is_kept=True)
BROKEN = Promise("broken", is_kept=False)


def records(release: str, *times: float, is_bad: bool = False) -> list[Record]:
    return [Record(time, release, is_bad) for time in times]


def test_a_request_belongs_to_the_act_it_was_sent_in() -> None:
    act = Act("first", 1.0, 2.0)
    assert not act.has(Record(0.9, "v41"))
    assert act.has(Record(1.0, "v41"))
    assert not act.has(Record(2.0, "v41"))


def test_a_bad_answer_that_was_made_on_purpose_is_no_failure() -> None:
    outage = Trouble(frozenset({"v42", "v44"}), 10.0, 14.0)
    seen = [*records("v42", 10.0, 14.0 + LATE_S / 2, is_bad=True), *records("v44", 9.0)]
    report = Report([], [KEPT], [outage], seen)
    assert report.unexplained == 0
    assert report.is_good


def test_a_bad_answer_of_another_time_or_release_is_a_failure() -> None:
    outage = Trouble(frozenset({"v42"}), 10.0, 14.0)
    seen = [
        *records("v42", 9.9, 14.0 + LATE_S, is_bad=True),
        *records("v41", 11.0, is_bad=True),
    ]
    report = Report([], [KEPT], [outage], seen)
    assert report.unexplained == 3
    assert not report.is_good


def test_one_failure_is_enough_to_fail_and_is_named() -> None:
    report = Report([], [KEPT], [], records("v42", 11), ["/item/7: status 502"])
    assert not report.is_good
    assert report.totals() == [
        "2 requests, 0 bad answers in all",
        "failures that nobody made on purpose: 1",
        "  /item/7: status 502",
    ]


def test_one_broken_promise_is_enough_to_fail() -> None:
    assert Report([], [KEPT], [], records("v42", 1)).is_good
    assert not Report([], [KEPT, BROKEN], [], records("v42", 1)).is_good


def test_a_demo_without_one_answer_or_promise_is_no_success() -> None:
    assert not Report([], [KEPT]).is_good
    assert not Report([], [], [], records("v42", 1)).is_good


def test_every_act_shows_who_answered_and_how_many_bad_answers() -> None:
    seen = [*records("v41", *[1.0] * 8), *records("v42", 1.0, is_bad=True)]
    acts = [Act("first", 0.0, 2.0), Act("later", 99.0)]
    assert Report(acts, [], [], seen).rows() == [
        ("first", "9", "v41 88.9 %, v42 11.1 %", "1"),
        ("later", "0", "-", "0"),
    ]


def test_the_answers_of_a_release_are_in_the_order_they_were_sent() -> None:
    seen = [*records("v42", 3.0, 1.0), *records("v41", 2.0)]
    assert [record.sent_s for record in of_release(seen, "v42")] == [1.0, 3.0]


def test_recent_counts_by_when_they_were_sent_even_if_answered_late() -> None:
    seen = [*records("v41", 1.0, 9.0), *records("v42", 9.5), *records("v41", 7.0)]
    assert recent(seen, 8.0) == {"v41": 1, "v42": 1}
    assert recent([*records("v41", 1.0), *records("v42", 9.5)], 8.0) == {"v42": 1}


def test_shares_of_nothing_are_empty() -> None:
    assert shares({}) == {}
    assert pair({"v42": 66.667, "v41": 33.333}) == "v41 33.3 %, v42 66.7 %"
