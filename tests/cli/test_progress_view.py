"""Progress on a terminal: the block that stays in its place, within 80 columns."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from proxy.cli.progress_view import frame
from proxy.cli.terminal import Paper
from tests.cli.pseudo_terminal import Terminal

Build = Callable[..., Any]
SHOP = "/v1/services/shop"
PHASES = {
    "warming": 0,
    "baking": 10,
    "paused": 10,
    "manual": 25,
    "promoted": 100,
    "asking": 80,
    "rolled_back": 0,
    "stuck": 10,
}


def drawn(view: dict[str, Any], trouble: str = "") -> list[str]:
    out = Console(width=80, force_terminal=False, color_system=None, record=True, markup=False)
    with out.capture() as captured:
        out.print(frame(view, trouble, Paper(plain=False, width=80)))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_step_shows_both_sides_and_the_evidence_against_its_bar(rollout_view: Build) -> None:
    lines = drawn(rollout_view(rollout={"requests": 12}))
    assert lines[1:5] == [
        "shop  rollout 12 to green (v42)",
        "  1 % 2m   ▸ 10 % 5m pause   100 %",
        "  step 2 of 3: green 10 %, 3m12s of 5m left",
        "  waits for 88 of 100 requests",
    ]
    rows = [line.split() for line in lines]
    assert ["green", "10", "%", "━╌╌╌╌╌╌╌╌╌", "10", "0", "(0", "%)", "1"] in rows
    assert ["blue", "90", "%", "━━━━━━━━━╌", "90", "1", "(1.11", "%)", "12"] in rows
    assert any(row[:1] == ["errors"] and row[-3:] == ["0.3", "of", "5.3"] for row in rows)
    assert lines[-1] == "Ctrl-C leaves it going on"


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_fits_80_columns(rollout_view: Build, phase: str) -> None:
    reason = (
        "errors: candidate 23 of 412 (5.6 %), active 9 of 7,905 (0.11 %); evidence 8.4 against 5.3"
    )
    lines = drawn(rollout_view(phase, PHASES[phase], rollout={"reason": reason}))
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 22


def test_without_a_judge_or_an_answer_it_says_so(rollout_view: Build) -> None:
    view = rollout_view("warming", 0)
    view["guard"] = {"mode": "enforce", "verdict": None, "tests": []}
    assert "  no verdict yet" in drawn(view)
    assert drawn(view, "nobody answers")[-1] == "! nobody answers"
    assert drawn({**view, "rollout": None}) == ["", "Ctrl-C leaves it going on"]


def test_a_terminal_keeps_the_changes_and_redraws_the_rest(admin: Any, rollout_view: Build) -> None:
    admin.set(f"POST {SHOP}/deploy", 202, rollout_view("warming", 0))
    admin.set(f"GET {SHOP}", 200, rollout_view("baking", 10))
    terminal = Terminal("deploy", "shop", "--endpoints", "10.0.0.1:80")
    terminal.until("warming: green gets nothing")
    terminal.until("failed")
    admin.set(f"GET {SHOP}", 200, rollout_view("paused", 10, rollout={"paused": "gate"}))
    terminal.until("waits for a person")
    terminal.process.send_signal(signal.SIGINT)
    terminal.until(None)
    assert terminal.end() == 130
