"""Answers beside h11: what we accept it accepts too, and reads the same of it.

The first byte of an input says whether the request was a HEAD.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import h11

from proxy.http1.parser import ResponseParser
from tests.fuzz import beside_h11, reading
from tests.fuzz.beside_h11 import Explained, Message, Reading

A_WHILE = 33_000
TOKENS = reading.TOKENS
_ABOUT_AN_EMPTY_LINE = ("no response line received", "illegal status line: bytearray(b'\\r")
_HEADERS = [(b"host", b"a"), (b"connection", b"upgrade"), (b"upgrade", b"websocket")]


def _is_framing_of_interim(_: bytes, ours: Reading, theirs: Reading) -> bool:
    first = ours.alone(theirs)
    is_interim = first is not None and first.start[0][:1] == b"1"
    return is_interim and theirs.refused in beside_h11.ABOUT_FRAMING


def _is_empty_line(_: bytes, __: Reading, theirs: Reading) -> bool:
    return theirs.refused.startswith(_ABOUT_AN_EMPTY_LINE)


EXPLAINED = (
    Explained(
        applies=_is_empty_line,
        why="An empty line before an answer, or a CR alone, is left over from the answer before. "
        "It carries nothing, and nothing of it is passed on.",
        example=b"\x00\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ),
    Explained(
        applies=_is_framing_of_interim,
        why="What 100 to 103 say about a body means nothing (RFC 9112 section 6.3, first rule), "
        "and is not passed on.",
        example=b"\x00HTTP/1.1 100 C\r\nTransfer-Encoding: x\r\n\r\nHTTP/1.1 204 N\r\n\r\n",
    ),
    Explained(
        applies=beside_h11.is_blank_before_extension,
        why=beside_h11.BLANK_BEFORE_EXTENSION,
        example=b"\x00HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 ;a=b\r\nok\r\n0\r\n\r\n",
    ),
    Explained(
        applies=beside_h11.is_framing_in_trailers,
        why=beside_h11.FRAMING_IN_TRAILERS,
        example=b"\x00HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        b"Transfer-Encoding: x\r\n\r\n",
    ),
)


def seeds() -> list[bytes]:
    return [bytes((is_head,)) + raw for raw, is_head in reading.answers_of_the_corpus()]


def run(data: bytes) -> Hashable:
    is_head, raw = bool(data and data[0] & 1), data[1:]
    told = reading.read_answer(ResponseParser(), [raw] if raw else [], is_head=is_head)[0]
    ours, theirs = beside_h11.whole(told), _theirs(raw, is_head=is_head)
    why = beside_h11.check(data, ours, theirs, EXPLAINED)
    return why, len(ours.messages), theirs.refused == "", reading.shape(told)[-4:]


def _theirs(data: bytes, *, is_head: bool) -> Reading:
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    reader.send(h11.Request(method=b"HEAD" if is_head else b"GET", target=b"/", headers=_HEADERS))
    reader.send(h11.EndOfMessage())
    reader.receive_data(data)
    messages: list[Message] = []
    head: Any = None
    body, is_ended = b"", False
    while True:
        try:
            event = reader.next_event()
            if event is h11.NEED_DATA and not is_ended and head is not None:
                is_ended = True
                reader.receive_data(b"")
                event = reader.next_event()
        except h11.RemoteProtocolError as error:
            return Reading(messages, str(error))
        if isinstance(event, h11.InformationalResponse):
            messages.append(beside_h11.of_h11(event, b""))
        elif isinstance(event, h11.Response):
            head, body = event, b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            messages.append(beside_h11.of_h11(head, body))
            return Reading(messages, "")
        else:
            return Reading(messages, "")
