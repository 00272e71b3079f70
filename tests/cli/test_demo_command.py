"""A verb of the demo is a real process, whose lines are told as they come."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from proxy.cli import demo_command
from proxy.cli.address import AdminAddress
from proxy.cli.client import AdminClient
from proxy.cli.demo_stage import Stage
from proxy.cli.exits import CommandError, ExitCode


def stage(*command: str) -> Stage:
    client = AdminClient(AdminAddress("http", "127.0.0.1", 9), None)
    return Stage("127.0.0.1", 8, client, command, {})


async def test_a_verb_reaches_the_proxy_of_the_stage_and_its_exit_code_comes_back() -> None:
    lines: list[str] = []
    turnout = stage(sys.executable, "-m", "proxy.cli.main")
    code = await demo_command.run(turnout, ["status"], lines.append)
    assert code == ExitCode.UNREACHABLE
    assert "http://127.0.0.1:9" in lines[0]


async def test_lines_are_told_as_they_come() -> None:
    lines: list[str] = []
    program = "import sys; print('one', flush=True); print('two', file=sys.stderr); input()"
    code = await demo_command.run(stage(sys.executable, "-c", program), [], lines.append)
    assert lines[:2] == ["one", "two"]
    assert code == 1  # nothing to read there


async def test_a_verb_that_does_not_end_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo_command, "LONGEST_S", 0.5)
    program = f"import time; open({str(tmp_path / 'is-there')!r}, 'w').close(); time.sleep(60)"
    with pytest.raises(CommandError, match=r"did not end within 0\.5 s") as caught:
        async with asyncio.timeout(20):
            await demo_command.run(stage(sys.executable, "-c", program), ["deploy"], print)
    assert caught.value.code == ExitCode.TIMED_OUT
