"""Can an endpoint be reached at this moment? Asked by opening a connection to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

from proxy.tasks import Report, spawn

Probe = Callable[[str], Awaitable[str | None]]
"""Takes an address; returns None when it answers, else why not ("connection refused")."""

PROBE_S = 2.0


async def probe_connect(address: str) -> str | None:
    """Open a TCP or unix connection and close it again."""
    try:
        async with asyncio.timeout(PROBE_S):
            writer = await connect(address)
    except TimeoutError:
        return f"no connection within {PROBE_S:g} s"
    except (OSError, ValueError) as error:
        return in_words(error)
    writer.transport.abort()  # nothing was sent, so there is nothing to wait for
    return None


async def probe_all(
    probe: Probe, addresses: Sequence[str], *, enough: int, report: Report
) -> dict[str, str | None]:
    """Probe all addresses at once until `enough` of them answer, or PROBE_S have passed."""
    tasks = {
        address: spawn(_ask(probe, address), name=f"probe {address}", report=report)
        for address in addresses
    }
    pending = set(tasks.values())
    try:
        async with asyncio.timeout(PROBE_S + 0.5):
            while pending and _answered(tasks) < enough:
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        pass  # whoever has not answered by now counts as not ready
    finally:
        for task in pending:
            task.cancel()
    return {address: _result(task) for address, task in tasks.items()}


async def _ask(probe: Probe, address: str) -> str | None:
    return await probe(address)


async def connect(address: str) -> asyncio.StreamWriter:
    if address.startswith("unix:"):
        _, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    return writer


def _answered(tasks: dict[str, asyncio.Task[str | None]]) -> int:
    return sum(_result(task) is None for task in tasks.values())


def _result(task: asyncio.Task[str | None]) -> str | None:
    if not task.done() or task.cancelled():
        return "not asked to the end"
    if error := task.exception():
        return in_words(error)
    return task.result()


def in_words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    text = str(error) or type(error).__name__
    return text[0].lower() + text[1:]
