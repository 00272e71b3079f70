"""A verb on a pseudo terminal, as a person sees it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time


class Terminal:
    """One verb with a terminal of 90 columns as its output."""

    def __init__(self, *argv: str, **environ: str) -> None:
        self._ours, theirs = pty.openpty()
        os.set_blocking(self._ours, False)
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "90", **environ}
        command = [sys.executable, "-m", "proxy.cli.main", *argv]
        self.process = subprocess.Popen(command, stdout=theirs, stdin=theirs, env=environment)
        os.close(theirs)
        self.shown = ""

    def until(self, text: str | None) -> str:
        """What was shown when `text` came up, or when the verb ended."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if text is not None and text in self.shown:
                return self.shown
            select.select([self._ours], [], [], 0.2)
            try:
                self.shown += os.read(self._ours, 65536).decode()
            except BlockingIOError:
                continue
            except OSError:  # Linux says so when the last writer is gone
                break
        assert text is None, f"{text!r} did not come up in {self.shown!r}"
        return self.shown

    def end(self) -> int:
        code = self.process.wait(60)
        os.close(self._ours)
        return code
