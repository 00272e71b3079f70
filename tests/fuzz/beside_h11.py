"""The same bytes, read by our parsers and by h11: what either makes of them, message by message."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import h11

from proxy.http1.headers import (
    LOOK_ALIKES,
    REQUEST_READ,
    STRIDE,
    is_of_family,
    named_by_connection,
)
from tests.fuzz.reading import Event

_SET_ASIDE = REQUEST_READ | LOOK_ALIKES
"""Not among the fields we pass on as they are; the framing they say shows in the body."""


class Message(NamedTuple):
    """One message that came whole, in words that both readers have."""

    start: tuple[bytes, ...]
    """Method, target and host, or the status."""
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Reading(NamedTuple):
    messages: list[Message]
    refused: str
    """Why what follows was refused; empty where it was not."""
    chunked: frozenset[int] = frozenset()
    """Which messages had chunks, and so perhaps trailers; said of our readings only."""

    def alone(self, theirs: Reading) -> Message | None:
        """The first message that the other has not."""
        at = len(theirs.messages)
        return self.messages[at] if at < len(self.messages) else None


ABOUT_FRAMING = {
    "Only Transfer-Encoding: chunked is supported",
    "multiple Transfer-Encoding headers",
    "bad Content-Length",
    "conflicting Content-Length headers",
}
"""What h11 says of framing headers; it says it of trailers and interim answers, too."""


class Explained(NamedTuple):
    """A difference that stays: who it is, why we are right, and bytes that show it."""

    applies: Callable[[bytes, Reading, Reading], bool]
    why: str
    example: bytes


def difference(ours: Reading, theirs: Reading) -> str:
    """Where we accept what h11 refuses, or where both accept and read differently."""
    for number, message in enumerate(ours.messages):
        if number >= len(theirs.messages):
            return (
                f"we read {message}, and h11 says: {theirs.refused or 'there is no such message'}"
            )
        if message != theirs.messages[number]:
            return f"we read {message}, and h11 {theirs.messages[number]}"
    return ""


def is_framing_in_trailers(_: bytes, ours: Reading, theirs: Reading) -> bool:
    return theirs.refused in ABOUT_FRAMING and len(theirs.messages) in ours.chunked


def is_blank_before_extension(data: bytes, _: Reading, theirs: Reading) -> bool:
    is_chunk = theirs.refused.startswith("illegal chunk header")
    return is_chunk and _BLANK_BEFORE_EXTENSION(data) is not None


BLANK_BEFORE_EXTENSION = (
    "Blanks may stand before the semicolon of a chunk's extension (RFC 9112 section 7.1.1); we "
    "write the size anew and pass no extension on."
)
_BLANK_BEFORE_EXTENSION = re.compile(rb"[0-9A-Fa-f][ \t]+;").search
FRAMING_IN_TRAILERS = (
    "Framing that stands in trailers means nothing: we neither obey it nor pass it on (RFC 9110 "
    "section 6.5.1)."
)


def check(data: bytes, ours: Reading, theirs: Reading, explained: tuple[Explained, ...]) -> str:
    """Assert that there is no difference but those explained; returns why it is explained."""
    found = difference(ours, theirs)
    if not found:
        return ""
    for each in explained:
        if each.applies(data, ours, theirs):
            return each.why
    raise AssertionError(found)


def whole(told: list[Event]) -> Reading:
    """The whole messages of what our parser told."""
    messages: list[Message] = []
    chunked: set[int] = set()
    head: Any = None
    body = b""
    for event in told:
        kind = event[0]
        if kind in {"request", "answer"}:
            head, body = event[1].head, b""
        elif kind == "interim":
            messages.append(_of_ours(event[1].head, b""))
        elif kind == "body":
            body = event[1]
        elif kind == "end" or (kind == "more" and getattr(head, "to_end", False)):
            if head.chunked:
                chunked.add(len(messages))
            messages.append(_of_ours(head, body))
    refused = "malformed" if told and told[-1][0] == "malformed" else ""
    return Reading(messages, refused, frozenset(chunked))


def _of_ours(head: Any, body: bytes) -> Message:
    names = head.fields[::STRIDE]
    values = head.fields[2::STRIDE]
    fields = [(n.lower(), v.strip(b" \t")) for n, v in zip(names, values, strict=True)]
    if hasattr(head, "method"):
        return Message((head.method, head.target, head.host), _compared(fields), body)
    return Message((b"%d" % head.status,), _compared(fields), body)


def _compared(fields: list[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(
        (name, value) for name, value in fields if name not in _SET_ASIDE and not is_of_family(name)
    )


def of_h11(event: h11.Request | h11.Response | h11.InformationalResponse, body: bytes) -> Message:
    fields = [(bytes(name), bytes(value)) for name, value in event.headers]
    named: set[bytes] = set()
    for name, value in fields:
        if name == b"connection":
            named |= named_by_connection(value)
    passed = _compared([(name, value) for name, value in fields if name not in named])
    if isinstance(event, h11.Request):
        host = dict(fields).get(b"host", b"")
        return Message((event.method, event.target, host), passed, body)
    return Message((b"%d" % event.status_code,), passed, body)
