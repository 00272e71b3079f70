"""What we write is read back as what it was, by another's parser and by ours."""

from __future__ import annotations

from collections.abc import Callable

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http1 import encode
from proxy.http1.message import RequestHead, ResponseHead

Read = Callable[..., list[str]]
ADDED = b"X-Request-ID: 1\r\n"


def head_of(**facts: object) -> RequestHead:
    head = RequestHead(b"POST", b"/x?y", [b"A", b": ", b"b", b"\r\n"])
    head.host = b"shop.example"
    for name, value in facts.items():
        setattr(head, name, value)
    return head


def test_a_request_head_is_one_request_with_what_was_added() -> None:
    assert encode.request_head(head_of(), None, ADDED) == (
        b"POST /x?y HTTP/1.1\r\nHost: shop.example\r\nA: b\r\n"
        b"X-Request-ID: 1\r\nVia: 1.1 turnout\r\n\r\n"
    )


def test_a_body_is_framed_by_what_was_parsed(read_requests: Read) -> None:
    length = encode.request_head(head_of(length=5), b"c=1", ADDED)
    assert b"\r\nCookie: c=1\r\nContent-Length: 5\r\n" in length
    assert "head POST /x?y host=shop.example length=5" in read_requests([length])
    chunked = encode.request_head(head_of(length=-1, chunked=True), None, ADDED)
    assert b"Content-Length" not in chunked
    body = b"".join(encode.chunk(b"hello")) + encode.last_chunk([b"T", b": ", b"u", b"\r\n"])
    assert read_requests([chunked + body])[-3:] == ["body 5 hello", "end", "  trailer T: u"]


def test_an_empty_body_that_was_said_is_said_again() -> None:
    told = encode.request_head(head_of(special={b"content-length": b"0"}), None, ADDED)
    assert told.count(b"Content-Length: 0\r\n") == 1
    assert b"Content-Length" not in encode.request_head(head_of(special={}), None, ADDED)


def test_expect_and_upgrade_are_passed_on() -> None:
    waiting = encode.request_head(head_of(special={}, expect=True, length=1), None, ADDED)
    assert b"Expect: 100-continue\r\n" in waiting
    tunnel = encode.request_head(head_of(special={}, upgrade=b"websocket"), None, ADDED)
    assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in tunnel
    plain = encode.request_head(head_of(special={b"upgrade": b"h2c"}), None, ADDED)
    assert b"pgrade" not in plain


def test_interim_and_switching_answers_are_passed_on(read_responses: Read) -> None:
    hints = ResponseHead(103, b"Early Hints", [b"Link", b": ", b"l", b"\r\n"])
    switch = ResponseHead(101, b"Switching Protocols", [])
    switch.upgrade = b"websocket"
    told = read_responses([encode.interim_head(hints) + encode.upgrade_head(switch) + b"raw"])
    assert told == [
        "interim 103 Early Hints",
        "  field Link: l",
        "interim 101 Switching Protocols upgrade=websocket",
        "  field Via: 1.1 turnout",
        "raw raw",
    ]


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5))
def test_chunks_are_read_back_by_another_parser(pieces: list[bytes]) -> None:
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(encode.request_head(head_of(length=-1), None, ADDED))
    for piece in pieces:
        reader.receive_data(b"".join(encode.chunk(piece)))
    reader.receive_data(encode.last_chunk(None))
    assert isinstance(reader.next_event(), h11.Request)
    body = b""
    while isinstance(event := reader.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert body == b"".join(pieces)


def test_status_lines_are_remembered_within_bounds() -> None:
    for count in range(3000):
        reason = b"Reason %d" % count
        assert encode.status_line(299, reason) == b"HTTP/1.1 299 %b\r\n" % reason
    assert encode.status_line(200, b"OK") is encode.status_line(200, b"OK")
    assert len(encode._lines) <= 1024


@pytest.mark.parametrize(("status", "reason"), [(200, b"OK"), (503, b"Service Unavailable")])
def test_a_reason_goes_with_its_status(status: int, reason: bytes) -> None:
    assert encode.reason_of(status) == reason


def test_a_status_that_nobody_knows_has_a_reason_all_the_same() -> None:
    assert encode.reason_of(799) == b"Unknown"
