"""What parsers tell of bytes, as plain values that can be compared; body pieces are joined."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from proxy.http1 import target
from proxy.http1.headers import STRIDE, Fields
from proxy.http1.message import Malformed, RequestHead, ResponseHead
from proxy.http1.parser import RequestParser, ResponseParser

CORPUS = Path(__file__).parents[1] / "http1"
MAX_HEADER = 1024
MAX_HEADERS = 20
Event = tuple[Any, ...]

TOKENS = (
    *(b"\r\n", b"\r", b"\n", b"\r\n\r\n", b" ", b"\t", b":", b",", b";", b"\x00", b"\x0b", b"\xff"),
    *(b"GET ", b"HEAD ", b"POST ", b"OPTIONS * ", b"/", b"http://b/", b" HTTP/1.1\r\n"),
    *(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b" HTTP/1.0\r\n", b"Host: a\r\n", b"Host: b\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: +5\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
    *(b"Transfer_Encoding: chunked\r\n", b"Content_Length: 5\r\n", b"chunked", b"identity"),
    *(b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: upgrade\r\n"),
    *(b"Connection: Host, Content-Length, X-Forwarded-For\r\n", b"Upgrade: websocket\r\n"),
    *(b"Upgrade: h2c\r\n", b"HTTP2-Settings: AA\r\n", b"Expect: 100-continue\r\n", b"TE: a\r\n"),
    *(b"Proxy-Connection: upgrade\r\n", b"Proxy-Connection: keep-alive\r\n"),
    *(b"0\r\n\r\n", b"5\r\nhello\r\n", b"5;a=b\r\nhello\r\n", b"0\r\nX: y\r\n\r\n", b"hello"),
    *(b"00005\r\n", b"5 \r\n", b"0x5\r\n", b"ffffffffffffffff\r\n", b"5\n", b"\r\n \r\n"),
    *(b"X-Forwarded-For: 6.6.6.6\r\n", b"X_Forwarded_For: 6.6.6.6\r\n", b"Cookie: a=b\r\n"),
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    *(b"HTTP/1.1 101 S\r\n", b"HTTP/1.1 204 N\r\n", b"HTTP/1.1 304 N\r\n", b"Trailer: X\r\n"),
    b"HTTP/1.1 103 E\r\nLink: x\r\n\r\n",
)
"""What the grammar is made of, for those who mutate."""


def requests_of_the_corpus() -> list[bytes]:
    return [path.read_bytes() for path in sorted(CORPUS.glob("requests/*/*.http"))]


def answers_of_the_corpus() -> list[tuple[bytes, bool]]:
    """Raw answers, and whether each one is to a HEAD."""
    paths = sorted(CORPUS.glob("responses/*/*.http"))
    return [(path.read_bytes(), path.stem.startswith("head_")) for path in paths]


class Heard:
    """A sink of both parsers."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._body = b""
        self.awaits_tunnel = False

    def say(self, *event: object) -> None:
        if self._body:
            self.events.append(("body", self._body))
            self._body = b""
        self.events.append(event)

    def request_head(self, head: RequestHead) -> None:
        target.settle(head)
        self.say("request", Request(head))
        self.awaits_tunnel = head.upgrade is not None

    def request_body(self, data: bytes) -> None:
        assert data, "an empty piece of a body was told: as a chunk it would end the body"
        self._body += data

    def request_end(self, trailers: Fields | None) -> None:
        self.say("end", tuple(trailers or ()))

    def response_interim(self, head: ResponseHead) -> None:
        self.say("interim", Answer(head))

    def response_head(self, head: ResponseHead) -> None:
        self.say("answer", Answer(head))

    response_body = request_body
    response_end = request_end


class Told:
    """A head's values, compared by value."""

    values: tuple[Any, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Told) and self.values == other.values

    def __hash__(self) -> int:
        return hash(self.values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.values}"


class Request(Told):
    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.fields = tuple(head.fields)
        self.values = (
            *(head.method, head.target, head.host, head.length, head.chunked, head.version_1_0),
            *(head.keep_alive, head.expect, head.upgrade, head.cookie, self.fields),
            tuple(sorted((head.special or {}).items())),
        )


class Answer(Told):
    def __init__(self, head: ResponseHead) -> None:
        self.head = head
        self.fields = tuple(head.fields)
        self.values = (
            *(head.status, head.reason, head.length, head.chunked, head.to_end, head.keep_alive),
            *(head.version_1_0, head.upgrade, head.event_stream, self.fields),
        )


def read_requests(
    pieces: Sequence[bytes], *, max_header: int = MAX_HEADER, max_headers: int = MAX_HEADERS
) -> list[Event]:
    """What one connection's bytes tell, up to a refusal, a tunnel or the end of the bytes."""
    heard = Heard()
    parser = RequestParser(heard, max_header, max_headers)
    early = b""
    try:
        for piece in pieces:
            if heard.awaits_tunnel and heard.events[-1][0] == "end":
                early += piece
            else:
                early += parser.feed(piece)
            assert len(parser._partial) <= max_header, "more of a head is kept than may come"
    except Malformed as bad:
        heard.say("malformed", bad.status)
        said = list(heard.events)
        parser.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert heard.events == said, "something is told after a refusal"
        return heard.events
    if heard.awaits_tunnel:
        heard.say("raw", early)
    else:
        heard.say("rest" if parser.is_between else "more")
    return heard.events


def read_answer(
    parser: ResponseParser, pieces: Sequence[bytes], *, is_head: bool
) -> tuple[list[Event], bool]:
    """What one answer's bytes tell, and whether the connection may be asked again."""
    heard = Heard()
    parser.expect(heard, is_head=is_head)
    raw: bytes | None = None
    try:
        for piece in pieces:
            if raw is None:
                raw = parser.feed(piece)
            else:
                raw += piece
    except Malformed:
        heard.say("malformed")
        return heard.events, False
    if raw is not None:
        heard.say("raw", raw)
        return heard.events, False
    is_whole = bool(heard.events) and heard.events[-1][0] == "end"
    if not is_whole:
        heard.say("more")
    finals = [event[1] for event in heard.events if event[0] == "answer"]
    return heard.events, is_whole and finals[-1].head.keep_alive


def last_request(told: Sequence[Event]) -> RequestHead:
    """The last head among what was told."""
    heads = [event[1].head for event in told if event[0] == "request"]
    found: RequestHead = heads[-1]
    return found


def shape(events: Sequence[Event]) -> tuple[Any, ...]:
    """The kinds of what was told: inputs of a new shape are worth keeping."""
    kinds: list[Any] = []
    for event in events:
        if isinstance(event[-1], Request):
            head = event[-1].head
            framing = min(head.length, 2), head.version_1_0, head.keep_alive, head.expect
            special = ",".join(sorted(name.decode("latin-1") for name in head.special or ()))
            kinds.append((*framing, head.upgrade is None, special, len(head.fields) // STRIDE > 2))
        elif isinstance(event[-1], Answer):
            answer = event[-1].head
            framing = answer.chunked, answer.to_end, answer.keep_alive, answer.version_1_0
            kinds.append((answer.status // 100, *framing, answer.event_stream))
        elif event[0] == "malformed":
            kinds.append(event)
        else:
            kinds.append(event[0])
    return tuple(kinds[:12])


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """The same bytes in other pieces; which ones, the bytes themselves decide."""
    if not data:
        yield []
        return
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    draw = random.Random(zlib.crc32(data))
    for count in (1, 3, 8):
        places = sorted(draw.randrange(len(data) + 1) for _ in range(count))
        pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
        yield [piece for piece in pieces if piece]


_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?[ \t]*").fullmatch


def check_fields(fields: Sequence[bytes]) -> None:
    """Nothing in a list of fields can end a line or begin another one."""
    assert len(fields) % STRIDE == 0
    for index in range(0, len(fields), STRIDE):
        name, colon, value, end = fields[index : index + STRIDE]
        assert _NAME(name), f"a header's name is {name!r}"
        assert _VALUE(value), f"a header's value is {value!r}"
        assert (colon, end) == (b": ", b"\r\n")
