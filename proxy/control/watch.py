"""Notices that the configuration changed: its directory is watched, contents are compared.

Watching the file itself would lose the second atomic rename and every swap of a mounted
ConfigMap. The content is compared every two seconds as well: for file systems that tell
nothing, for a change in the moment before the watch has begun, and for the files that the
configuration names, such as certificates.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from watchfiles import awatch

POLL_S = 2.0
QUIET_MS = 100
"""Events this close together are one change: editors write, rename and touch."""


class ConfigWatch:
    """Calls `on_change` whenever the fingerprint of what is read is another than the last one seen.

    It is told the new one, and says which one counts as seen from then on; with None nothing was
    seen, and the change is offered again.
    """

    def __init__(
        self,
        path: Path,
        seen: str,
        fingerprint: Callable[[], str],
        on_change: Callable[[str], Awaitable[str | None]],
        *,
        poll_s: float = POLL_S,
    ) -> None:
        self._path = path
        self._seen = seen
        self._fingerprint = fingerprint
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
        found = await asyncio.to_thread(self._fingerprint)
        if found != self._seen:
            self._seen = await self._on_change(found) or self._seen

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
