"""An endpoint as the one who torments it sees it: a process that is started, frozen, killed, told."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos.fault_proxy import PASS, Fault

APPLICATION = Path(__file__).parent / "application.py"
ANSWER_S = 20.0


class Endpoint:
    """One application behind its fault proxy, always at the same address."""

    def __init__(self, name: str, pool: str, host: str, port: int, orders: Path) -> None:
        self.name = name
        self.pool = pool
        self.address = f"{host}:{port}"
        argv = [sys.executable, str(APPLICATION), name, pool, host, str(port), str(orders)]
        self._argv = argv
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self._process is None, "an endpoint is started once it has ended"
        self._process = subprocess.Popen(
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._expect(b"listening\n")

    def turn_to(self, fault: Fault) -> None:
        """Have the fault proxy do this from now on; it does when this returns."""
        process = self._running()
        assert process.stdin is not None
        process.stdin.write(json.dumps(fault.as_dict()).encode() + b"\n")
        self._expect(b"done\n")

    def behave(self) -> None:
        self.turn_to(PASS)

    def terminate(self) -> None:
        """Ask it to stop: what is in flight is answered."""
        self._running().send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._running().send_signal(signal.SIGKILL)

    def freeze(self) -> None:
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def start_again(self) -> None:
        """Start it after `terminate` or `kill`, once the old process has gone."""
        self._reap()
        self.start()

    def end(self) -> None:
        """End it whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it has been started"
        return self._process

    def _reap(self) -> None:
        process, self._process = self._running(), None
        try:
            process.wait(ANSWER_S)
        finally:
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()

    def _expect(self, line: bytes) -> None:
        """Read one line of its output, within a bound."""
        output = self._running().stdout
        assert output is not None
        until, got = time.monotonic() + ANSWER_S, b""
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while not got.endswith(b"\n") and selector.select(max(0.0, until - time.monotonic())):
                if not (piece := os.read(output.fileno(), 1024)):
                    break
                got += piece
        assert got == line, f"{self.name} says {got!r}"


class Endpoints:
    """The endpoints of a test, on a loopback address that nobody else uses.

    Their ports stay theirs while they are down, which on 127.0.0.1 nobody could promise:
    other tests draw ports there.
    """

    def __init__(self, port: int, **pools: int) -> None:
        number = os.getpid()
        host = f"127.{1 + (number >> 8) % 250}.{number % 256}"
        self._directory = tempfile.TemporaryDirectory(prefix="chaos-")
        self._orders = Path(self._directory.name) / "orders"
        names = [(pool, index) for pool, count in pools.items() for index in range(1, count + 1)]
        self.all = [
            Endpoint(f"{pool}-{index}", pool, f"{host}.{last}", port, self._orders)
            for last, (pool, index) in enumerate(names, 1)
        ]

    def of(self, pool: str) -> list[Endpoint]:
        return [one for one in self.all if one.pool == pool]

    def addresses(self, pool: str) -> list[str]:
        return [one.address for one in self.of(pool)]

    def start(self) -> None:
        for one in self.all:
            one.start()

    def orders(self) -> Counter[str]:
        """How often each POST has arrived at an endpoint, by its id."""
        if not self._orders.exists():
            return Counter()
        return Counter(self._orders.read_text(encoding="utf-8").split())

    def end(self) -> None:
        for one in self.all:
            one.end()
        self._directory.cleanup()
