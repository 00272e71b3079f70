"""Notices that the configuration file changed: its directory is watched, its content compared.

Watching the file itself would lose the second atomic rename and every swap of a mounted
ConfigMap. The content is compared every two seconds as well: for file systems that tell
nothing, and for a change in the moment before the watch has begun.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from watchfiles import awatch

POLL_S = 2.0
QUIET_MS = 100
"""Events this close together are one change: editors write, rename and touch."""


class ConfigWatch:
    """Calls `on_change` whenever the file's content is another than the last one seen.

    Until `on_change` returns True the content counts as not seen, and is offered again.
    """

    def __init__(
        self,
        path: Path,
        seen: str | None,
        on_change: Callable[[], Awaitable[bool]],
        *,
        poll_s: float = POLL_S,
    ) -> None:
        self._path = path
        self._seen = seen
        self._on_change = on_change
        self._poll_s = poll_s

    async def run(self) -> None:
        """Watch for ever; ends by being cancelled."""
        await self._compare()  # it may have changed since it was loaded
        while True:
            try:
                async for _ in self._ticks():
                    await self._compare()
            except OSError:  # the directory is gone, or the system has no watches left
                await asyncio.sleep(self._poll_s)
                await self._compare()

    async def _compare(self) -> None:
        digest = await asyncio.to_thread(digest_of, self._path)
        if digest != self._seen:
            self._seen = digest if await self._on_change() else self._seen

    def _ticks(self) -> AsyncIterator[object]:
        return awatch(
            *self._directories(),
            watch_filter=None,
            debounce=QUIET_MS * 4,
            step=QUIET_MS,
            rust_timeout=int(self._poll_s * 1000),
            yield_on_timeout=True,
            recursive=False,
        )

    def _directories(self) -> set[Path]:
        """Where the file is named, and where it is when its name is a link."""
        return {self._path.parent.absolute(), self._path.resolve().parent}


def digest_of(path: Path) -> str | None:
    """SHA-256 of the content in hex; None when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
