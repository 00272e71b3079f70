"""WebSocket frames: a second reader, which has all bytes at once, finds the same borders.

An input's first bit says whether messages may be compressed, the rest is the server's side.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from proxy.http1.frames import MAX_PAYLOAD, FrameBorders, close_frame
from tests.fuzz import reading

A_WHILE = 80_000
TOKENS = (
    *(b"\x81\x05hello", b"\x01\x02he", b"\x80\x03llo", b"\x89\x00", b"\x8a\x01x", b"\x88\x00"),
    *(b"\x82\x7e\x00\x7e", b"\x82\x7f", b"\x00\x00\x00\x00\x00\x01\x00\x00", b"\xc1\x02ab"),
    close_frame(1000, b"bye"),
)


class Seen(NamedTuple):
    ends: tuple[int, ...]
    """Where messages and control frames between them end."""
    has_closed: bool
    is_unsure: bool
    is_between: bool


def seeds() -> list[bytes]:
    return [b"\x00" + b"".join(TOKENS[:5]), *(b"\x01" + token for token in TOKENS)]


def run(data: bytes) -> Hashable:
    is_deflated, data = bool(data and data[0] & 1), data[1:]
    seen = _seen(data, is_deflated=is_deflated)
    for pieces in reading.cuts(data):
        borders = FrameBorders(is_deflated=is_deflated)
        for piece in pieces:
            borders.feed(piece)
            assert len(borders._head) < 10
        assert borders.is_unsure == seen.is_unsure
        assert borders.is_between == seen.is_between
        assert seen.is_unsure or borders.has_closed == seen.has_closed
    _check_find(data, seen, is_deflated=is_deflated)
    return seen[1:], min(len(seen.ends), 4), bool(data) and data[0]


def _check_find(data: bytes, seen: Seen, *, is_deflated: bool) -> None:
    """Each end in turn, found by one look or by two."""
    borders, at, found = FrameBorders(is_deflated=is_deflated), 0, []
    while (size := borders.find(data[at:])) >= 0:
        at += size
        found.append(at)
        assert borders.is_between
    assert tuple(found) == seen.ends
    halves = FrameBorders(is_deflated=is_deflated)
    middle = len(data) // 2
    first = halves.find(data[:middle])
    if first < 0:
        first = halves.find(data[middle:])
        first = first + middle if first >= 0 else -1
    assert first == (seen.ends[0] if seen.ends else -1)


def _seen(data: bytes, *, is_deflated: bool) -> Seen:  # noqa: C901, PLR0911 - one rule, one line
    """RFC 6455 section 5.2, field by field."""
    ends: list[int] = []
    at, in_message = 0, False

    def seen(*, closed: bool = False, unsure: bool = False, between: bool = False) -> Seen:
        return Seen(tuple(ends), closed, unsure, between)

    while at < len(data):
        head = data[at : at + 10]
        if len(head) < 2:
            return seen()
        fin, reserved, opcode = head[0] >> 7, (head[0] >> 4) & 7, head[0] & 15
        if head[1] > 127:
            return seen(unsure=True)
        length, size = head[1], 2
        if length > 125:
            size = 4 if length == 126 else 10
            if len(head) < size:
                return seen()
            length = int.from_bytes(head[2:size], "big")
            if length < (126 if size == 4 else 65536) or length > MAX_PAYLOAD:
                return seen(unsure=True)
        is_control = opcode > 7
        if opcode not in (0, 1, 2, 8, 9, 10) or reserved not in ((0, 4) if is_deflated else (0,)):
            return seen(unsure=True)
        if is_control and (not fin or length > 125 or reserved):
            return seen(unsure=True)
        if not is_control and ((opcode == 0) != in_message or (opcode == 0 and reserved)):
            return seen(unsure=True)
        if opcode == 8:
            return seen(closed=True)
        if not is_control:
            in_message = not fin
        at += size + length
        if at <= len(data) and not in_message:
            ends.append(at)
    return seen(between=at == len(data) and not in_message)
