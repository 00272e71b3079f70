"""A promise of the demo is kept only when it was seen to be."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.cli.demo_load import Record
from proxy.cli.demo_promises import (
    DEGRADED,
    Seen,
    stays_away,
    turned_back,
    was_held,
    went_on,
    went_through,
)
from proxy.cli.demo_report import Act, Trouble
from proxy.cli.exits import ExitCode

ACT = Act("act", 0.0, 20.0)
OUTAGE = Trouble(frozenset({"v42", "v44"}), 4.0, 8.0)
SOUND = [Record(1.0, "v41"), Record(2.0, "v42")]
BAD = [Record(1.0, "v42"), Record(2.0, "v43", is_bad=True), Record(3.5, "v43"), Record(3.0, "v42")]


def view(
    phase: str, number: int = 2, *, lockout: str | None = None, hold: str | None = None
) -> dict[str, Any]:
    return {
        "rollout": {"id": number, "phase": phase},
        "guard": {"verdict": "HOLD" if hold else "CONTINUE", "reason": hold or ""},
        "lockout": {"release": lockout} if lockout else None,
    }


def turned(lockout: str | None = "v43") -> Seen:
    seen = Seen(1)
    seen.take(view("rolled_back", lockout=lockout), 4.0)
    return seen


def held() -> Seen:
    seen = Seen(1)
    for now_s in (5.0, 6.0, 25.0):
        seen.take(view("baking", hold=DEGRADED), now_s)
    seen.take(view("baking"), 26.0)
    return seen


def test_a_good_release_goes_through_when_nothing_failed() -> None:
    promise = went_through(SOUND, 0, ACT, "v42", ExitCode.DONE)
    assert promise.is_kept
    assert promise.said == "v42 was rolled out in 20s: 0 of 2 requests failed"


@pytest.mark.parametrize(
    ("records", "failed", "code"),
    [
        (SOUND, 0, ExitCode.ROLLED_BACK),
        (SOUND, 1, ExitCode.DONE),
        (BAD, 0, ExitCode.DONE),
        ([], 0, ExitCode.DONE),
    ],
)
def test_else_it_did_not(records: list[Record], failed: int, code: int) -> None:
    assert not went_through(records, failed, ACT, "v42", code).is_kept


def test_turning_back_is_measured_from_the_first_request_to_the_last() -> None:
    promise = turned_back(BAD, ACT, "v43", ExitCode.ROLLED_BACK)
    assert promise.is_kept
    assert promise.said == (
        "v43 was turned back 1.5 s after its first request: 1 bad answer among the 3 of that time"
    )


def test_a_bad_release_that_was_not_seen_or_not_turned_back_breaks_the_promise() -> None:
    assert not turned_back(SOUND, ACT, "v43", ExitCode.ROLLED_BACK).is_kept
    assert not turned_back(BAD, ACT, "v43", ExitCode.DONE).is_kept


def test_what_was_turned_back_stays_away() -> None:
    promise = stays_away(BAD, "v43", turned(), 4.0, ExitCode.REFUSED)
    assert promise.is_kept
    assert promise.said == "0 requests reached v43 after that; it is locked out"


@pytest.mark.parametrize(
    ("seen", "told_s", "again"),
    [
        (turned(), 3.4, ExitCode.REFUSED),
        (turned(), 4.0, ExitCode.DONE),
        (turned(lockout=None), 4.0, ExitCode.REFUSED),
        (Seen(1), 4.0, ExitCode.REFUSED),
    ],
)
def test_one_late_request_or_no_lockout_breaks_that_promise(
    seen: Seen, told_s: float, again: int
) -> None:
    assert not stays_away(BAD, "v43", seen, told_s, again).is_kept


def test_an_outage_of_both_holds() -> None:
    promise = was_held([Record(5.0, "v42", is_bad=True)], OUTAGE, held())
    assert promise.is_kept
    assert promise.said == (
        "an outage of 4 s under both releases (1 bad answer): held for 20 s, not turned back"
    )


def test_an_outage_that_was_not_felt_not_held_or_turned_back_breaks_the_promise() -> None:
    felt = [Record(5.0, "v42", is_bad=True)]
    back = held()
    back.take(view("rolled_back"), 27.0)
    assert not was_held([Record(5.0, "v42")], OUTAGE, held()).is_kept
    assert not was_held(felt, OUTAGE, Seen(1)).is_kept
    assert not was_held(felt, OUTAGE, back).is_kept


def test_it_goes_on_by_itself_or_not() -> None:
    assert went_on("v44", ExitCode.DONE).is_kept
    assert not went_on("v44", ExitCode.ROLLED_BACK).is_kept


def test_what_is_left_of_the_rollout_before_is_not_taken_for_this_one() -> None:
    seen = Seen(2)
    seen.take(view("rolled_back", lockout="v43", hold=DEGRADED), 1.0)
    seen.take({"rollout": None, "guard": None}, 2.0)
    assert seen == Seen(2)
