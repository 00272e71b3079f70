"""Real workers: they confirm, die, are replaced, get stuck, and their counts stay."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from proxy import stats
from proxy.control.guard import counts
from proxy.model import Listener
from proxy.process import heartbeat
from proxy.process import workforce as module
from tests.ports import free_port

Until = Callable[..., Awaitable[None]]
Crew = Any  # tests.process.conftest.Crew


async def test_a_change_returns_when_every_worker_serves_it(crew: Crew) -> None:
    await crew.start()
    for _ in range(5):
        await crew.force.apply(crew.snapshot())
        workers = crew.force.workers()
        assert [worker.revision for worker in workers] == [crew.revision] * 2
        assert all(worker.up for worker in workers)
        assert (await crew.get()).startswith(b"HTTP/1.1 200")
    assert len({worker.pid for worker in workers}) == 2
    assert crew.force.totals.each(stats.W_REVISION).keys() == set(crew.force.totals.slots())


async def test_a_killed_worker_is_replaced_and_its_counts_stay(crew: Crew, until: Until) -> None:
    await crew.start()
    for _ in range(40):
        await crew.get()
    await until(lambda: crew.answered() == 40, "all are counted")
    readings = [crew.answered()]
    for victim in crew.note():
        os.kill(victim, signal.SIGKILL)

        def is_replaced(victim: int = victim) -> bool:
            readings.append(crew.answered())
            return victim not in crew.note() and crew.up() == 2

        await until(is_replaced, "the worker is replaced")
    assert readings == sorted(readings), "a sum fell"
    assert crew.answered() == 40
    assert [worker.restarts for worker in crew.force.workers()] == [1, 1]
    for _ in range(10):
        assert (await crew.get()).startswith(b"HTTP/1.1 200")
    await until(lambda: crew.answered() == 50, "the new ones count on")


async def test_what_the_judge_counts_is_not_lost_with_a_worker_that_dies_under_load(
    crew: Crew, until: Until
) -> None:
    """An answer is written and counted in one stretch: at most the one that a kill hits is missed."""
    await crew.start()
    slot = crew.slots.slot("pool", stats.POOL_WORDS)
    answered = lost = 0
    is_over = False

    async def client() -> None:
        nonlocal answered, lost
        while not is_over:
            try:
                whole = (await crew.get()).endswith(b"ok")
            except OSError:
                whole = False
            answered += whole
            lost += not whole

    def judged() -> list[int]:
        return counts.read(crew.force.totals, slot)

    async with asyncio.TaskGroup() as clients:
        for _ in range(8):
            clients.create_task(client())
        readings = [judged()]
        for _ in range(4):
            wanted = answered + 50
            await until(lambda wanted=wanted: answered > wanted, "it goes on")
            victim = crew.note()[0]
            os.kill(victim, signal.SIGKILL)

            def is_replaced(victim: int = victim) -> bool:
                readings.append(judged())
                return victim not in crew.note() and crew.up() == 2

            await until(is_replaced, "the worker is replaced")
        is_over = True
    readings.append(judged())
    for before, after in pairwise(readings):
        assert all(old <= new for old, new in zip(before, after, strict=True)), "a sum fell"
    seen = counts.between([0] * stats.JUDGED_WORDS, judged())
    assert answered > 200
    assert answered - 4 <= seen.requests <= answered + lost
    assert seen.errors == 0
    assert abs(sum(seen.latencies or ()) - seen.requests) <= 4
    calm = seen.requests
    for _ in range(20):
        await crew.get()
    await until(lambda: sum(judged()[: stats.JUDGE_BUCKETS]) == calm + 20, "each one is counted")


async def test_gauges_die_with_their_worker(crew: Crew, until: Until) -> None:
    await crew.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", crew.port)
    writer.write(b"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n")
    gauge = crew.slots.slot("pool", 0) + stats.P_IN_FLIGHT
    await until(lambda: crew.force.totals.gauge(gauge) == 1, "it is in flight")
    (item,) = await crew.force.in_flight("shop", None, 10)
    assert (item.pool, item.endpoint, item.kind) == ("blue", crew.endpoint, "request")
    assert item.route == "GET /silent"
    for pid in crew.note():
        os.kill(pid, signal.SIGKILL)
    await until(lambda: crew.force.totals.gauge(gauge) == 0, "it is not in flight any more")
    assert await reader.read() == b""
    writer.close()
    await until(lambda: crew.up() == 2, "the workers are back")
    assert await crew.force.in_flight("shop", "blue", 10) == []


async def test_the_last_failures_of_all_workers_are_asked_for(crew: Crew) -> None:
    await crew.start()
    assert await crew.force.samples("shop", "blue", 10) == []
    for _ in range(12):
        assert (await crew.get("/broken")).startswith(b"HTTP/1.1 502")
    found = await crew.force.samples("shop", "blue", 10)
    assert 8 <= len(found) <= 10, "each worker keeps its last eight"
    assert {(each.endpoint, each.status, each.failure) for each in found} == {
        (crew.endpoint, None, "reset")
    }
    assert len({each.request_id for each in found}) == len(found)
    moments = [each.at for each in found]
    assert moments == sorted(moments, reverse=True)
    newest = await crew.force.samples("shop", "blue", 3)
    assert [each.request_id for each in newest] == [each.request_id for each in found[:3]]
    assert await crew.force.samples("shop", "green", 10) == []


async def test_a_stuck_worker_does_not_hold_a_change_for_ever(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    await crew.start()
    monkeypatch.setattr(module, "APPLY_S", 1.0)
    monkeypatch.setattr(module, "ASK_S", 0.2)
    stuck, healthy = crew.note()
    os.kill(stuck, signal.SIGSTOP)
    assert await crew.force.in_flight("shop", None, 10) == [], "questions are bounded too"
    assert await crew.force.samples("shop", "blue", 10) == []
    began = time.monotonic()
    await crew.force.apply(crew.snapshot())
    assert time.monotonic() - began > 0.9
    await until(lambda: stuck not in crew.note() and crew.up() == 2, "it is replaced")
    assert healthy in crew.note()
    assert [worker.revision for worker in crew.force.workers()] == [crew.revision] * 2
    for _ in range(10):
        assert (await crew.get()).startswith(b"HTTP/1.1 200")


async def test_a_worker_that_is_slow_to_start_is_waited_for(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed for that it would only be started again, on a machine that is no less busy."""
    monkeypatch.setattr(module, "APPLY_S", 0.2)
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep 1\nexec {sys.executable} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    await crew.start()
    assert [worker.restarts for worker in crew.force.workers()] == [0, 0]
    assert crew.up() == 2


async def test_a_worker_that_never_gets_ready_is_replaced_in_the_end(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "APPLY_S", 0.2)
    monkeypatch.setattr(module, "START_S", 0.5)
    deaf = tmp_path / "python"
    deaf.write_text("#!/bin/sh\nexec sleep 600\n")
    deaf.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(deaf))
    with pytest.raises(RuntimeError, match="no worker is up"):
        await crew.start()
    assert all(worker.restarts for worker in crew.force.workers())


async def test_a_frozen_worker_is_replaced_without_a_change(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(heartbeat, "LOOK_EVERY_S", 0.3)
    await crew.start()
    frozen, healthy = crew.note()
    os.kill(frozen, signal.SIGSTOP)
    await until(lambda: frozen not in crew.note() and crew.up() == 2, "it is replaced", 60)
    assert healthy in crew.note()
    assert [worker.restarts for worker in crew.force.workers()] == [1, 0]
    for _ in range(10):
        assert (await crew.get()).startswith(b"HTTP/1.1 200")


async def test_warming_has_every_worker_open_a_connection(crew: Crew, until: Until) -> None:
    await crew.start()
    await crew.force.warm("shop", "blue")
    open_now = crew.slots.slot("endpoint", 0) + stats.E_OPEN
    await until(lambda: crew.force.totals.gauge(open_now) == 2, "each has one")
    await crew.force.warm("shop", "no such pool")


async def test_warming_does_not_wait_for_a_frozen_worker(crew: Crew) -> None:
    await crew.start()
    os.kill(crew.note()[0], signal.SIGSTOP)
    began = time.monotonic()
    await crew.force.warm("shop", "blue")
    assert time.monotonic() - began < 8


async def test_sockets_of_a_change_that_was_given_up_are_closed(crew: Crew) -> None:
    await crew.start()
    before = crew.snapshot()
    port = free_port()
    more = replace(before, listeners=(*before.listeners, Listener(bind=f"127.0.0.1:{port}")))
    assert crew.force.check_binds(more) == []
    socket.create_connection(("127.0.0.1", port)).close()
    crew.force.keep_binds(before)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert (await crew.get()).startswith(b"HTTP/1.1 200")


async def test_workers_that_all_die_during_a_change_come_back_with_it(
    crew: Crew, until: Until
) -> None:
    await crew.start()
    for pid in crew.note():
        os.kill(pid, signal.SIGKILL)
    await crew.force.apply(crew.snapshot())
    await until(lambda: crew.up() == 2, "both are back")
    assert [worker.revision for worker in crew.force.workers()] == [crew.revision] * 2


async def test_a_worker_that_keeps_dying_is_started_less_and_less_often(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    starts: list[float] = []
    start_worker = crew.force._start_worker

    async def broken(slot: int) -> None:
        starts.append(time.monotonic())
        monkeypatch.setattr(sys, "executable", "/bin/false")
        await start_worker(slot)

    await crew.start()
    monkeypatch.setattr(crew.force, "_start_worker", broken)
    executable = sys.executable
    victim, other = crew.note()
    os.kill(victim, signal.SIGKILL)
    await until(lambda: len(starts) >= 5, "it was tried five times")
    pauses = [after - before for before, after in pairwise(starts)]
    assert all(pause >= 0.1 * 2**number for number, pause in enumerate(pauses, 1)), pauses
    began = time.monotonic()
    await crew.force.apply(crew.snapshot())  # the healthy one is enough
    assert time.monotonic() - began < module.APPLY_S, "it is not waited for"
    assert other in crew.note()
    monkeypatch.setattr(crew.force, "_start_worker", start_worker)
    monkeypatch.setattr(sys, "executable", executable)
    await until(lambda: crew.up() == 2, "it is well again")


async def test_without_a_single_worker_a_change_fails(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    await crew.force.start()
    with pytest.raises(RuntimeError, match="no worker is up"):
        await crew.force.apply(crew.snapshot())


async def test_a_port_that_is_taken_is_told_before_anything_changes(crew: Crew) -> None:
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", crew.port))
        foreign.listen()
        (problem,) = crew.force.check_binds(crew.snapshot())
        assert "in use by another program" in problem
        with pytest.raises(RuntimeError, match="in use"):
            await crew.force.apply(crew.snapshot())


async def test_what_lies_where_we_were_started_is_not_taken_for_our_package(
    crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "__init__.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    await crew.start()
    assert [worker.restarts for worker in crew.force.workers()] == [0, 0]


async def test_a_stop_lets_requests_finish_and_leaves_no_process(crew: Crew) -> None:
    await crew.start()
    pids = crew.note()
    await crew.force.stop(5)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(OSError, match="Connect call failed"):
        await crew.get()


async def test_a_stop_does_not_wait_for_a_stuck_worker_for_ever(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KILL_AFTER_S", 0.3)
    await crew.start()
    stuck = crew.note()[0]
    os.kill(stuck, signal.SIGSTOP)
    began = time.monotonic()
    await crew.force.stop(0.3)
    assert time.monotonic() - began < 20
    with pytest.raises(ProcessLookupError):
        os.kill(stuck, 0)


async def test_a_worker_that_is_just_being_started_does_not_survive_a_stop(
    crew: Crew, until: Until
) -> None:
    await crew.start()
    victim = crew.note()[0]
    os.kill(victim, signal.SIGKILL)
    await until(lambda: crew.force.workers()[0].restarts == 1, "its replacement is due")
    await asyncio.sleep(0.2)  # anywhere in the start
    await crew.force.stop(1)
    await asyncio.sleep(0.3)
    for pid in crew.note():
        if pid:
            await until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "it has gone")


def test_the_cause_of_a_death_is_told_in_words() -> None:
    assert module._cause(-9) == "killed by SIGKILL"
    assert module._cause(3) == "exit code 3"
    assert module._cause(-40) == "killed by signal 40", "not every signal has a name"


async def test_a_limit_holds_over_all_workers_and_forgets_the_dead(
    crew: Crew, until: Until
) -> None:
    await crew.start()
    snapshot = crew.snapshot()
    (listener,) = snapshot.listeners
    await crew.force.apply(replace(snapshot, listeners=(replace(listener, max_per_client=5),)))
    statuses, writers = [], []

    async def connect() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", crew.port)
        writers.append(writer)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        statuses.append(int(head[9:12]))

    try:
        for _ in range(12):
            await connect()
        assert sorted(statuses) == [200] * 5 + [429] * 7
        for victim in crew.note():
            os.kill(victim, signal.SIGKILL)
        await until(lambda: crew.up() == 2, "both are replaced")
        statuses.clear()
        for _ in range(7):
            await connect()
        assert sorted(statuses) == [200] * 5 + [429] * 2
    finally:
        for writer in writers:
            writer.transport.abort()
