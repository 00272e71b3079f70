"""The loop: uvloop where it is, and everything works without it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from proxy.process import loop as module
from proxy.process.loop import run

ASK = "import asyncio; from proxy.process.loop import run\nasync def main():\n    return type(asyncio.get_running_loop()).__module__\nprint(run(main()))"


async def _running() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_uvloop_is_used_where_it_is_installed() -> None:
    assert run(_running()) == uvloop.Loop.__module__


def test_the_standard_loop_is_used_where_uvloop_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "uvloop", None)
    assert run(_running()).startswith("asyncio.")


def test_an_installation_without_uvloop_starts(tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, check=True, env=env)
    assert done.stdout.startswith(b"asyncio.")
