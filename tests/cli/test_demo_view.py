"""How the demo is told, on a terminal and in a log."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from proxy.cli.demo_load import Load, Record
from proxy.cli.demo_report import Phase, Report
from proxy.cli.demo_view import LiveTeller, PlainTeller, Scene, frame, numbers, summary
from proxy.cli.terminal import Paper

Build = Callable[..., Any]


@pytest.fixture
def scene(service_view: Build, drain_view: Build) -> Scene:
    load = Load("127.0.0.1", 1)
    load.records = [Record(99.0, "blue")] * 9 + [Record(99.5, "green")] * 3
    return Scene(load, 90.0, 25.0, 98.0, service_view(75, drain=drain_view(2)))


def drawn(part: Any, width: int = 80) -> str:
    out = Console(file=io.StringIO(), width=width, color_system=None)
    out.print(part)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_a_line_tells_shares_rate_and_failures(scene: Scene) -> None:
    scene.load.failures.append("one")
    assert numbers(scene, 100.0) == "  10s  blue 75 %, green 25 %  4/s  0 in flight  failures 1"


def test_what_was_sent_before_the_last_change_says_nothing_about_now(scene: Scene) -> None:
    scene.since_s = 99.2
    assert scene.shares(100.0) == {"green": 100.0}


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_table_fits_and_shows_the_drain(scene: Scene, width: int) -> None:
    shown = drawn(frame(scene, 100.0, Paper(plain=False, width=width)), width)
    assert "…" not in shown
    blue = next(line for line in shown.splitlines() if line.strip().startswith("blue"))
    assert blue.split()[:6] == ["blue", "v41", "75", "%", "75.0", "%"]
    assert blue.rstrip().endswith("drains")
    assert "12 requests" in shown
    assert "10 of about 25 s" in shown


def test_before_the_admin_answered_there_is_no_table(scene: Scene) -> None:
    scene.service = {}
    assert "starting" in drawn(frame(scene, 100.0, Paper(plain=False, width=80)))


def test_the_summary_has_a_row_for_every_phase_and_the_totals() -> None:
    phase = Phase("switch to green", {"blue": 0, "green": 100}, 1.0, left="blue")
    page = summary(Report([phase], [Record(2.0, "green")]), Paper(plain=True, width=80))
    shown = "".join(drawn(part) for part in page)
    assert "switch to green" in shown
    assert "0 / 100" in shown
    assert "requests 1, failures: 0" in shown
    assert "reached the old pool): 0" in shown


def test_a_log_gets_the_commands_and_numbers_now_and_then(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.began_s = time.monotonic()
    teller = PlainTeller(Console(color_system=None, width=80), every_s=0.0)
    teller.say("half and half.", "turnout weights shop blue=50 green=50")
    teller.update(scene)
    teller.end(Report())
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["$ turnout weights shop blue=50 green=50", "half and half."]
    assert "failures 0" in lines[2]
    assert "requests 0, failures: 0" in lines


def test_on_a_terminal_the_table_goes_and_the_story_stays(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    teller = LiveTeller(out)
    teller.say("half and half.", "turnout weights shop blue=50 green=50")
    teller.update(scene)
    teller.end(Report())
    teller.close()
    assert isinstance(out.file, io.StringIO)
    told = out.file.getvalue()
    assert "$ turnout weights" in told
    assert "in the last 3 s" in told
    assert "requests 0, failures: 0" in capsys.readouterr().out
