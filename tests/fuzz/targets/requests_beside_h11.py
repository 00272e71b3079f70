"""Requests beside h11: what we accept it accepts too, and reads the same of it.

Where we refuse and it does not, nobody is deceived: that is no finding.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import h11

from proxy.http1 import target
from proxy.http1.headers import named_by_connection
from proxy.http1.message import Malformed, RequestHead
from tests.fuzz import beside_h11, reading
from tests.fuzz.beside_h11 import Explained, Message, Reading
from tests.fuzz.reading import Event

A_WHILE = 45_000
TOKENS = reading.TOKENS
EXPLAINED = (
    Explained(
        applies=beside_h11.is_blank_before_extension,
        why=beside_h11.BLANK_BEFORE_EXTENSION,
        example=b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2 ;a=b\r\nok\r\n"
        b"0\r\n\r\n",
    ),
    Explained(
        applies=beside_h11.is_framing_in_trailers,
        why=beside_h11.FRAMING_IN_TRAILERS,
        example=b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        b"Content-Length: x\r\n\r\n",
    ),
)


def seeds() -> list[bytes]:
    return reading.requests_of_the_corpus()


def run(data: bytes) -> Hashable:
    ours, theirs = read(data)
    why = beside_h11.check(data, ours, theirs, EXPLAINED)
    return (
        why,
        len(ours.messages),
        bool(ours.refused),
        bool(theirs.refused),
        reading.shape(_told(data))[:4],
    )


def read(data: bytes) -> tuple[Reading, Reading]:
    return beside_h11.whole(_told(data)), _theirs(data)


def _told(data: bytes) -> list[Event]:
    told = reading.read_requests([data] if data else [], max_header=16384, max_headers=100)
    if (
        told[-1][0] == "raw" and reading.last_request(told).keep_alive
    ):  # as when the upgrade is refused
        told = [*told[:-1], *_told(told[-1][1])]
    return told


def _theirs(data: bytes) -> Reading:
    messages: list[Message] = []
    head: Any = None
    body = b""
    # Empty lines before a request are skipped by us alone (RFC 9112 section 2.2).
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(_skipped(data))
    while True:
        try:
            event = reader.next_event()
        except h11.RemoteProtocolError as error:
            return Reading(messages, str(error))
        if isinstance(event, h11.Request):
            head, body = event, b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            messages.append(_settled(beside_h11.of_h11(head, body)))
            rest = reader.trailing_data[0]
            reader.send(h11.Response(status_code=400, headers=[(b"content-length", b"0")]))
            reader.send(h11.EndOfMessage())
            is_done = reader.our_state is h11.DONE and reader.their_state is h11.DONE
            if not (is_done or _stays_with_1_0(head)):
                return Reading(messages, "")
            reader = h11.Connection(h11.SERVER)
            reader.receive_data(_skipped(rest))
        else:
            return Reading(messages, "")


def _stays_with_1_0(request: h11.Request) -> bool:
    """Whether a client of HTTP/1.0 keeps its connection; h11 would close it all the same."""
    wanted = [value for name, value in request.headers if name == b"connection"]
    named = named_by_connection(b",".join(wanted))
    return request.http_version == b"1.0" and b"keep-alive" in named and b"close" not in named


def _skipped(data: bytes) -> bytes:
    while data.startswith(b"\r\n"):
        data = data[2:]
    return data


def _settled(message: Message) -> Message:
    """The same in the form that we pass on."""
    head = RequestHead(message.start[0], message.start[1], [])
    head.host = message.start[2]
    try:
        target.settle(head)
    except Malformed:
        return message
    return message._replace(start=(head.method, head.target, head.host))
