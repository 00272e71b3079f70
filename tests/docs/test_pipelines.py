"""The recipes: verbs and options that exist, exit codes that are the command's, a script that works."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from proxy.cli.exits import ExitCode
from proxy.cli.main import VerbGroup

Blocks = Callable[[str, str], list[str]]

STUB = """#!/bin/sh
echo "$*" >> calls
if [ "$1" = deploy ]; then
    [ -n "$HANGS" ] && exec sleep 60
    exit "$CODE"
fi
"""


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs/pipelines.md").read_text(encoding="utf-8")


def test_the_exit_codes_are_those_of_the_command(page: str) -> None:
    said = re.findall(r"^\| (\d+) \|", page, re.MULTILINE)
    assert [int(code) for code in said] == sorted(ExitCode)


def test_every_verb_and_option_of_the_recipes_exists(page: str) -> None:
    calls = re.findall(r"turnout ((?:[a-z]+ )+(?:[^\n|;`]|\n +--)*)", page)
    assert len(calls) > 10
    for call in calls:
        first, second = [*call.split(), ""][:2]
        command = VerbGroup().get_command(None, first)  # type: ignore[arg-type]
        assert command is not None, call
        if isinstance(command, click.Group):
            command = command.commands[second]
        known = {name for parameter in command.params for name in parameter.opts}
        assert set(re.findall(r"--[a-z][a-z-]+", call)) <= known, call


@pytest.fixture
def script(page: str, blocks: Blocks, tmp_path: Path) -> list[str]:
    """The shell's recipe beside a `turnout` that notes what it is asked."""
    (text,) = [block for block in blocks(page, "sh") if block.startswith("#!/bin/sh")]
    for name, content in (("deploy.sh", text), ("turnout", STUB)):
        (tmp_path / name).write_text(content, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    return ["./deploy.sh", "v43", "10.0.0.3:8000"]


def environment(directory: Path, **more: str) -> dict[str, str]:
    return {"PATH": f"{directory}:{os.environ['PATH']}", "HANGS": "", **more}


@pytest.mark.parametrize("code", [0, 1, 3, 4, 5, 6])
def test_the_script_ends_as_the_deploy_did(tmp_path: Path, script: list[str], code: int) -> None:
    environ = environment(tmp_path, CODE=str(code))
    done = subprocess.run(script, cwd=tmp_path, env=environ, timeout=60, check=False)
    assert done.returncode == code
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert calls[0] == "deploy shop --endpoints 10.0.0.3:8000 --release v43 --timeout 45m"
    assert any(call.startswith("rollout abort shop") for call in calls) == (code == 5)


def test_the_script_turns_back_when_it_is_cancelled(tmp_path: Path, script: list[str]) -> None:
    environ = environment(tmp_path, HANGS="yes")
    calls = tmp_path / "calls"
    with subprocess.Popen(script, cwd=tmp_path, env=environ, start_new_session=True) as process:
        until = time.monotonic() + 30
        while not calls.exists() and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
    assert calls.read_text(encoding="utf-8").splitlines()[-1].startswith("rollout abort shop")
    until = time.monotonic() + 30
    while is_left(process.pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_left(process.pid), "the deploy that was waited for goes on waiting"


def is_left(group: int) -> bool:
    """Whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
