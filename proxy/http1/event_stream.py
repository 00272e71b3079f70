"""Follows an event stream's bytes, to know where an event ends.

An event ends with a blank line, and a line with CR LF, LF or CR (WHATWG HTML, section 9.2.5).
"""

from __future__ import annotations

import re

_BLANK_LINE = re.compile(rb"\n\n|[\r\n]\r\n?")
_ENDS_BLANK = re.compile(rb"(?:\n\n|[\r\n]\r\n?)\Z")
_KEPT = 3
"""Bytes by which the longest end of an event can be told."""


def retry_field(milliseconds: int) -> bytes:
    """Have the client wait so long before it connects again."""
    return b"retry: %d\n\n" % milliseconds


class EventBorders:
    """Knows after any bytes of a stream whether the next one begins an event."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\n\n"  # before its first byte a stream is between two events

    @property
    def is_between(self) -> bool:
        return _ENDS_BLANK.search(self._tail) is not None

    def feed(self, data: bytes) -> None:
        """Follow the next bytes."""
        if len(data) >= _KEPT:
            self._tail = data[-_KEPT:]
        else:
            self._tail = (self._tail + data)[-_KEPT:]

    def find(self, data: bytes) -> int:
        """Follow the next bytes up to the first end of an event: how many they are, or -1.

        After -1 all of them have been followed, as by `feed`.
        """
        before = len(self._tail)
        found = _BLANK_LINE.search(self._tail + data)
        while found is not None and found.end() <= before:  # it ended before these bytes
            found = _BLANK_LINE.search(self._tail + data, found.end() - 1)
        if found is None:
            self.feed(data)
            return -1
        end = found.end() - before
        self.feed(data[:end])
        return end
