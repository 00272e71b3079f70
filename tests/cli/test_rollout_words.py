"""A rollout in words: each phase, what it waits for, the guard's numbers, a lockout."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.cli import rollout_words

Build = Callable[..., Any]
PERSON = "waits for a person ('turnout rollout resume shop', promote or abort)"
NOW = datetime(2026, 5, 4, 10, 3, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("phase", "share", "more", "said"),
    [
        ("baking", 10, {}, "step 2 of 3: green 10 %, 3m12s of 5m left"),
        ("baking", 10, {"bake_left_s": 0.0}, "step 2 of 3: green 10 %, baked"),
        (
            "baking",
            10,
            {"requests": 12},
            "step 2 of 3: green 10 %, 3m12s of 5m left; waits for 88 of 100 requests",
        ),
        ("baking", 99, {"step": 3, "bake_left_s": 0.0}, "step 3 of 3: green 99 %"),
        (
            "paused",
            10,
            {"paused": "gate", "reason": "this step waits for a person"},
            f"paused at step 2 of 3: green 10 % (gate); {PERSON}",
        ),
        (
            "paused",
            10,
            {"paused": "hook", "reason": "the change board said no"},
            f"paused at step 2 of 3: green 10 % (hook): the change board said no; {PERSON}",
        ),
        (
            "manual",
            25,
            {},
            f"manual: green 25 %, set by hand; {PERSON}",
        ),
        ("promoted", 100, {}, "promoted: green has everything"),
        ("asking", 80, {"reason": "x"}, "asking blue whether it fares better: green 80 %: x"),
        ("rolled_back", 0, {"reason": "errors"}, "rolled back: blue has everything: errors"),
        (
            "stuck",
            10,
            {},
            "stuck: a rollback is due, but blue has nothing available; green 10 %",
        ),
        ("steady", 100, {}, "finished"),
        ("steady", 0, {"reason": "superseded by the file"}, "ended: superseded by the file"),
    ],
)
def test_each_phase_says_where_it_is_and_what_it_waits_for(
    rollout_view: Build, phase: str, share: float, more: dict[str, Any], said: str
) -> None:
    assert rollout_words.sentence(rollout_view(phase, share, rollout=more)) == said


def test_warming_names_what_is_not_up_with_its_last_check(rollout_view: Build) -> None:
    view = rollout_view("warming", 0)
    view["pools"]["green"]["endpoints"][0]["last_check"] = "503 in 3 ms"
    said = "warming: green gets nothing before it is ready; unix:/run/g.sock: 503 in 3 ms"
    assert rollout_words.sentence(view) == said


def test_warming_says_that_an_endpoint_is_ejected_though_its_checks_pass(
    rollout_view: Build,
) -> None:
    view = rollout_view("warming", 0)
    view["pools"]["green"]["endpoints"][0] |= {
        "up": True,
        "last_check": "200 in 3 ms",
        "ejected": True,
        "ejected_why": "5 failures in a row",
    }
    said = "unix:/run/g.sock: ejected: 5 failures in a row"
    assert rollout_words.sentence(view).endswith(said)


def test_warming_does_not_wait_for_what_leaves_the_pool(rollout_view: Build) -> None:
    view = rollout_view("warming", 0)
    view["pools"]["green"]["endpoints"][0]["leaving"] = True
    assert rollout_words.sentence(view) == "warming: green gets nothing before it is ready"


def test_a_hold_is_said_with_its_words(rollout_view: Build) -> None:
    guard = {"verdict": "HOLD", "reason": "baseline degraded", "words": "the active pool fails"}
    said = rollout_words.sentence(rollout_view(guard=guard))
    assert said.endswith("; held: baseline degraded: the active pool fails")


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        (None, ""),
        ({"verdict": None}, ""),
        ({"verdict": "CONTINUE"}, ""),
        ({"verdict": "PASS", "reason": "not worse", "words": ""}, "guard says PASS: not worse"),
        (
            {"verdict": "FAIL", "mode": "observe", "reason": "errors", "words": "23 of 412"},
            "guard says FAIL (it only observes): errors: 23 of 412",
        ),
    ],
)
def test_a_verdict_is_said_unless_it_is_to_go_on(guard: dict[str, Any] | None, said: str) -> None:
    assert rollout_words.verdict(guard) == said


def test_the_evidence_is_that_of_the_test_nearest_to_its_bar(rollout_view: Build) -> None:
    guard = rollout_view()["guard"]
    assert rollout_words.evidence(guard) == "evidence 0.3 of 5.3 (errors)"
    guard["tests"][1]["evidence"] = 4.0
    assert rollout_words.evidence(guard) == "evidence 4.0 of 6.0 (latency)"
    assert rollout_words.evidence(None) == rollout_words.evidence({"tests": []}) == ""


def test_both_sides_of_the_last_second_are_counted(rollout_view: Build) -> None:
    said = "failed in the last second: green 0 of 10, blue 1 of 90"
    assert rollout_words.sides(rollout_view()["guard"]) == said
    assert rollout_words.sides({"mode": "off"}) == ""


def test_a_lockout_says_since_when_why_and_how_it_ends(rollout_view: Build) -> None:
    locked = {
        "release": "v41b",
        "since": "2026-05-04T10:00:00.000+00:00",
        "until": None,
        "reason": "errors: 23 of 412",
        "rollout": 9,
    }
    assert rollout_words.lockout(rollout_view(lockout=locked), NOW) == (
        "v41b is locked out (3m12s ago): errors: 23 of 412; 'turnout unlock shop' lifts it"
    )
    locked |= {"until": "2026-05-04T11:03:12.000+00:00", "rollout": 12}
    # The rollout that was turned back tells the reason itself.
    assert rollout_words.lockout(rollout_view("rolled_back", 0, lockout=locked), NOW) == (
        "v41b is locked out (3m12s ago); for 1h more; 'turnout unlock shop' lifts it"
    )
    assert rollout_words.lockout(rollout_view(), NOW) == ""
