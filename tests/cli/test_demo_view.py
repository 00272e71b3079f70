"""How the demo is told, on a terminal and in a log."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from proxy.cli.demo_load import Load, Record
from proxy.cli.demo_report import Act, Promise, Report
from proxy.cli.demo_view import LiveTeller, PlainTeller, Scene, frame, numbers, summary
from proxy.cli.terminal import Paper

Build = Callable[..., Any]


@pytest.fixture
def scene(service_view: Build, drain_view: Build) -> Scene:
    load = Load("127.0.0.1", 1)
    load.records = [Record(99.0, "v41")] * 9 + [Record(99.5, "v42")] * 3
    return Scene(load, 90.0, 25.0, 98.0, service_view(75, drain=drain_view(2)))


def drawn(part: Any, width: int = 80) -> str:
    out = Console(file=io.StringIO(), width=width, color_system=None)
    out.print(part)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_a_line_tells_shares_rate_and_failures(scene: Scene) -> None:
    scene.load.failures.append("one")
    assert numbers(scene, 100.0) == (
        "  10s  v41 75 %, v42 25 %  4/s  0 in flight  bad answers 0, failures 1"
    )


def test_what_was_sent_before_the_last_change_says_nothing_about_now(scene: Scene) -> None:
    scene.since_s = 99.2
    assert scene.shares(100.0) == {"v42": 100.0}
    scene.since_s = 99.9
    assert "v41 -, v42 -" in numbers(scene, 100.0)


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


def test_the_live_table_tells_of_the_rollout_and_its_judge(
    scene: Scene, rollout_view: Build
) -> None:
    scene.service = rollout_view()
    shown = drawn(frame(scene, 100.0, Paper(plain=False, width=80)))
    assert "of 5m left; evidence 0.3 of 5.3 (errors)" in shown


def test_the_summary_has_a_row_for_every_act_the_promises_and_the_totals() -> None:
    promises = [Promise("one", is_kept=True), Promise("two", is_kept=False)]
    report = Report([Act("v42, a good release", 1.0)], promises, [], [Record(2.0, "v42")])
    shown = "".join(drawn(part) for part in summary(report, Paper(plain=True, width=80)))
    assert "v42, a good release         1  v42 100 %" in shown
    assert "ok: one\nNOT AS PROMISED: two\n" in shown
    assert "1 request, 0 bad answers in all\nfailures that nobody made on purpose: 0\n" in shown


def test_a_log_gets_the_commands_what_they_print_and_numbers_now_and_then(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.began_s = time.monotonic()
    teller = PlainTeller(Console(color_system=None, width=80), every_s=0.0)
    teller.head("1. A good release.")
    teller.say("It begins.")
    teller.command("turnout deploy shop")
    teller.line("16:00:00  warming " + "x" * 100)
    teller.promise(Promise("nothing failed", is_kept=True))
    teller.update(scene)
    teller.end(Report())
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "",
        "1. A good release.",
        "It begins.",
        "$ turnout deploy shop",
        "  16:00:00  warming " + "x" * 100,
        "ok: nothing failed",
    ]
    assert "failures 0" in lines[6]
    assert "0 requests, 0 bad answers in all" in lines


def test_on_a_terminal_the_table_goes_and_the_story_stays(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    teller = LiveTeller(out)
    teller.head("1. A good release.")
    teller.say("It begins.")
    teller.command("turnout deploy shop")
    teller.line("warming")
    teller.promise(Promise("nothing failed", is_kept=True))
    teller.update(scene)
    teller.end(Report())
    teller.close()
    assert isinstance(out.file, io.StringIO)
    told = out.file.getvalue()
    for said in (
        "1. A good release.",
        "It begins.",
        "$ turnout deploy",
        "  warming",
        "ok: nothing",
    ):
        assert said in told
    assert "in the last 3 s" in told
    assert "0 requests, 0 bad answers in all" in capsys.readouterr().out
