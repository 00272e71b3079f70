"""`make fuzz`: every target in a process of its own, and a finding that nobody can overlook."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fuzz import engine, run


def test_a_run_without_atheris_tells_what_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--engine", "own", "--seconds", "1", "--seed", "3", "--jobs", "1"]
    arguments += ["--target", "authorities", "--kept", str(tmp_path)]
    assert run.main(arguments) == 0
    told = capsys.readouterr().out
    assert "the seeded mutator, seed 3, 1 s for each of 1 targets" in told
    assert "authorities " in told
    assert "shapes: " in told
    (executions,) = re.findall(r"^(\d+) executions in sum$", told, re.MULTILINE)
    assert int(executions) > 100


def test_a_finding_is_kept_and_is_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(data: bytes) -> None:
        assert b"?" not in data, "a question"

    monkeypatch.setattr(engine.load("authorities"), "run", fail)
    (tmp_path / "findings").mkdir()
    arguments = ["--engine", "own", "--seconds", "5", "--target", "authorities", "--child"]
    assert run.main([*arguments, "--kept", str(tmp_path)]) == 1
    assert (tmp_path / "findings" / "authorities.bin").read_bytes() == b"?"
    assert "a question" in capsys.readouterr().out


def test_no_target_may_be_named_that_is_none() -> None:
    with pytest.raises(SystemExit):
        run.main(["--target", "nothing"])
