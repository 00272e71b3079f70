"""Event streams: whoever splits the whole text into lines finds the same ends of events."""

from __future__ import annotations

from collections.abc import Hashable

from proxy.http1.event_stream import EventBorders
from tests.fuzz import reading

A_WHILE = 50_000
TOKENS = (b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"data: x", b"\n\r", b":\n", b"id")


def seeds() -> list[bytes]:
    return [b"data: a\n\ndata: b\r\n\r\n", b"data: a\r\rdata: b\n\r\n", b"\n", b": x\n", b""]


def run(data: bytes) -> Hashable:
    is_between = _is_between(data)
    for pieces in reading.cuts(data):
        borders = EventBorders()
        for piece in pieces:
            borders.feed(piece)
        assert borders.is_between == is_between
    ends = [at for at in range(1, len(data) + 1) if _is_between(data[:at])]
    for middle in (0, len(data) // 2):
        _check_find(data, middle, ends)
    return is_between, min(len(ends), 5), data[-4:].translate(None, b"\r\n") == b""


def _check_find(data: bytes, middle: int, ends: list[int]) -> None:
    borders = EventBorders()
    borders.feed(data[:middle])
    size = borders.find(data[middle:])
    later = [at for at in ends if at > middle]
    if size < 0:
        assert not later, f"an event ends at {later[0]}"
        return
    # The LF of a CR LF belongs to the blank line, where it has come already.
    assert middle + size in {later[0], later[0] + 1}
    assert borders.is_between
    assert data[: middle + size].endswith((b"\r", b"\n"))


def _is_between(data: bytes) -> bool:
    text = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return not text or text == b"\n" or text.endswith(b"\n\n")
