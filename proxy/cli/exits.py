"""The exit codes of every verb, and the error that carries one to the end of the program."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    DONE = 0
    REFUSED = 1
    """Refused or failed by the program."""
    USAGE = 2
    """Wrong usage, or an invalid configuration."""
    NOT_READY = 3
    """What was to be deployed did not come up in time; nothing has changed."""
    ROLLED_BACK = 4
    """The rollout was turned back, by the guard or by a person."""
    TIMED_OUT = 5
    """Timed out while waiting; the work goes on."""
    UNREACHABLE = 6
    """The proxy's admin API does not answer."""
    INTERRUPTED = 130
    """Ctrl-C: 128 + SIGINT, as shells count."""


class CommandError(Exception):
    """A verb cannot go on: `sentence` says why and what to do next, `details` are further lines."""

    def __init__(self, code: ExitCode, sentence: str, details: tuple[str, ...] = ()) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.details = details
