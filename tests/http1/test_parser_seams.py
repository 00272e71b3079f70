"""Where one message ends and the next begins: nothing is lost, added or taken for the other."""

from __future__ import annotations

import pytest

from proxy.http1.headers import Fields
from proxy.http1.message import Malformed, RequestHead, ResponseHead
from proxy.http1.parser import MAX_ANSWER_HEAD, RequestParser, ResponseParser

H2C = b"Host: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
SECOND = b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n"


def feed_often(parser: RequestParser | ResponseParser, piece: bytes, times: int) -> None:
    for _ in range(times):
        parser.feed(piece)


class Requests:
    def __init__(self, max_header: int = 32 * 1024) -> None:
        self.told: list[tuple[bytes, bytes]] = []
        self.ended = 0
        self.parser = RequestParser(self, max_header, 100)

    def request_head(self, head: RequestHead) -> None:
        self.told.append((head.target, b""))

    def request_body(self, data: bytes) -> None:
        target, body = self.told[-1]
        self.told[-1] = target, body + data

    def request_end(self, trailers: Fields | None) -> None:  # noqa: ARG002
        self.ended += 1


class Answer:
    def __init__(self, *, is_head: bool = False) -> None:
        self.heads: list[ResponseHead] = []
        self.body = b""
        self.is_ended = False
        self.parser = ResponseParser()
        self.parser.expect(self, is_head=is_head)

    def response_interim(self, head: ResponseHead) -> None:
        self.heads.append(head)

    def response_head(self, head: ResponseHead) -> None:
        self.heads.append(head)

    def response_body(self, data: bytes) -> None:
        self.body += data

    def response_end(self, trailers: Fields | None) -> None:  # noqa: ARG002
        self.is_ended = True


@pytest.mark.parametrize(
    "first",
    [
        b"POST /first HTTP/1.1\r\n" + H2C + b"Content-Length: 5\r\n\r\nhello",
        b"POST /first HTTP/1.1\r\n" + H2C + b"Transfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_request_behind_a_body_with_an_upgrade_to_h2c_is_read(first: bytes, size: int) -> None:
    sink = Requests()
    wire = first + SECOND * 2
    for start in range(0, len(wire), size):
        sink.parser.feed(wire[start : start + size])
    assert sink.told == [(b"/first", b"hello"), (b"/second", b""), (b"/second", b"")]
    assert sink.ended == 3


@pytest.mark.parametrize(
    "before",
    [
        b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n" + b"z" * 50_000,
        b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"c350\r\n" + b"z" * 50_000 + b"\r\n0\r\n\r\n",
        SECOND * 2000,
    ],
    ids=["length", "chunked", "pipelined"],
)
def test_a_head_is_not_charged_with_what_came_before_it_in_the_same_read(before: bytes) -> None:
    sink = Requests()
    sink.parser.feed(before + SECOND[:20])
    sink.parser.feed(SECOND[20:])
    assert sink.told[-1] == (b"/second", b"")


def test_a_head_that_grows_behind_another_message_is_refused_all_the_same() -> None:
    sink = Requests()
    sink.parser.feed(SECOND * 1000 + b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
    with pytest.raises(Malformed) as caught:
        feed_often(sink.parser, b"y" * 1024, 40)
    assert caught.value.status == 431


@pytest.mark.parametrize("piece", [b"X-More: and more\r\n", b"y" * 100], ids=["many", "one"])
def test_trailers_without_end_are_refused(piece: bytes) -> None:
    sink = Requests()
    sink.parser.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: a")
    with pytest.raises(Malformed) as caught:
        feed_often(sink.parser, piece, 4000)
    assert caught.value.status in {400, 431}


def test_a_long_body_of_small_chunks_is_no_trailer() -> None:
    sink = Requests()
    sink.parser.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(20_000):
        sink.parser.feed(b"2\r\nab\r\n")
    sink.parser.feed(b"0\r\n\r\n")
    assert sink.ended == 1


def test_a_body_behind_the_answer_to_head_is_never_passed_on() -> None:
    answer = Answer(is_head=True)
    with pytest.raises(Malformed):
        answer.parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nEVIL!")
    assert answer.is_ended
    assert answer.body == b""


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n"])
def test_an_answers_head_without_end_is_refused(start: bytes) -> None:
    answer = Answer()
    answer.parser.feed(start)
    piece = b"y" * 65_536 if start.endswith(b" ") else b"X: y\r\n" * 10_000
    with pytest.raises(Malformed):
        feed_often(answer.parser, piece, 2 + MAX_ANSWER_HEAD // len(piece))


def test_a_long_chunked_answer_is_read_to_its_end() -> None:
    answer = Answer()
    answer.parser.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(30):
        answer.parser.feed(b"10000\r\n")
        answer.parser.feed(b"y" * 0x10000 + b"\r\n")
    answer.parser.feed(b"0\r\n\r\n")
    assert answer.is_ended
    assert len(answer.body) == 30 * 0x10000
