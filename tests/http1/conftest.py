"""Parsers at work: bytes in pieces go in, what the sink was told comes out as lines of text.

One line per event; the pieces of a body are joined, for their borders mean nothing.
The corpora keep such lines beside each raw message (`NAME.http` and `NAME.events`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

import pytest

from proxy.http1 import target
from proxy.http1.headers import Fields
from proxy.http1.message import Malformed, RequestHead, ResponseHead
from proxy.http1.parser import RequestParser, ResponseParser


def _text(data: bytes) -> str:
    return ascii(data.decode("latin-1"))[1:-1]


class Told:
    """A sink of both parsers that writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._body = b""
        self.awaits_tunnel = False

    def _say(self, line: str) -> None:
        if self._body:
            self.lines.append(f"body {len(self._body)} {_text(self._body[:400])}")
            self._body = b""
        self.lines.append(line)

    def _say_fields(self, kind: str, fields: Fields | None) -> None:
        for index in range(0, len(fields or ()), 4):
            assert fields is not None
            assert fields[index + 1] == b": "
            assert fields[index + 3] == b"\r\n"
            self._say(f"  {kind} {_text(fields[index])}: {_text(fields[index + 2])}")

    def request_head(self, head: RequestHead) -> None:
        target.settle(head)
        words = [f"head {_text(head.method)} {_text(head.target)} host={_text(head.host)}"]
        words.append(f"length={'chunked' if head.chunked else head.length}")
        words += ["HTTP/1.0"] if head.version_1_0 else []
        words += [] if head.keep_alive else ["last"]
        words += ["expect"] if head.expect else []
        words += [] if head.upgrade is None else [f"upgrade={_text(head.upgrade)}"]
        self._say(" ".join(words))
        if head.cookie is not None:
            self._say(f"  cookie {_text(head.cookie)}")
        self._say_fields("field", head.fields)
        self.awaits_tunnel = head.upgrade is not None

    def request_body(self, data: bytes) -> None:
        self._body += data

    def request_end(self, trailers: Fields | None) -> None:
        self._say("end")
        self._say_fields("trailer", trailers)

    def response_interim(self, head: ResponseHead) -> None:
        switch = "" if head.upgrade is None else f" upgrade={_text(head.upgrade)}"
        self._say(f"interim {head.status} {_text(head.reason)}{switch}")
        self._say_fields("field", head.fields)

    def response_head(self, head: ResponseHead) -> None:
        length = "chunked" if head.chunked else "to-end" if head.to_end else head.length
        words = [f"head {head.status} {_text(head.reason)} length={length}"]
        words += ["HTTP/1.0"] if head.version_1_0 else []
        words += [] if head.keep_alive else ["last"]
        words += ["events"] if head.event_stream else []
        self._say(" ".join(words))
        self._say_fields("field", head.fields)

    response_body = request_body
    response_end = request_end

    def close(self, line: str) -> list[str]:
        if line:
            self._say(line)
        elif self._body:
            self._say("(more)")
        return self.lines


Pieces = Iterable[bytes]


def _read_requests(
    pieces: Pieces, *, max_header: int = 32 * 1024, max_headers: int = 100
) -> list[str]:
    told = Told()
    parser = RequestParser(told, max_header, max_headers)
    early = b""
    waiting = iter(pieces)
    try:
        for piece in waiting:
            if told.awaits_tunnel and "end" in told.lines[-1]:
                early += piece  # as the caller has to: not for the parser any more
            else:
                early += parser.feed(piece)
    except Malformed as bad:
        lines = [*told.lines, f"malformed {bad.status}"]
        told.close(lines[-1])
        said = list(told.lines)
        for piece in [*waiting, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]:
            assert parser.feed(piece) == b""
        assert told.lines == said, "nothing is told after a refusal"
        return said
    if told.awaits_tunnel:
        return told.close(f"raw {_text(early)}")
    return told.close("")


def _read_responses(pieces: Pieces, *, is_head: bool = False) -> list[str]:
    told = Told()
    parser = ResponseParser()
    parser.expect(told, is_head=is_head)
    raw: bytes | None = None
    waiting = iter(pieces)
    try:
        for piece in waiting:
            if raw is None:
                raw = parser.feed(piece)
            else:
                raw += piece
    except Malformed:
        told.close("malformed")
        said = list(told.lines)
        for piece in [*waiting, b"HTTP/1.1 200 OK\r\n\r\n"]:
            with pytest.raises(Malformed):
                parser.feed(piece)
        assert told.lines == said, "nothing is told after a refusal"
        return said
    return told.close("" if raw is None else f"raw {_text(raw)}")


def _splits(data: bytes) -> Iterator[list[bytes]]:
    """The same bytes whole, one by one, in two at every place, and in seeded random pieces."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    step = max(1, len(data) // 150)
    for at in range(1, len(data), step):
        yield [data[:at], data[at:]]
    draw = random.Random(len(data))
    for _ in range(10):
        cuts = sorted(draw.sample(range(1, len(data)), min(len(data) - 1, draw.randint(1, 12))))
        yield [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.fixture(scope="session")
def read_requests() -> Callable[..., list[str]]:
    return _read_requests


@pytest.fixture(scope="session")
def read_responses() -> Callable[..., list[str]]:
    return _read_responses


@pytest.fixture(scope="session")
def splits() -> Callable[[bytes], Iterator[list[bytes]]]:
    return _splits
