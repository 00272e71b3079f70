"""Processes of a benchmark: started on one core in their own session, measured from /proc, ended by id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def cores() -> tuple[set[int], set[int]]:
    """The proxy's core and everybody else's; the same one where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return {usable[0]}, {usable[-1]}


class Process:
    """A program and all it starts: one session of its own, pinned to some cores."""

    def __init__(self, argv: list[str], *, on: set[int], env: dict[str, str] | None = None) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed in end()
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, on)  # the child inherits it, its children too
        try:
            self._popen = subprocess.Popen(
                argv,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env={**os.environ, **(env or {})},
            )
        finally:
            os.sched_setaffinity(0, before)

    def pids(self) -> list[int]:
        """Every living process of it: its children and theirs, its session where they lost them."""
        stats = {int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").glob("[0-9]*")}
        own = {pid for pid, fields in stats.items() if fields and int(fields[3]) == self._popen.pid}
        own.add(self._popen.pid)
        while more := {p for p, f in stats.items() if f and int(f[1]) in own and p not in own}:
            own |= more
        return [pid for pid in own if stats.get(pid)]

    def cpu_s(self) -> float:
        """User and system seconds of all its processes so far."""
        spent = (_stat(pid) for pid in self.pids())
        return sum((int(fields[11]) + int(fields[12])) * TICK_S for fields in spent if fields)

    def memory_kib(self) -> int:
        """Memory of all its processes; a page that several share counts once."""
        return sum(_memory_kib(pid) for pid in self.pids())

    def wait_for_port(self, port: int, timeout_s: float = 15.0) -> None:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if self._popen.poll() is not None:
                raise RuntimeError(self.log())
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise TimeoutError(f"nothing listens on port {port} after {timeout_s:g} s")

    def end(self) -> None:
        """SIGTERM, and SIGKILL to what is left of its session after five seconds."""
        own = set(self.pids())
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(5)
            except subprocess.TimeoutExpired:
                self._popen.kill()
        for pid in own.intersection(self.pids()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._popen.wait(5)
        self._log.close()

    def log(self) -> str:
        """What it has said so far, on both outputs."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat behind the name (the state is 0), none when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def _memory_kib(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)
