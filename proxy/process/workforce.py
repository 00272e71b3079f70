"""The workers: started by exec, told what to serve, replaced when they die.

It is the `Fleet` of the control plane. Every start of a worker has counters of its
own; those of a dead one stay in the sums.
"""

from __future__ import annotations

import asyncio
import itertools
import mmap
import os
import secrets
import signal
import socket
import sys
import time
from typing import Any

import structlog

from proxy import door, stats
from proxy.control.fleet import InFlight, Sample, WorkerState
from proxy.dataplane.access_log import LOG_FLAGS, LOG_MODE
from proxy.model import Snapshot
from proxy.process import heartbeat
from proxy.process.channel import Channel
from proxy.process.heartbeat import Heartbeats
from proxy.process.messages import Message, from_plain
from proxy.process.sockets import SocketTable
from proxy.stats import BLOCK_WORDS, Board, CounterBlock, SlotTable, Totals
from proxy.tasks import spawn

APPLY_S = 10.0
"""A worker that has not confirmed a snapshot by then is stuck, and is replaced."""
START_S = 25.0
"""The same from its start until it has confirmed its first: on a busy machine an interpreter
takes its time, and one that is killed for that leaves the next one no quicker. Twice this is
less than a change may take (`control.ledger.APPLY_S`)."""
ASK_S = 1.0
"""Workers that do not answer a question by then are left out of the answer."""
WARM_S = 0.5
"""How long a change waits for connections to be opened ahead of it: it may be an urgent one."""
WARM_ANSWER_S = 0.25
"""And for the workers to say so."""
YOUNG_S = 2.0
"""A worker that dies younger than this is part of a crash loop."""
MAX_BACKOFF_S = 5.0
KILL_AFTER_S = 2.0
"""Time over the grace that workers get before they are killed."""

log = structlog.get_logger("turnout.process")


class WorkerProcess:
    """One started worker."""

    def __init__(self, slot: int, generation: int, process: asyncio.subprocess.Process) -> None:
        self.slot = slot
        self.generation = generation
        self.process = process
        self.started_at = time.time()
        self.started = time.monotonic()
        self.revision = 0
        self.channel: Channel | None = None
        self.counters: CounterBlock | None = None
        self.moved = asyncio.Event()
        """Set when a revision was confirmed, or the worker has died."""
        self.binds: set[str] = set()
        """Addresses of the listening sockets it was sent."""
        self.is_dead = False

    def send(self, message: Message, descriptors: list[int] | None = None) -> None:
        if self.channel is not None:
            self.channel.send(message, descriptors or [])

    def kill(self) -> None:
        if not self.is_dead:
            self.process.kill()


class Workforce:
    """`count` workers and the listening sockets they accept on."""

    def __init__(self, count: int, slots: SlotTable) -> None:
        self._count = count
        self._slots = slots
        self._sockets = SocketTable(count)
        self._totals = Totals()
        self._board_fd = _shared_memory("turnout-board", BLOCK_WORDS * 8)
        self._board = Board(CounterBlock(self._board_fd).words, count)
        self._door_fd = _shared_memory("turnout-door", door.size(count))
        self._door = memoryview(mmap.mmap(self._door_fd, door.size(count))).cast("Q")
        door.prepare(self._door, secrets.token_bytes(door.SECRET_BYTES))
        self._workers: list[WorkerProcess | None] = [None] * count
        self._restarts = [0] * count
        self._failures = [0] * count
        self._generations = itertools.count(1)
        self._questions = itertools.count(1)
        self._answers: dict[int, tuple[set[int], list[Any], asyncio.Event]] = {}
        self._heartbeats: Heartbeats[WorkerProcess] = Heartbeats()
        self._looking: asyncio.Task[None] | None = None
        self._snapshot: Snapshot | None = None
        self._is_stopping = False

    # ---- the Fleet ----

    @property
    def totals(self) -> Totals:
        return self._totals

    @property
    def board(self) -> Board:
        return self._board

    def check_binds(self, snapshot: Snapshot) -> list[str]:
        """Open the sockets that `snapshot` needs; a sentence for all that cannot be had.

        The access log is opened as well, and closed: a file that workers could not open
        must be refused here, before anything has changed.
        """
        return log_problems(snapshot.access_log.path) or self._sockets.open_for(snapshot)

    def keep_binds(self, snapshot: Snapshot) -> None:
        """Close the sockets that `snapshot` does not need."""
        self._sockets.close_all_but(snapshot)

    async def apply(self, snapshot: Snapshot) -> None:
        """Have every worker serve `snapshot`; one that does not confirm in time is replaced.

        Raises RuntimeError when no worker lives to serve it.
        """
        if problems := self._sockets.open_for(snapshot):
            raise RuntimeError("; ".join(problems))
        self._snapshot = snapshot
        await asyncio.gather(
            *(self._confirm(slot, snapshot.revision) for slot in range(self._count))
        )
        self._sockets.close_all_but(snapshot)
        if not any(w and w.revision >= snapshot.revision for w in self._workers):
            raise RuntimeError("no worker is up")

    async def in_flight(self, service: str, pool: str | None, limit: int) -> list[InFlight]:
        """Ask the workers; those that do not answer within a second are left out."""
        question = {"kind": "in_flight", "service": service, "pool": pool}
        items = [from_plain(InFlight, item) for item in await self._ask(question, ASK_S)]
        items.sort(key=lambda item: -item.age_s)
        return items[:limit]

    async def samples(self, service: str, pool: str, limit: int) -> list[Sample]:
        """Ask the workers for the pool's last failures, newest first."""
        question = {"kind": "samples", "service": service, "pool": pool}
        items = [from_plain(Sample, item) for item in await self._ask(question, ASK_S)]
        items.sort(key=lambda item: -item.at)
        return items[:limit]

    async def warm(self, service: str, pool: str) -> None:
        """Have connections opened; what is not open in time does not matter."""
        question = {"kind": "warm", "service": service, "pool": pool, "wait_s": WARM_S}
        await self._ask(question, WARM_S + WARM_ANSWER_S)

    async def _ask(self, question: Message, timeout_s: float) -> list[Any]:
        """What the workers that answer in time say."""
        asked = {w.generation: w for w in self._workers if w is not None and not w.is_dead}
        if not asked:
            return []
        number = next(self._questions)
        done = asyncio.Event()
        items: list[Any] = []
        self._answers[number] = (set(asked), items, done)
        for worker in asked.values():
            worker.send({**question, "id": number})
        try:
            async with asyncio.timeout(timeout_s):
                await done.wait()
        except TimeoutError:
            pass
        finally:
            del self._answers[number]
        return items

    def workers(self) -> list[WorkerState]:
        return [
            WorkerState(
                slot=slot,
                pid=worker.process.pid if worker is not None else 0,
                revision=worker.revision if worker is not None else 0,
                up=worker is not None and not worker.is_dead and worker.revision > 0,
                started_at=worker.started_at if worker is not None else 0.0,
                restarts=self._restarts[slot],
            )
            for slot, worker in enumerate(self._workers)
        ]

    # ---- life ----

    async def start(self) -> None:
        """Start every worker; they serve with the first snapshot applied."""
        for slot in range(self._count):
            await self._start_worker(slot)
        self._looking = spawn(self._look_for_stuck(), name="heartbeats", report=_report)

    async def stop(self, grace_s: float) -> None:
        """Have the workers finish what is in flight within `grace_s`; then they are killed."""
        self._is_stopping = True
        if self._looking is not None:
            self._looking.cancel()
        self._sockets.close_all()
        living = [w for w in self._workers if w is not None and not w.is_dead]
        for worker in living:
            worker.send({"kind": "stop", "grace_s": grace_s})
        try:
            async with asyncio.timeout(grace_s + KILL_AFTER_S):
                await asyncio.gather(*(w.process.wait() for w in living))
        except TimeoutError:
            self.kill()
            await asyncio.gather(*(w.process.wait() for w in living))

    def kill(self) -> None:
        """End every worker now."""
        self._is_stopping = True
        for worker in self._workers:
            if worker is not None:
                worker.kill()

    # ---- inside ----

    async def _start_worker(self, slot: int) -> None:
        generation = next(self._generations)
        counters_fd = _shared_memory(f"turnout-{slot}-{generation}", BLOCK_WORDS * 8)
        ours, theirs = socket.socketpair()
        # -P: whatever lies in the folder we were started in must not pass for our package.
        command = [sys.executable, "-P", "-m", "proxy.process.worker"]
        shared = (theirs.fileno(), counters_fd, self._board_fd, self._door_fd)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                *map(str, (slot, self._count, *shared)),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=shared,
            )
            worker = WorkerProcess(slot, generation, process)
            worker.counters = CounterBlock(counters_fd)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(counters_fd)
        self._workers[slot] = worker
        self._totals.add((slot, generation), worker.counters.words, slot)
        worker.channel = Channel(
            ours, lambda message, _: self._on_message(worker, message), lambda: None
        )
        spawn(self._watch(worker), name=f"worker {slot}", report=_report)
        if self._snapshot is not None:
            self._send_snapshot(worker, self._snapshot)

    def _send_snapshot(self, worker: WorkerProcess, snapshot: Snapshot) -> None:
        wanted = {listener.bind for listener in snapshot.listeners}
        sockets = {b: s for b, s in self._sockets.of_slot(worker.slot).items() if b in wanted}
        # Only what it has not yet: a worker that has no descriptor left can still obey.
        new = [bind for bind in sockets if bind not in worker.binds]
        worker.binds = set(sockets)
        worker.send(
            {"kind": "apply", "snapshot": snapshot, "binds": new},
            [sockets[bind].fileno() for bind in new],
        )

    async def _confirm(self, slot: int, revision: int) -> None:
        """Wait until the worker of `slot` serves `revision`, replacing it when it is stuck."""
        worker = self._workers[slot]
        if worker is not None and not worker.is_dead and self._snapshot is not None:
            self._send_snapshot(worker, self._snapshot)
        since = time.monotonic()
        killed: WorkerProcess | None = None
        while (left := self._patient_until(slot, since) - time.monotonic()) > 0:
            worker = self._workers[slot]
            if worker is not None and not worker.is_dead:
                if worker.revision >= revision:
                    return
                worker.moved.clear()
                try:
                    async with asyncio.timeout(left):
                        await worker.moved.wait()
                except TimeoutError:
                    killed = self._replace_stuck(worker, killed)
                    if killed is not worker:
                        return
                    since = time.monotonic()
            elif self._failures[slot] > 2:
                return  # in a crash loop: it serves nothing, and its replacement starts right
            else:
                await asyncio.sleep(0.02)

    def _patient_until(self, slot: int, since: float) -> float:
        """Until when the worker of `slot` may take to confirm what it was sent at `since`."""
        worker = self._workers[slot]
        if worker is None or worker.is_dead or worker.revision:
            return since + APPLY_S
        return max(since + APPLY_S, worker.started + START_S)

    @staticmethod
    def _replace_stuck(worker: WorkerProcess, killed: WorkerProcess | None) -> WorkerProcess | None:
        log.error("worker_stuck", worker=worker.slot, pid=worker.process.pid)
        worker.kill()
        return worker if killed is None else None

    async def _look_for_stuck(self) -> None:
        """Replace workers that stand still, though no change is waiting for them."""
        while not self._is_stopping:
            await asyncio.sleep(heartbeat.LOOK_EVERY_S)
            living = {
                worker: int(worker.counters.words[stats.W_HEARTBEAT_MS])
                for worker in self._workers
                if worker is not None and worker.counters is not None and not worker.is_dead
            }
            if self._snapshot is None:
                continue  # they have nothing to do yet
            for worker in self._heartbeats.look(living):
                log.error("worker_stuck", worker=worker.slot, pid=worker.process.pid)
                worker.kill()

    async def _watch(self, worker: WorkerProcess) -> None:
        """Wait for the worker's end, keep its counts, and start its replacement."""
        status = await worker.process.wait()
        worker.is_dead = True
        worker.moved.set()
        if worker.channel is not None:
            worker.channel.close()
        self._totals.retire((worker.slot, worker.generation), self._slots.dealt)
        if worker.counters is not None:
            worker.counters.close()
        door.clear(self._door, worker.slot)
        for asked, _, done in list(self._answers.values()):
            asked.discard(worker.generation)
            if not asked:
                done.set()
        if not self._is_stopping:
            await self._replace(worker, status)

    async def _replace(self, worker: WorkerProcess, status: int) -> None:
        slot = worker.slot
        is_young = time.monotonic() - worker.started < YOUNG_S
        self._failures[slot] = self._failures[slot] + 1 if is_young else 0
        self._restarts[slot] += 1
        pause_s = 0.0
        if self._failures[slot]:
            pause_s = min(MAX_BACKOFF_S, 0.1 * 2 ** self._failures[slot])
        log.warning(
            "worker_died",
            worker=slot,
            pid=worker.process.pid,
            cause=_cause(status),
            restarts=self._restarts[slot],
            pause_s=pause_s,
        )
        while not self._is_stopping:
            await asyncio.sleep(pause_s)
            try:
                if not self._is_stopping:
                    await self._start_worker(slot)
            except OSError as error:
                pause_s = MAX_BACKOFF_S
                log.error("worker_not_started", worker=slot, error=str(error))  # noqa: TRY400
            else:
                return

    def _on_message(self, worker: WorkerProcess, message: Message) -> None:
        if message["kind"] == "applied":
            worker.revision = max(worker.revision, int(message["revision"]))
            worker.moved.set()
        elif message["kind"] in {"in_flight", "samples", "warmed"}:
            self._on_answer(worker, message)

    def _on_answer(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        waiting = self._answers.get(message["id"])
        if waiting is None:
            return
        asked, items, done = waiting
        items += message.get("items", ())
        asked.discard(worker.generation)
        if not asked:
            done.set()


def _shared_memory(name: str, size: int) -> int:
    """A descriptor of zeroed memory."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return descriptor


def log_problems(path: str) -> list[str]:
    """A sentence when the access log cannot be written."""
    if path in ("stdout", "off"):
        return []
    try:
        os.close(os.open(path, LOG_FLAGS, LOG_MODE))
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        return [f"cannot write the access log {path}: {words}"]
    return []


def _cause(status: int) -> str:
    if status < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"killed by {names.get(-status, f'signal {-status}')}"
    return f"exit code {status}"


def _report(name: str, error: BaseException) -> None:
    log.error("task_failed", task=name, error=repr(error))
