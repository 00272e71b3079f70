"""The secret behind session tickets: random, kept in memory only, another one every day."""

from __future__ import annotations

import secrets

LIFE_S = 86400.0
SECRET_BYTES = 32


class TicketSecret:
    """`now` is monotonic time."""

    def __init__(self) -> None:
        self._secret = ""
        self._since = 0.0

    def current(self, now: float) -> str:
        """The secret in hex; a new one when that of before is a day old."""
        if not self._secret or self.left_s(now) == 0:
            self._secret, self._since = secrets.token_hex(SECRET_BYTES), now
        return self._secret

    def left_s(self, now: float) -> float:
        """Seconds until another one is due."""
        return max(0.0, self._since + LIFE_S - now)
