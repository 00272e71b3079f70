"""The supervisor as systemd and an operator see it: exit codes, signals, notifications."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port


class Proxy:
    """A `turnout run` with a notify socket, and what it says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.admin = free_port(), free_port()
        self.endpoint = socket.create_server(("127.0.0.1", 0))
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.systemd.settimeout(60)
        self.systemd.bind(str(folder / "notify"))
        self.config: dict[str, Any] = {
            "listeners": [{"bind": f"127.0.0.1:{self.port}"}],
            "admin": {"bind": f"127.0.0.1:{self.admin}"},
            "workers": 1,
            "state": str(folder / "state"),
            "shutdown_timeout": "20s",
            "access_log": {"path": "off"},
            "services": {
                "shop": {
                    "routes": [{"path": "/"}],
                    "pools": {
                        "blue": {"endpoints": [f"127.0.0.1:{self.endpoint.getsockname()[1]}"]}
                    },
                    "active": "blue",
                }
            },
        }
        self.popen: subprocess.Popen[bytes] | None = None

    def start(self, text: str | None = None, **env: str) -> subprocess.Popen[bytes]:
        path = self.folder / "turnout.yaml"
        path.write_text(text if text is not None else json.dumps(self.config))
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "proxy.cli.main", "run", str(path)],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify"), **env},
            start_new_session=True,
        )
        return self.popen

    def told(self) -> bytes:
        return self.systemd.recv(100)

    def ask(self) -> socket.socket:
        """Send a request that its endpoint has, and does not answer."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return client

    def accept(self) -> socket.socket:
        self.endpoint.settimeout(30)
        peer, _ = self.endpoint.accept()
        got = b""
        while b"\r\n\r\n" not in got:
            got += peer.recv(65536)
        return peer

    def end(self) -> None:
        if self.popen is not None:
            if self.popen.poll() is None:
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.communicate(timeout=30)
        self.endpoint.close()
        self.systemd.close()


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    made = Proxy(tmp_path)
    yield made
    made.end()


def test_it_says_when_it_is_ready_and_when_it_stops_and_exits_0(proxy: Proxy) -> None:
    popen = proxy.start()
    assert proxy.told() == b"READY=1"
    popen.send_signal(signal.SIGTERM)
    assert proxy.told() == b"STOPPING=1"
    _, errors = popen.communicate(timeout=60)
    assert popen.returncode == 0
    events = [json.loads(line)["event"] for line in errors.splitlines()]
    assert events[-3:] == ["started", "stopping", "stopped"]


@pytest.mark.parametrize("blocked", [False, True])
def test_a_stop_waits_for_what_is_in_flight(
    proxy: Proxy,
    blocked: bool,  # noqa: FBT001
) -> None:
    """The same with and without uvloop."""
    env = {}
    if blocked:
        (proxy.folder / "none").mkdir()
        (proxy.folder / "none" / "uvloop.py").write_text("raise ImportError")
        env = {"PYTHONPATH": str(proxy.folder / "none")}
    popen = proxy.start(**env)
    assert proxy.told() == b"READY=1"
    with proxy.ask() as client, proxy.accept() as peer:
        popen.send_signal(signal.SIGINT)
        assert proxy.told() == b"STOPPING=1"
        time.sleep(0.3)
        assert popen.poll() is None
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        answer = b""
        while data := client.recv(65536):
            answer += data
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"ok")
    assert popen.wait(60) == 0


def test_a_second_signal_ends_it_now(proxy: Proxy) -> None:
    popen = proxy.start()
    assert proxy.told() == b"READY=1"
    with proxy.ask() as client, proxy.accept():
        popen.send_signal(signal.SIGTERM)
        assert proxy.told() == b"STOPPING=1"
        began = time.monotonic()
        popen.send_signal(signal.SIGTERM)
        assert popen.wait(30) == 0
        assert time.monotonic() - began < 15, "not the twenty seconds that it would wait"
        assert client.recv(100) == b""


def test_a_hangup_reads_the_file_again(proxy: Proxy) -> None:
    popen = proxy.start()
    assert proxy.told() == b"READY=1"
    popen.send_signal(signal.SIGHUP)
    with proxy.ask(), proxy.accept():
        assert popen.poll() is None
    popen.send_signal(signal.SIGTERM)
    assert popen.wait(60) == 0


@pytest.mark.parametrize("which", ["listener", "admin"])
def test_a_port_in_use_is_told_in_a_sentence_and_exits_1(proxy: Proxy, which: str) -> None:
    port = proxy.port if which == "listener" else proxy.admin
    with socket.create_server(("127.0.0.1", port)):
        popen = proxy.start()
        _, errors = popen.communicate(timeout=60)
    assert popen.returncode == 1
    assert str(port).encode() in errors
    assert b"in use" in errors
    assert b"Traceback" not in errors


def test_a_second_proxy_on_the_same_state_is_refused_and_the_first_goes_on(
    proxy: Proxy, tmp_path: Path
) -> None:
    proxy.start()
    assert proxy.told() == b"READY=1"
    second = dict(proxy.config)
    second["listeners"] = [{"bind": f"127.0.0.1:{free_port()}"}]
    second["admin"] = {"bind": f"127.0.0.1:{free_port()}"}
    path = tmp_path / "second.yaml"
    path.write_text(json.dumps(second))
    run = [sys.executable, "-m", "proxy.cli.main", "run", str(path)]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert f"the state directory {proxy.config['state']} belongs to another" in ended.stderr
    assert proxy.popen
    assert proxy.popen.poll() is None


def test_a_configuration_that_is_wrong_exits_2_with_file_line_and_column(proxy: Proxy) -> None:
    popen = proxy.start("listeners: []\nservicess: {}\n")
    _, errors = popen.communicate(timeout=60)
    assert popen.returncode == 2
    assert b"turnout.yaml:2:1: servicess" in errors
    assert b"Traceback" not in errors


def test_workers_go_when_their_supervisor_is_killed(proxy: Proxy) -> None:
    popen = proxy.start()
    assert proxy.told() == b"READY=1"
    popen.kill()
    popen.wait(20)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", proxy.port)):
                return
        time.sleep(0.05)
    raise AssertionError("an orphaned worker still accepts")
