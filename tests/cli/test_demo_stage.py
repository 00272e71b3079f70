"""The demo's processes start together and go together."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import demo_stage
from proxy.cli.demo_stage import Child, Stage, stage_in
from proxy.cli.exits import CommandError, ExitCode
from proxy.control.config.load import load_file

Spawn = Callable[[str, Sequence[str], Path], Awaitable[Child]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    children: list[Child] = []
    spawn: Spawn = demo_stage._spawn

    async def recorded(*args: Any) -> Child:
        children.append(await spawn(*args))
        return children[-1]

    monkeypatch.setattr(demo_stage, "_spawn", recorded)
    return children


def program(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def test_a_proxy_that_does_not_start_is_told_with_its_last_lines(
    tmp_path: Path, started: list[Child]
) -> None:
    broken = program("import sys; print('no such thing', file=sys.stderr); sys.exit(3)")
    with pytest.raises(CommandError) as caught:
        async with stage_in(tmp_path, broken):
            pass
    assert caught.value.code == ExitCode.REFUSED
    assert "turnout run ended with exit code 3" in caught.value.sentence
    assert caught.value.details == ("no such thing",)
    assert [child.is_alive for child in started] == [False] * 5


async def test_a_proxy_that_never_gets_ready_is_given_up(
    tmp_path: Path, started: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_stage, "START_S", 1.5)
    with pytest.raises(CommandError, match=r"was not ready within 1\.5 s \(Turnout does not"):
        async with stage_in(tmp_path, program("import time; time.sleep(60)")):
            pass
    assert not any(child.is_alive for child in started)


async def test_the_configuration_of_the_demo_is_valid(tmp_path: Path) -> None:
    with pytest.raises(CommandError):
        async with stage_in(tmp_path, program("")):
            pass
    shop = load_file(str(tmp_path / "turnout.yaml"), {}).config.services["shop"]
    assert shop.pools["blue"].release == demo_stage.FIRST
    assert not shop.pools["green"].endpoints


async def test_what_will_not_end_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_stage, "STOP_S", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    child = await demo_stage._spawn(
        "service deaf",
        program(
            f"{deaf} import subprocess, sys;"
            f"below = subprocess.Popen([sys.executable, '-c', '{deaf} print(1, flush=True); time.sleep(60)']);"
            "print(below.pid, flush=True); time.sleep(60)"
        ),
        tmp_path,
    )
    assert child.process.stdout is not None
    first, second = [int(await child.process.stdout.readline()) for _ in range(2)]
    below = max(first, second)  # the other line is a 1: it has its handler
    await child.stop()
    assert not child.is_alive
    deadline = time.monotonic() + 30
    while _lives(below):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z" and os.getpgid(pid) != 0


async def test_a_proxy_that_dies_during_the_story_is_told_with_its_last_lines(
    tmp_path: Path, started: list[Child]
) -> None:
    async def die_on(stage: Stage) -> None:
        started[-1].process.kill()
        await started[-1].process.wait()
        stage.client.get("/v1/status")

    with pytest.raises(CommandError, match="turnout run ended with exit code -9") as caught:
        async with stage_in(tmp_path) as stage:
            await die_on(stage)
    assert any('"event": "started"' in line for line in caught.value.details)
    assert not any(child.is_alive for child in started)
