"""What the parsers remember of a connection changes their speed and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http1.headers import Fields
from proxy.http1.message import Malformed, ResponseHead
from proxy.http1.parser import RequestParser, ResponseParser, WholeAnswer

Read = Callable[..., list[str]]

HERE = Path(__file__).parent
REQUESTS = sorted((HERE / "requests").rglob("*.http"))
ANSWERS = sorted((HERE / "responses").rglob("*.http"))
HEADERS = b"Host: a\r\nUser-Agent: me\r\nCookie: x=1\r\n\r\n"


def named(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


@pytest.mark.parametrize("path", REQUESTS, ids=named)
def test_a_request_is_told_the_same_when_its_headers_were_read_before(
    path: Path, read_requests: Read
) -> None:
    raw = path.read_bytes()
    once = read_requests([raw])
    _, _, headers = raw.partition(b"\r\n")
    before = b"GET /before HTTP/1.1\r\n" + headers
    told_before = read_requests([before])
    if told_before and told_before[-1] == "end" and "last" not in told_before[0]:
        assert read_requests([before, raw]) == told_before + once


@settings(max_examples=300)
@given(
    line=st.one_of(
        st.binary(max_size=40),
        st.tuples(
            st.sampled_from([b"GET", b"HEAD", b"POST", b"CONNECT", b"PRI", b"get", b"SOURCE"]),
            st.sampled_from([b" ", b"  ", b"\t", b""]),
            st.sampled_from([b"/", b"/a?b", b"/#f", b"*", b"http://b/", b"/\x80", b"", b"/a b"]),
            st.sampled_from([b" HTTP/1.1", b" HTTP/1.0", b" HTTP/1.1 ", b"", b" HTTP/2.0"]),
        ).map(b"".join),
    )
)
def test_any_request_line_over_known_headers_is_judged_as_over_unknown_ones(line: bytes) -> None:
    raw = line + b"\r\n" + HEADERS
    told_fresh, told_known = Lines(), Lines()
    fresh = RequestParser(told_fresh, 4096, 100)
    known = RequestParser(told_known, 4096, 100)
    known.feed(b"GET /before HTTP/1.1\r\n" + HEADERS)
    told_known.lines.clear()
    outcomes = []
    for parser in (fresh, known):
        try:
            outcomes.append(("early", parser.feed(raw)))
        except Malformed as bad:
            outcomes.append(("malformed", bad.status.to_bytes(2)))
    assert outcomes[0] == outcomes[1]
    assert told_fresh.lines == told_known.lines


class Lines:
    """A sink of both parsers."""

    def __init__(self) -> None:
        self.lines: list[object] = []

    def request_head(self, head: object) -> None:
        names = ("method", "target", "host", "cookie", "length", "keep_alive", "fields")
        self.lines.append([getattr(head, name) for name in names])

    def request_body(self, data: bytes) -> None:
        self.lines.append(data)

    def request_end(self, trailers: Fields | None) -> None:
        self.lines.append(("end", trailers))

    def response_interim(self, head: ResponseHead) -> None:
        self.lines.append(("interim", head.status))

    def response_head(self, head: ResponseHead) -> None:
        self.head = head

    def response_body(self, data: bytes) -> None:
        self.lines.append(data)

    def response_end(self, trailers: Fields | None) -> None:
        self.lines.append(("end", trailers))


@pytest.mark.parametrize("path", ANSWERS, ids=named)
def test_an_answer_taken_whole_is_the_answer_that_is_read_step_by_step(path: Path) -> None:
    raw = path.read_bytes()
    whole = ResponseParser()
    answers = []
    for _ in range(3):  # the second and third time the head is a known one
        whole.expect(Lines(), is_head=path.stem.startswith("head_"))
        answers.append(_copied(whole.whole(raw)))
        if answers[-1] is None:
            return
    assert answers[0] == answers[1] == answers[2]
    assert answers[0] is not None
    status, line, block, body, keep_alive = answers[0]
    told = Lines()
    stepwise = ResponseParser()
    stepwise.expect(told, is_head=False)
    assert stepwise.feed(raw) is None
    assert told.lines == [*([body] if body else []), ("end", None)]
    head = told.head
    assert (head.status, head.keep_alive, head.length) == (status, keep_alive, len(body))
    assert line.split(b" ", 2)[2:] in ([head.reason + b"\r\n"], [])
    lines = [x for x in block.split(b"\r\n") if x and not x.lower().startswith(b"content-length")]
    assert [x.replace(b" ", b"") for x in lines] == [
        x.replace(b" ", b"") for x in b"".join(head.fields).split(b"\r\n") if x
    ]


def _copied(answer: WholeAnswer | None) -> tuple[int, bytes, bytes, bytes, bool] | None:
    if answer is None:
        return None
    return answer.status, answer.line, answer.block, answer.body, answer.keep_alive


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokX",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-a\r\nX-A: 1\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\nb\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 O\x01K\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 304 N\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 103 E\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_what_needs_a_closer_look_is_never_taken_whole(raw: bytes) -> None:
    parser = ResponseParser()
    parser.expect(Lines(), is_head=False)
    assert parser.whole(raw) is None
