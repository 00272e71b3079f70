"""What both parsers read and refuse alike: headers of framing, their lengths, and trailers."""

from __future__ import annotations

import httptools

from proxy.http1.headers import (
    STRIDE,
    TRAILERS_REFUSED,
    Fields,
    is_of_family,
)
from proxy.http1.message import Malformed

MAX_TRAILERS = 100
MAX_LENGTH = 2**63 - 1
"""What a signed 64-bit integer holds: beyond it, lengths turn negative for some."""
OVERHEAD = 16
"""Bytes of framing let pass for each byte of a chunked body. Chunks of one byte have five;
chunk extensions without end would cost us much and the endpoint nothing."""
MANY_CHUNKS = 2048
"""Chunks in one read that are work enough for one turn: they take half a millisecond."""
CONTROLS = bytes(range(9)) + bytes(range(10, 32)) + b"\x7f"


def split_at(data: bytes, at: int) -> tuple[bytes, bytes]:
    return data[:at], data[at:]


def length_of(value: bytes) -> int:
    length = int(value)  # llhttp has let digits only pass, and blanks behind them
    if length > MAX_LENGTH:
        raise Malformed("the Content-Length is beyond all measure")
    return length


def collected(special: dict[bytes, bytes] | None, lower: bytes, value: bytes) -> dict[bytes, bytes]:
    """Add a header that is read and not passed on; one that is repeated becomes a list."""
    if special is None:
        return {lower: value}
    if lower in special:
        if lower == b"transfer-encoding":
            raise Malformed("there are several Transfer-Encoding headers")
        value = special[lower] + b", " + value
    special[lower] = value
    return special


def words(error: httptools.HttpParserError) -> str:
    return str(error).lower() or type(error).__name__


def checked_trailers(trailers: Fields) -> Fields | None:
    if len(trailers) > MAX_TRAILERS * STRIDE:
        raise Malformed(f"there are more than {MAX_TRAILERS} trailers", 431)
    kept: Fields = []
    for index in range(0, len(trailers), STRIDE):
        lower = trailers[index].lower()
        if lower not in TRAILERS_REFUSED and not is_of_family(lower):
            kept += trailers[index : index + STRIDE]
    return kept or None
