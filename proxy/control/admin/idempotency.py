"""Idempotency-Key: a change that is sent twice is made once and answered twice."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from proxy.clock import Clock
from proxy.control.admin.answer import Answer
from proxy.control.admin.problem import Problem
from proxy.tasks import spawn

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
LONGEST_KEY = 255
KEPT = 1_000
KEPT_S = 24 * 3600.0

_log = structlog.get_logger("admin")


@dataclass(slots=True, kw_only=True)
class _Entry:
    fingerprint: bytes
    began_s: float
    task: asyncio.Task[Answer]


class Replies:
    """Remembers the answers to keyed requests, the most recently used ones, for a day.

    An answer of 500 and above is not kept: the next try with the same key is a new one.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    async def answer(
        self, key: str, fingerprint: bytes, work: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        """Return the work's answer, or the one it gave before to the same key and request.

        `work` goes on when the caller goes away. Problem 422 when the key was
        used for another request.
        """
        _check_key(key)
        entry = self._known(key)
        if entry is None:
            entry = self._begin(key, fingerprint, work)
            return await asyncio.shield(entry.task)
        if entry.fingerprint != fingerprint:
            raise Problem(
                422, f"This {HEADER} was used for another request before; take a new one."
            )
        answer = await asyncio.shield(entry.task)
        return answer.with_headers(Idempotent_Replayed="true")

    def _known(self, key: str) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.task.done() and self._clock.monotonic() - entry.began_s >= KEPT_S:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry

    def _begin(self, key: str, fingerprint: bytes, work: Callable[[], Awaitable[Answer]]) -> _Entry:
        async def run() -> Answer:
            return await work()

        task = spawn(run(), name="admin-idempotent-change", report=_report)
        entry = _Entry(fingerprint=fingerprint, began_s=self._clock.monotonic(), task=task)
        self._entries[key] = entry
        task.add_done_callback(lambda finished: self._ended(key, entry, finished))
        self._make_room()
        return entry

    def _ended(self, key: str, entry: _Entry, task: asyncio.Task[Answer]) -> None:
        failed = task.cancelled() or task.exception() is not None or task.result().status >= 500
        if failed and self._entries.get(key) is entry:
            del self._entries[key]

    def _make_room(self) -> None:
        # One that still runs is never forgotten, or a second one would begin beside it.
        over = len(self._entries) - KEPT
        if over > 0:
            done = [key for key, entry in self._entries.items() if entry.task.done()]
            for key in done[:over]:
                del self._entries[key]


def _check_key(key: str) -> None:
    if not 0 < len(key) <= LONGEST_KEY or not (key.isascii() and key.isprintable()):
        raise Problem(422, f"{HEADER} must be 1 to {LONGEST_KEY} printable ASCII characters.")


def _report(name: str, error: BaseException) -> None:
    _log.error("admin task failed", task=name, exc_info=error)
