"""What the supervisor and the workers use of the machine, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.control.fleet import WorkerState

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

# Places in /proc/PID/stat, counted behind the name in parentheses (proc(5): fields 14, 15, 24).
_UTIME, _STIME, _RSS = 11, 12, 21


def processes(workers: Sequence[WorkerState]) -> Iterator[tuple[str, int]]:
    """Return the names of this process and of the workers, with the pid of those that are up, or 0."""
    yield "supervisor", os.getpid()
    for worker in workers:
        yield f"worker-{worker.slot}", worker.pid if worker.up else 0


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 when it is gone."""
    fields = _stat(pid)
    return int(fields[_RSS]) * _PAGE if fields else 0


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far; 0 when it is gone."""
    fields = _stat(pid)
    return (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS if fields else 0.0


def _stat(pid: int) -> list[bytes]:
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return []
    # The name may hold spaces and parentheses: what counts begins behind the last one.
    return line.rpartition(b")")[2].split()


@dataclass(slots=True)
class _Account:
    pid: int = 0
    last_s: float = 0.0
    earlier_s: float = 0.0


class CpuLedger:
    """Adds up the CPU time of the processes that follow each other under one name.

    What a process used after the last look at it is lost, but the sum never falls.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def seconds(self, name: str, pid: int) -> float:
        """Return the sum under a name; `pid` is 0 while no process has it."""
        account = self._accounts.setdefault(name, _Account())
        if not pid:
            return account.earlier_s + account.last_s
        if account.pid != pid:
            account.earlier_s += account.last_s
            account.pid, account.last_s = pid, 0.0
        account.last_s = max(account.last_s, cpu_seconds(pid))
        return account.earlier_s + account.last_s
