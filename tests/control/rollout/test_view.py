"""What people see of a rollout, its guard and a lockout."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.control.guard.watch import Seen
from proxy.control.rollout.machine import End, Judged, Phase, Rollout, Why
from proxy.control.rollout.plan import Plan, Step
from proxy.control.rollout.view import guard_view, lockout_view, rollout_view
from proxy.control.state import Lockout
from proxy.policy.judge import Call, Counts, Test, Tick, Verdict

PLAN = Plan(steps=(Step(weight=1_050, bake_s=300.0), Step(weight=10_000, pause=True)))
BAKING = Rollout(
    id=12,
    old="blue",
    candidate="green",
    release="v42",
    plan=PLAN,
    phase=Phase.BAKING,
    baked_s=88.54,
    had=812,
    who="ci",
)


def test_a_rollout_is_shown_with_what_scripts_rely_on() -> None:
    view = rollout_view(BAKING)
    assert view
    assert {key: view[key] for key in ("id", "phase", "step", "bake_left_s", "reason", "end")} == {
        "id": 12,
        "phase": "baking",
        "step": 1,
        "bake_left_s": 211.5,
        "reason": None,
        "end": None,
    }
    assert view["steps"] == [
        {"weight": 10.5, "bake_s": 300.0, "pause": False},
        {"weight": 100, "bake_s": 0.0, "pause": True},
    ]
    assert (view["requests"], view["min_requests"], view["weight"]) == (812, 100, 10.5)


def test_there_is_none_before_the_first() -> None:
    assert rollout_view(None) is None


@pytest.mark.parametrize("phase", Phase)
def test_only_a_step_has_a_bake_left(phase: Phase) -> None:
    view = rollout_view(replace(BAKING, phase=phase, before=Phase.BAKING))
    assert view
    assert (view["bake_left_s"] is not None) is (phase in {Phase.BAKING, Phase.PAUSED})


def test_a_bake_that_is_long_over_has_nothing_left() -> None:
    view = rollout_view(replace(BAKING, baked_s=900.0))
    assert view
    assert view["bake_left_s"] == 0.0


@pytest.mark.parametrize(
    ("phase", "why", "shown"),
    [
        (Phase.PAUSED, Why.GATE, "gate"),
        (Phase.PAUSED, Why.ON_FAIL, "on_fail"),
        (Phase.MANUAL, Why.OPERATOR, None),
        (Phase.PROMOTED, Why.NO_HELP, None),
    ],
)
def test_why_it_is_paused_is_said_of_a_pause_alone(phase: Phase, why: Why, shown: str) -> None:
    view = rollout_view(replace(BAKING, phase=phase, why=why))
    assert view
    assert view["paused"] == shown


@pytest.mark.parametrize("end", [each for each in End if each.value])
def test_how_it_ended_is_a_word(end: End) -> None:
    view = rollout_view(replace(BAKING, phase=Phase.STEADY, end=end, reason="so it is"))
    assert view
    assert (view["end"], view["reason"]) == (end.value, "so it is")


def test_the_guard_shows_the_last_tick_and_all_since_its_judge_began() -> None:
    tests = (Test(name="errors", evidence=0.312, bar=5.298),)
    seen = Seen(
        tick=Tick(
            at_s=9.0,
            length_s=1.0,
            active=Counts(requests=90, errors=1),
            candidate=Counts(requests=10, errors=0),
        ),
        verdict=Verdict(call=Call.HOLD, reason="suspicion", words="errors: ...", tests=tests),
        judged=Judged.HOLD,
        still_fails=True,
        old_is_no_better=False,
        totals=(100, 2, 900, 3),
    )
    assert guard_view("enforce", BAKING, seen) == {
        "mode": "enforce",
        "verdict": "HOLD",
        "reason": "suspicion",
        "words": "errors: ...",
        "tests": [{"name": "errors", "evidence": 0.31, "bar": 5.3}],
        "sides": {
            "green": {"requests": 10, "errors": 0},
            "blue": {"requests": 90, "errors": 1},
        },
        "totals": {
            "green": {"requests": 100, "errors": 2},
            "blue": {"requests": 900, "errors": 3},
        },
    }


def test_before_its_first_look_the_guard_has_a_mode_only() -> None:
    view = guard_view("observe", BAKING, None)
    assert (view["mode"], view["verdict"], view["tests"]) == ("observe", None, [])


def test_a_lockout_says_what_since_when_and_why_until_its_time_is_over() -> None:
    lockout = Lockout(release="v42", at=0.0, until=60.0, reason="errors: too many", rollout=12)
    assert lockout_view(lockout, 59.0) == {
        "release": "v42",
        "since": "1970-01-01T00:00:00.000Z",
        "until": "1970-01-01T00:01:00.000Z",
        "reason": "errors: too many",
        "rollout": 12,
    }
    assert lockout_view(lockout, 60.0) is None
    assert lockout_view(None, 0.0) is None
    assert lockout_view(replace(lockout, until=None), 1e12) is not None
