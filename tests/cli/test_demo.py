"""The demo itself: real services, a real proxy, a real load."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.cli.demo import NEXT, next_lines, program
from proxy.cli.main import VERBS

COMMAND = [sys.executable, "-u", "-m", "proxy.cli.main", "demo", "--seconds", "45"]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Path]:
    """A directory for temporary files that must be as empty afterwards as before."""
    yield tmp_path
    assert list(tmp_path.glob("turnout-demo-*")) == []


def environment(directory: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(directory)}


def of_this_demo(directory: Path) -> list[str]:
    """Command lines of processes that name the demo's directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(directory) in line:
            found.append(line)
    return found


@pytest.mark.timeout(330)
def test_the_demo_keeps_its_promises_and_leaves_nothing(stage: Path) -> None:
    done = subprocess.run(
        COMMAND,
        env=environment(stage),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failures that nobody made on purpose: 0\n" in done.stdout
    assert "NOT AS PROMISED" not in done.stdout
    for promise in (
        r"ok: v42 was rolled out in \d+s: 0 of [\d ]+ requests failed",
        r"ok: v43 was turned back \d\.\d s after its first request: \d+ bad answers",
        r"ok: 0 requests reached v43 after that; it is locked out",
        r"ok: an outage of 4 s under both releases .*: held for \d+ s, not turned back",
        r"ok: v44 went on by itself when it was over, and has everything",
    ):
        assert len(re.findall(rf"^{promise}", done.stdout, re.MULTILINE)) == 2, promise
    for act in ("v41 alone", "v42, a good release", "v43, a bad release", "v44, a shared outage"):
        assert f"\n{act} " in done.stdout
    assert re.findall(r"^  exit code (\d)$", done.stdout, re.MULTILINE) == ["0", "4", "1", "0"]
    assert "What to try next" in done.stdout
    assert "\x1b[" not in done.stdout
    assert of_this_demo(stage) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_in_order(stage: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        COMMAND, env=environment(stage), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("$ turnout deploy"):
                break
        process.send_signal(number)
        process.stdout.read()
        assert process.wait(60) == 128 + number
    assert of_this_demo(stage) == []


def test_what_to_try_next_are_verbs_that_exist_and_can_be_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert {command.split()[0] for command in NEXT} <= set(VERBS)
    assert next_lines("turnout")[-1].startswith("  turnout rollback shop  ")
    monkeypatch.setattr(sys, "argv", [".venv/bin/turnout", "demo"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == ".venv/bin/turnout"
    monkeypatch.setattr(sys, "argv", ["-m", "demo"])
    assert program() == "turnout"
