"""A way out for events that nobody may have to wait for: bounded, written by a thread.

stderr is often a pipe, and its reader may be slow or gone; neither traffic nor a change
must stand still because of that.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
from collections.abc import Callable

MAX_WAITING = 10_000
"""Lines that wait for the reader before further ones are dropped."""
LAST_S = 1.0
"""How long a process that ends waits for its last lines to be read."""


class Outlet:
    """A text stream (`write`, `flush`) over a descriptor that never blocks its writer."""

    def __init__(
        self, descriptor: int = 2, *, dropped: Callable[[int], None] = lambda _: None
    ) -> None:
        """`dropped` is told the number of all lines lost so far, by either thread."""
        self._descriptor = descriptor
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._tell_dropped = dropped
        # Each has one thread that counts it up.
        self._refused = 0
        self._unwritten = 0
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, text: str) -> int:
        if self._lines.qsize() >= MAX_WAITING:
            self._refused += 1
            self._tell_dropped(self.dropped)
        else:
            self._lines.put(text)
        return len(text)

    @property
    def dropped(self) -> int:
        """Lines that were never written."""
        return self._refused + self._unwritten

    def flush(self) -> None:
        """Nothing to do: the thread writes what there is."""

    def close(self) -> None:
        """Wait a little for what is still to be written."""
        self._lines.put(None)
        self._thread.join(LAST_S)

    def _run(self) -> None:
        while (text := self._lines.get()) is not None:
            data = memoryview(text.encode("utf-8", "backslashreplace"))
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:  # nobody listens any more
                self._unwritten += 1
                self._tell_dropped(self.dropped)
