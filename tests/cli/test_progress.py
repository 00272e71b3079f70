"""Progress without a terminal: what is a change, and what its line says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from proxy.cli.progress import EVERY_S, JsonTeller, LineTeller, change, line

Build = Callable[..., Any]


@pytest.mark.parametrize(
    "more",
    [
        {"rollout": {"step": 3}},
        {"rollout": {"paused": "gate"}},
        {"rollout": {"reason": "x"}},
        {"guard": {"verdict": "HOLD"}},
        {"share": 11},
        {"phase": "paused"},
    ],
)
def test_a_move_of_the_rollout_is_a_change(rollout_view: Build, more: dict[str, Any]) -> None:
    assert change(rollout_view(**more)) != change(rollout_view())


@pytest.mark.parametrize(
    "more",
    [
        {"rollout": {"requests": 900, "bake_left_s": 10.0}},
        {"guard": {"verdict": "PASS", "tests": []}},
        {"revision": 99},
    ],
)
def test_clocks_and_counters_are_none(rollout_view: Build, more: dict[str, Any]) -> None:
    assert change(rollout_view(**more)) == change(rollout_view())


def test_lines_come_with_changes_and_now_and_then(
    rollout_view: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    teller = LineTeller(lambda: now[0])
    for at in (0.0, 1.0, EVERY_S - 0.1, EVERY_S, EVERY_S + 1.0):
        now[0] = at
        teller.update(rollout_view(), "")
    assert len(capsys.readouterr().out.splitlines()) == 2
    teller.update(rollout_view(), "nobody answers")
    teller.update(rollout_view(), "nobody answers")
    teller.update(rollout_view(), "")
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2
    assert out[0].endswith("  nobody answers")


def test_a_line_without_a_judge_has_no_empty_parts(rollout_view: Build) -> None:
    view = rollout_view()
    view["guard"] = {"mode": "off", "verdict": None, "tests": []}
    assert line(view) == "step 2 of 3: green 10 %, 3m12s of 5m left; 812 requests"
    assert line({**view, "rollout": None}) == "no rollout"


def test_json_is_silent_while_nobody_answers(
    rollout_view: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    teller = JsonTeller()
    view = rollout_view()
    teller.update(view, "")
    teller.update(view, "nobody answers")
    teller.close(view)
    assert len(capsys.readouterr().out.splitlines()) == 1
