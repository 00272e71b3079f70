"""The picture of a rollout says what the table says, and the page has it as it is now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy.control.rollout import diagram
from proxy.control.rollout.machine import TABLE, Kind, Phase

DUE = "run `make docs` and commit what it writes"


def test_the_page_has_it_as_it_is_now() -> None:
    page = (diagram.ROOT / diagram.PAGE).read_text(encoding="utf-8")
    assert diagram.fresh(page) == page, DUE


def test_every_way_between_phases_is_in_the_picture() -> None:
    drawn = set(re.findall(r"^    (\w+) --> (\w+):", diagram.picture(), re.MULTILINE))
    for (phase, kind), (_, targets) in TABLE.items():
        if kind in diagram.LEFT_OUT:
            continue
        for target in targets:
            assert target is phase or (phase.value, target.value) in drawn, (phase, kind, target)


def test_every_move_of_a_tick_has_words() -> None:
    for before, after in diagram.targets_of_ticks():
        assert diagram.TICKS[before].get(after), (before, after)


def test_no_words_of_a_move_have_a_colon_which_the_picture_could_not_show() -> None:
    for line in diagram.picture().splitlines():
        assert line.count(":") <= 1, line


@pytest.mark.parametrize("kind", diagram.VERBS)
def test_the_verbs_are_said_where_they_make_sense(kind: Kind) -> None:
    (row,) = (each for each in diagram.verbs().splitlines() if diagram.VERBS[kind] in each)
    phases = [phase for phase in Phase if phase is not Phase.STEADY]
    said = [cell.strip() == "yes" for cell in row.split("|")[2:-1]]
    assert said == [(phase, kind) in TABLE for phase in phases]


def test_it_is_written_into_a_page_once_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    page = tmp_path / diagram.PAGE
    marks = [
        diagram.MARK.format(f"{name} {edge}")
        for name in ("picture", "verbs")
        for edge in ("begins", "ends")
    ]
    page.write_text("before\n" + "\n".join(marks) + "\nafter\n")
    diagram.write(tmp_path)
    first = page.read_text()
    diagram.write(tmp_path)
    assert page.read_text() == first
    assert first.startswith("before\n")
    assert first.endswith("\nafter\n")
    assert diagram.picture() in first
    assert diagram.verbs() in first
