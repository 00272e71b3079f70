"""The page on the judge: its example is computed, its tables have every case, its knobs are true."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from math import log
from pathlib import Path

import pytest

from benchmarks.judge.suites import SUITES
from proxy.control.config.sections.rollout import GuardConfig

Blocks = Callable[[str, str], list[str]]


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs/judge.md").read_text(encoding="utf-8")


def test_the_example_says_what_it_says(page: str, blocks: Blocks) -> None:
    (program,) = blocks(page, "python")
    (output,) = blocks(page, "text")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(program, "docs/judge.md", "exec"), {})
    assert said.getvalue() == output


def test_every_knob_is_told_and_none_that_does_not_exist(page: str) -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| .* \| .* \|$", page, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert told == set(GuardConfig.model_fields)


def test_the_bars_are_those_of_the_default_budget(page: str) -> None:
    budget = GuardConfig().false_alarm / 10_000
    assert f"bar {log(2 / budget):.1f} of errors" in page
    assert f"bars {log(4 / budget):.1f} of latency" in page


@pytest.mark.parametrize(
    ("active", "candidate", "told"),
    [(0.001, 0.05, "63"), (0.001, 0.005, "3,600"), (0.01, 0.02, "4,000")],
)
def test_the_requests_it_takes_follow_from_the_bets(
    page: str, active: float, candidate: float, told: str
) -> None:
    """The bar, and ten for the spread of the money, over what one request wins on average."""
    tolerated = 1.2 * active + 0.0005
    gain = candidate * log(candidate / tolerated) - candidate + tolerated
    requests = (log(2 / 0.01) + log(10)) / gain
    assert float(told.replace(",", "")) == pytest.approx(requests, rel=0.03)
    assert re.search(
        rf"^\| {active:.1%} \| {candidate:.1%} \| {told} \|$".replace(".0%", "%").replace(
            "%", " %"
        ),
        page,
        re.MULTILINE,
    )


def test_the_tables_have_every_case_of_every_suite(page: str) -> None:
    measured = page.partition("begin -->")[2]
    rows = dict(re.findall(r"^\| (.*?) \| (.*?) \|", measured, re.MULTILINE))
    for suite in SUITES.values():
        assert f"**{suite.title}**" in measured
        for case in suite.cases():
            assert case.name in rows, "run `make judge` and commit what it writes"
