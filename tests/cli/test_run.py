"""run: hands its configuration to the supervisor and returns the exit code it gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.cli.run import config_path

CONFIG = """\
listeners: [{{bind: "unix:{short}/front.sock"}}]
admin: {{bind: "unix:{short}/admin.sock"}}
workers: 1
state: state
access_log: {{path: "off"}}
services: {{}}
"""


def run(*argv: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "proxy.cli.main", *argv]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.fixture
def short() -> Iterator[str]:
    """A directory whose sockets fit into the 107 bytes a socket's path may have."""
    with tempfile.TemporaryDirectory(prefix="run-") as directory:
        yield directory


def test_the_configuration_is_the_argument_the_option_or_the_usual_one() -> None:
    assert config_path("a.yaml", None) == "a.yaml"
    assert config_path(None, "b.yaml") == "b.yaml"
    assert config_path(None, None) == "config/turnout.yaml"


def test_an_invalid_configuration_is_exit_2(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("servces: {}\n")
    with run("run", "bad.yaml") as process:
        out, err = process.communicate(timeout=90)
    assert process.returncode == 2
    assert "servces: unknown key" in out + err
    assert "Traceback" not in err


@pytest.mark.parametrize("argv", [["c.yaml"], ["--config", "c.yaml"]])
def test_the_proxy_runs_until_it_is_asked_to_end(
    tmp_path: Path, short: str, argv: list[str]
) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG.format(short=short))
    with run("run", *argv) as process:
        try:
            assert process.stderr is not None
            assert any('"event": "started"' in line for line in process.stderr)
            # The admin address is found by the same option as the configuration.
            with run("status", "--config", "c.yaml") as status:
                out, _ = status.communicate(timeout=90)
            assert status.returncode == 0
            assert "no services configured" in out
            process.send_signal(signal.SIGTERM)
            assert process.wait(90) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
