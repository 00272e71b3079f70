"""decisions: records as lines, oldest first."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

Build = Callable[..., Any]


def record(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "at": "2026-05-04T10:12:01.123+00:00",
        "service": "shop",
        "who": "cli:ann@host",
        "what": "switch",
        "from": {"blue": 100, "green": 0},
        "to": {"blue": 0, "green": 100},
        "why": "v42",
        "numbers": {},
        "revision": number,
        **more,
    }


def test_records_are_lines_oldest_first(admin: Any, turnout: Build) -> None:
    odd = record(8, why="", **{"from": None, "to": None}, service=None, what="started", who="file")
    admin.set("GET /v1/services/shop/decisions", 200, [record(9), odd])
    ran = turnout("decisions", "shop", "--limit", "5")
    assert ran.code == 0
    first, second = ran.out.splitlines()
    assert re.fullmatch(r"   8  2026-05-0\d \d\d:\d\d:\d1  -  started  by file", first)
    assert second.endswith("shop  switch  blue 100 % -> green 100 %  by cli:ann@host: v42")
    assert admin.calls[0].path.endswith("?limit=5")


def test_without_a_service_all_are_asked_for(admin: Any, turnout: Build) -> None:
    admin.set("GET /v1/decisions", 200, [])
    assert turnout("decisions").out == "no decisions yet.\n"


def test_json_is_the_body(admin: Any, turnout: Build) -> None:
    admin.set("GET /v1/services/shop/decisions", 200, [record(1)])
    assert json.loads(turnout("decisions", "shop", "--output", "json").out) == [record(1)]


PATH = "GET /v1/services/shop/decisions"


def pauses(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """No pause between polls, and Ctrl-C instead of the one after so many."""
    polls = iter(range(count))

    def pause(_seconds: float) -> None:
        if next(polls, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", pause)


def test_following_asks_for_what_came_since_and_shows_each_record_once(
    admin: Any, turnout: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    for records in ([record(1)], [record(2)], [], [record(3), record(2)]):
        admin.then(PATH, 200, records)
    pauses(monkeypatch, 3)
    ran = turnout("decisions", "shop", "--follow")
    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines()] == ["1", "2", "3"]
    asked = [call.path.partition("?")[2] for call in admin.calls]
    assert asked == ["limit=20", *(f"limit=100&since={last}" for last in (1, 2, 2))]


def test_following_waits_for_a_proxy_that_restarts(
    admin: Any, turnout: Build, refusal: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.then(PATH, 200, [record(1)])
    admin.then(PATH, 503, refusal(503, "starting"))
    admin.then(PATH, 200, [record(2)])
    pauses(monkeypatch, 2)
    ran = turnout("decisions", "shop", "--follow")
    assert (ran.code, len(ran.out.splitlines())) == (0, 2)


def test_a_hold_and_a_release_read_as_what_they_are(admin: Any, turnout: Build) -> None:
    bounds = {"timeout": "30s", "most": 1000}
    held = record(8, what="hold", why="by hand", **{"from": None, "to": bounds})
    released = record(9, what="release", why="by hand", **{"from": bounds, "to": None})
    admin.set("GET /v1/services/shop/decisions", 200, [held, released])
    first, second = turnout("decisions", "shop").out.splitlines()
    assert first.endswith("shop  hold  timeout 30s, most 1000  by cli:ann@host: by hand")
    assert second.endswith("release  timeout 30s, most 1000 -> none  by cli:ann@host: by hand")


def test_a_move_of_a_rollout_is_its_phases_and_the_weights_that_changed(
    admin: Any, turnout: Build
) -> None:
    def at(phase: str, green: int) -> dict[str, Any]:
        return {"phase": phase, "weights": {"blue": 100 - green, "green": green}}

    moves = [("warming", 0), ("baking", 10), ("baking", 50), ("paused", 50), ("rolled_back", 0)]
    records = [
        record(number, what="rollout", **{"from": at(*before), "to": at(*after)})
        for number, (before, after) in enumerate(pairwise(moves), start=1)
    ]
    admin.set(PATH, 200, records)
    lines = turnout("decisions", "shop").out.splitlines()
    assert [line.split("  ")[-2] for line in lines] == [
        "warming -> baking: blue 90 %, green 10 %",
        "baking: blue 50 %, green 50 %",
        "baking -> paused",
        "paused -> rolled_back: blue 100 %",
    ]
