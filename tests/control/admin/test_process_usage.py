from __future__ import annotations

import os
import subprocess
import sys

from proxy.control.admin.process_usage import CpuLedger, cpu_seconds, processes, resident_bytes
from proxy.control.fleet import WorkerState

GONE = 2**22 + 1  # above the largest pid there can be


def test_this_process_uses_memory_and_time() -> None:
    assert resident_bytes(os.getpid()) > 1_000_000
    assert 0 < cpu_seconds(os.getpid()) < 10_000


def test_a_process_that_is_gone_uses_nothing() -> None:
    assert resident_bytes(GONE) == 0
    assert cpu_seconds(GONE) == 0


def test_the_supervisor_and_the_workers_are_named_with_the_pids_of_those_that_are_up() -> None:
    def worker(slot: int, *, up: bool) -> WorkerState:
        return WorkerState(slot=slot, pid=slot + 7, revision=1, up=up, started_at=0, restarts=0)

    named = list(processes([worker(0, up=True), worker(1, up=False)]))
    assert named == [("supervisor", os.getpid()), ("worker-0", 7), ("worker-1", 0)]


def test_the_time_of_a_slot_never_falls_when_its_process_is_replaced() -> None:
    ledger = CpuLedger()
    before = ledger.seconds("worker-0", os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as fresh:
        after = ledger.seconds("worker-0", fresh.pid)
        assert cpu_seconds(fresh.pid) < before
        assert after >= before > 0
    assert ledger.seconds("worker-0", GONE) >= after


def test_the_time_of_a_slot_stays_while_it_has_no_process() -> None:
    ledger = CpuLedger()
    before = ledger.seconds("worker-0", os.getpid())
    assert ledger.seconds("worker-0", 0) == before > 0
    assert before <= ledger.seconds("worker-0", os.getpid()) < 2 * before, "counted once"
    assert ledger.seconds("worker-1", 0) == 0
