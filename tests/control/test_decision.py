from __future__ import annotations

from proxy.control.decision import Decision, because, iso_utc


def test_a_record_has_the_documented_shape() -> None:
    decision = Decision(
        what="weights", who="ann", service="shop", before={"blue": 100}, after={"blue": 90}
    )
    assert decision.record(at=1_700_000_000.1234, revision=7) == {
        "at": "2023-11-14T22:13:20.123Z",
        "service": "shop",
        "who": "ann",
        "what": "weights",
        "from": {"blue": 100},
        "to": {"blue": 90},
        "why": "",
        "numbers": {},
        "revision": 7,
        "config": "",
    }


def test_a_reason_follows_what_happened() -> None:
    assert because("by hand", "trying v42") == "by hand: trying v42"
    assert because("by hand", "") == "by hand"


def test_times_are_utc_with_milliseconds() -> None:
    assert iso_utc(0.0) == "1970-01-01T00:00:00.000Z"
