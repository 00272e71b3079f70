"""check and schema: without a running proxy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Turnout = Callable[..., Any]

GOOD = """\
listeners: [{bind: "127.0.0.1:8080"}]
admin: {bind: "127.0.0.1:9900"}
services: {}
"""
BAD = GOOD.replace("services:", "servces:").replace("8080", "808080")


@pytest.fixture
def good(tmp_path: Path) -> str:
    (tmp_path / "good.yaml").write_text(GOOD)
    return "good.yaml"


@pytest.fixture
def bad(tmp_path: Path) -> str:
    (tmp_path / "bad.yaml").write_text(BAD)
    return "bad.yaml"


def test_a_valid_file_is_ok(turnout: Turnout, good: str) -> None:
    ran = turnout("check", good)
    assert (ran.code, ran.out, ran.err) == (0, "ok\n", "")


def test_every_error_is_a_line_with_its_place_and_the_exit_code_is_2(
    turnout: Turnout, bad: str
) -> None:
    ran = turnout("check", "--config", bad)
    assert ran.code == 2
    lines = ran.out.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("bad.yaml:") for line in lines)
    assert any("bad.yaml:3:1: servces: unknown key" in line for line in lines)


def test_the_usual_file_is_checked_when_none_is_named(turnout: Turnout, tmp_path: Path) -> None:
    assert turnout("check").code == 2  # there is none
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "turnout.yaml").write_text(GOOD)
    assert turnout("check").code == 0


def test_a_missing_file_is_an_error_with_its_name(turnout: Turnout) -> None:
    ran = turnout("check", "nowhere.yaml")
    assert ran.code == 2
    assert "nowhere.yaml" in ran.out


def test_json_says_the_same(turnout: Turnout, good: str, bad: str) -> None:
    assert json.loads(turnout("check", good, "--output", "json").out) == {"ok": True, "errors": []}
    said = json.loads(turnout("check", bad, "--output", "json").out)
    assert said["ok"] is False
    assert said["errors"] == turnout("check", bad).out.splitlines()


@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_configuration_named_twice_is_a_usage_error(
    turnout: Turnout, good: str, verb: str
) -> None:
    ran = turnout(verb, good, "--config", good)
    assert ran.code == 2
    assert "once" in ran.err


def test_the_schema_is_json(turnout: Turnout) -> None:
    ran = turnout("schema")
    assert ran.code == 0
    assert json.loads(ran.out)["$schema"].startswith("https://json-schema.org/")
