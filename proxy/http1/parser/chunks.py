"""A chunked body to its bytes and its trailers (RFC 9112 section 7.1), strictly and bounded.

Written by hand, for llhttp takes a size of 64 bits, which is below nothing to some, any
extension as long as it comes in one read, and no blank before an extension, which is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, auto

from proxy.http1.headers import COLON, CRLF, STRIDE, Fields
from proxy.http1.message import Malformed
from proxy.http1.parser.framing import MANY_CHUNKS, MAX_LENGTH, MAX_TRAILERS, OVERHEAD

MAX_CHUNK_LINE = 4096
"""Bytes of a chunk's size with its extensions; nobody is known to send a hundred."""

_LAST = b"0\r\n\r\n"
_DIGITS = b"0123456789abcdefABCDEF"
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_SIZE_LINE = re.compile(
    rb"0*+([0-9A-Fa-f]{0,16})"
    rb"(?:[ \t]*+;[ \t]*+%b(?:[ \t]*+=[ \t]*+(?:%b|%b))?)*+[ \t]*+" % (_TOKEN, _TOKEN, _QUOTED)
).fullmatch
_TRAILER_LINE = re.compile(rb"(%b):([\t -~\x80-\xff]*+)" % _TOKEN).fullmatch


class _Reads(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()


_SIZE, _DATA, _DATA_END, _TRAILER = _Reads


class Chunks:
    """One chunked body; `feed` it until it `is_whole`."""

    __slots__ = (
        "_body",
        "_left",
        "_line",
        "_max_trailers",
        "_overhead",
        "_reads",
        "_trailer_bytes",
        "is_whole",
        "trailers",
        "was_costly",
    )

    def __init__(self, body: Callable[[bytes], None], max_trailers: int) -> None:
        self._body = body
        self._max_trailers = max_trailers  # in bytes
        self._reads = _SIZE
        self._line = b""  # as far as it has come, when it comes in pieces
        self._left = 0  # bytes of the chunk to come
        self._overhead = 0  # bytes of framing that carried nothing
        self._trailer_bytes = 0
        self.trailers: Fields = []
        self.is_whole = False
        self.was_costly = False
        """The last read had so many chunks that others should have their turn."""

    def feed(self, data: bytes, at: int) -> int:
        """Read `data` from there; returns the position behind the body, or its end.

        What it holds is told at once, as one: a body in chunks of one byte would cost a hundred
        times its size while it waits for its endpoint.
        """
        size = len(data)
        pieces: list[bytes] = []
        try:
            while at < size and not self.is_whole:
                if self._reads is _DATA:
                    end = min(size, at + self._left)
                    self._left -= end - at
                    pieces.append(data if not at and end == size else data[at:end])
                    at = end
                    if not self._left:
                        at = self._end_data(data, at)
                elif self._reads is _SIZE and not self._line and data.startswith(_LAST, at):
                    self.is_whole = True  # the usual end, without trailers
                    at += len(_LAST)
                else:
                    at = self._read_line(data, at)
        finally:
            self.was_costly = len(pieces) > MANY_CHUNKS
            if pieces:
                self._body(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        return at

    def _end_data(self, data: bytes, at: int) -> int:
        if data.startswith(CRLF, at):
            self._reads = _SIZE
            return at + 2
        self._reads = _DATA_END  # the line end has yet to come, or is none
        return at

    def _read_line(self, data: bytes, at: int) -> int:
        end = data.find(CRLF, at)
        begun = self._line
        if begun[-1:] == b"\r" and data[at : at + 1] == b"\n":
            line, end = begun[:-1], at - 1
        elif end < 0:
            self._line += data[at:]
            self._bound(self._line)
            return len(data)
        else:
            line = begun + data[at:end]
        self._line = b""
        if self._reads is _SIZE:
            self._read_size(line)
        elif self._reads is _TRAILER:
            self._read_trailer(line)
        elif line:
            raise Malformed("a chunk does not end where its size says")
        else:
            self._reads = _SIZE
        return end + 2

    def _bound(self, line: bytes) -> None:
        """Refuse a line that goes on as none may."""
        if self._reads is _DATA_END and line != b"\r":
            raise Malformed("a chunk does not end where its size says")
        if b"\n" in line:
            raise Malformed("a line between the chunks ends with a bare LF")
        if self._reads is _TRAILER:
            self._bound_trailers(line)
        elif len(line) > MAX_CHUNK_LINE:
            raise Malformed("the extensions of a chunk are too long")

    def _read_size(self, line: bytes) -> None:
        left = self._left = _size_of(line)
        if not left:
            self._reads = _TRAILER
            return
        self._reads = _DATA
        self._overhead = max(0, self._overhead + len(line) + 4 - OVERHEAD * left)
        if self._overhead > self._max_trailers:
            raise Malformed("there is more around the chunks than in them")

    def _read_trailer(self, line: bytes) -> None:
        if not line:
            self.is_whole = True
            return
        self._bound_trailers(line)
        self._trailer_bytes += len(line) + 2
        match = _TRAILER_LINE(line)
        if match is None:
            raise Malformed("a trailer is malformed")
        self.trailers += (match[1], COLON, match[2].strip(b" \t"), CRLF)
        if len(self.trailers) > MAX_TRAILERS * STRIDE:
            raise Malformed(f"there are more than {MAX_TRAILERS} trailers", 431)

    def _bound_trailers(self, line: bytes) -> None:
        if self._trailer_bytes + len(line) > self._max_trailers:
            raise Malformed(f"the trailers are larger than {self._max_trailers} bytes", 431)


def _size_of(line: bytes) -> int:
    if 0 < len(line) < 16 and not line.translate(None, _DIGITS):
        return int(line, 16)  # as most are: no extension, and below MAX_LENGTH
    match = _SIZE_LINE(line)
    if match is None or not line[:1].isalnum() or len(line) > MAX_CHUNK_LINE:
        raise Malformed("the size of a chunk is none")
    size = int(match[1] or b"0", 16)
    if size > MAX_LENGTH:
        raise Malformed("the size of a chunk is beyond all measure")
    return size
