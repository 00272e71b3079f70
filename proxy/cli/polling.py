"""Asking again and again, with patience for a proxy that restarts meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.cli.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from proxy.cli.client import AdminClient, Answer

POLL_S: Final = 1.0
PATIENCE_S: Final = 30.0
"""A restart of the proxy takes less; who is away for longer is not coming back by itself."""
ANSWER_S: Final = 10.0
AWAY = frozenset({502, 503, 504})
"""Statuses of a proxy that is starting or ending, or of what stands before its admin API."""


class Poll:
    """Gets one path after the other; raises what went wrong only after PATIENCE_S of it."""

    def __init__(self, client: AdminClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._away_since: float | None = None
        self.trouble = ""
        """Why nobody answers at this moment, in words."""

    def ask(self, path: str) -> Answer | None:
        """The answer, or None while there is none and patience is left."""
        try:
            answer = self._client.get(path, timeout_s=ANSWER_S)
        except CommandError as error:
            self._endure(error)
            return None
        self._away_since, self.trouble = None, ""
        return answer

    def _endure(self, error: CommandError) -> None:
        if not _is_away(error):
            raise error
        now = self._clock()
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since >= PATIENCE_S:
            raise error
        self.trouble = error.sentence


def _is_away(error: CommandError) -> bool:
    from proxy.cli.client import RefusedError  # noqa: PLC0415 - http.client

    if isinstance(error, RefusedError):
        return error.answer.status in AWAY
    return error.code is ExitCode.UNREACHABLE
