"""What the demo counts, and what it calls a failure."""

from __future__ import annotations

from proxy.cli.demo_load import Record
from proxy.cli.demo_report import EDGE_S, Phase, Report, pair, recent, shares


def records(pool: str, *times: float) -> list[Record]:
    return [Record(time, pool) for time in times]


def switched() -> Phase:
    return Phase("switch", {"blue": 0, "green": 100}, 10.0, left="blue")


def test_a_request_belongs_to_the_phase_it_was_sent_in() -> None:
    phase = Phase("all", {"blue": 100}, 1.0)
    phase.end(2.0)
    assert not phase.has(Record(0.9, "blue"))
    assert phase.has(Record(1.0, "blue"))
    assert not phase.has(Record(2.0 - EDGE_S, "blue"))


def test_a_request_sent_after_the_answer_must_not_reach_the_pool_that_was_left() -> None:
    report = Report([switched()], [*records("blue", 9.9, 10.1), *records("green", 10.2)])
    assert report.stale == 1
    assert not report.is_good


def test_requests_sent_while_the_change_was_asked_for_may_go_either_way() -> None:
    report = Report([switched()], [*records("blue", 9.99), *records("green", 10.2)])
    assert report.stale == 0
    assert report.is_good


def test_one_failure_is_enough_to_fail_and_is_named() -> None:
    report = Report([switched()], records("green", 11), ["/item/7: status 502"])
    assert not report.is_good
    assert report.totals()[0] == "requests 2, failures: 1"
    assert "status 502" in report.totals()[-1]


def test_a_demo_without_one_answer_is_no_success() -> None:
    assert not Report([switched()]).is_good


def test_every_phase_shows_shares_wanted_and_seen() -> None:
    phase = Phase("90 / 10", {"blue": 90, "green": 10}, 0.0)
    empty = Phase("later", {"blue": 0, "green": 100}, 99.0)
    seen = [*records("blue", *[1.0] * 8), *records("green", 1.0)]
    assert Report([phase, empty], seen).rows() == [
        ("90 / 10", "90 / 10", "88.9 / 11.1", "9"),
        ("later", "0 / 100", "-", "0"),
    ]


def test_recent_counts_by_when_they_were_sent_even_if_answered_late() -> None:
    seen = [*records("blue", 1.0, 9.0), *records("green", 9.5), *records("blue", 7.0)]
    assert recent(seen, 8.0) == {"blue": 1, "green": 1}
    assert recent([*records("blue", 1.0), *records("green", 9.5)], 8.0) == {"green": 1}


def test_shares_of_nothing_are_empty() -> None:
    assert shares({}) == {}
    assert pair({"blue": 33.333, "green": 66.667}, ["blue", "green"]) == "33.3 / 66.7"
