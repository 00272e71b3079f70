"""The one place where tasks start: named, kept referenced, their failure reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Report = Callable[[str, BaseException], None]

_running: set[asyncio.Task[Any]] = set()


def spawn(coro: Coroutine[Any, Any, Any], *, name: str, report: Report) -> asyncio.Task[Any]:
    """Start `coro` as a task called `name`; `report(name, error)` is told if it fails."""
    task = asyncio.get_running_loop().create_task(coro, name=name)
    _running.add(task)

    def done(finished: asyncio.Task[Any]) -> None:
        _running.discard(finished)
        if not finished.cancelled() and (error := finished.exception()) is not None:
            report(name, error)

    task.add_done_callback(done)
    return task
