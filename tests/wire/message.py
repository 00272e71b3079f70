"""Messages as both ends of the wire read them: strictly, by hand, from the bytes so far."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

Framing = Literal["none", "length", "chunked", "end"]

_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^\x00-\x20\x7f]+ HTTP/1\.1")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9][0-9][0-9]) [\t -~\x80-\xff]*")
_FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*"
    rb"([\x21-\x7e\x80-\xff](?:[\t -~\x80-\xff]*[\x21-\x7e\x80-\xff])?|)[ \t]*"
)
_SIZE = re.compile(rb"[0-9a-fA-F]{1,16}")


class UnreadableError(Exception):
    """What came is no HTTP message in its one plain form."""


@dataclass(slots=True)
class Message:
    first: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    framing: Framing = "none"
    is_whole: bool = True

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]

    @property
    def status(self) -> int:
        return int(self.first[9:12]) if self.first.startswith(b"HTTP/") else 0

    @property
    def closes(self) -> bool:
        return self.framing == "end" or [v.lower() for v in self.values(b"connection")] == [
            b"close"
        ]

    def sorted(self) -> list[tuple[bytes, bytes]]:
        """The fields; those of one name keep their order, which alone means something."""
        return sorted(self.fields, key=lambda pair: pair[0].lower())


def read_message(data: bytes, *, no_body: bool = False, ended: bool = False) -> tuple[Message, int]:
    """The first message of `data`, and how many bytes it took; less than whole says so.

    Raises UnreadableError, and ValueError while the head is not whole.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        raise ValueError("the head is not whole")
    first, *lines = data[:end].split(b"\r\n")
    is_answer = first.startswith(b"HTTP/")
    if (_STATUS_LINE if is_answer else _REQUEST_LINE).fullmatch(first) is None:
        raise UnreadableError(f"first line {first!r}")
    message = Message(first, [_field(line) for line in lines])
    lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise UnreadableError(f"two framings: {lengths} {codings}")
    at = end + 4
    has_none = no_body or message.status // 100 == 1 or message.status in {204, 304}
    if has_none or not (is_answer or lengths or codings):
        return message, at
    if codings:
        if codings != [b"chunked"]:
            raise UnreadableError(f"transfer coding {codings}")
        message.framing = "chunked"
        at = _read_chunks(message, data, at)
    elif lengths:
        message.framing = "length"
        if not lengths[0].isdigit():
            raise UnreadableError(f"length {lengths}")
        size = int(lengths[0])
        message.body = data[at : at + size]
        at += size
        message.is_whole = at <= len(data)
    else:
        message.framing = "end"
        message.body = data[at:]
        at = len(data)
        message.is_whole = ended
    return message, at


def _read_chunks(message: Message, data: bytes, at: int) -> int:
    message.is_whole = False
    while (end := data.find(b"\r\n", at)) >= 0:
        if _SIZE.fullmatch(data[at:end]) is None:
            raise UnreadableError(f"chunk size {data[at:end]!r} in {data!r}")
        size = int(data[at:end], 16)
        at = end + 2
        if not size:
            return _read_trailers(message, data, at)
        message.body += data[at : at + size]
        if data[at + size : at + size + 2] != b"\r\n"[: max(0, len(data) - at - size)]:
            raise UnreadableError("a chunk without its end")
        at += size + 2
        if at > len(data):
            break
    return at


def _read_trailers(message: Message, data: bytes, at: int) -> int:
    while (end := data.find(b"\r\n", at)) >= 0:
        if end == at:
            message.is_whole = True
            return end + 2
        message.trailers.append(_field(data[at:end]))
        at = end + 2
    return at


def _field(line: bytes) -> tuple[bytes, bytes]:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise UnreadableError(f"header line {line!r}")
    return match[1], match[2]
