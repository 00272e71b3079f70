"""Heads and chunks to bytes: what the proxy writes to endpoints and to clients."""

from __future__ import annotations

from http import HTTPStatus

from proxy.http1.headers import COLON, CRLF, Fields, may_upgrade
from proxy.http1.message import RequestHead, ResponseHead

VIA = b"Via: 1.1 turnout\r\n"
VIA_END = VIA + CRLF
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n"
KEEP_ALIVE = b"Connection: keep-alive\r\n"
CONTINUE = b"Expect: 100-continue\r\n"
LAST_CHUNK = b"0\r\n\r\n"

UPGRADE_REQUIRED = 426

_MAX_LINES = 1024
_lines: dict[tuple[int, bytes], bytes] = {}


def status_line(status: int, reason: bytes) -> bytes:
    r"""`HTTP/1.1 200 OK\r\n`; remembered, for there are few."""
    line = _lines.get((status, reason))
    if line is None:
        if len(_lines) >= _MAX_LINES:  # reasons come from endpoints
            _lines.clear()
        line = _lines[status, reason] = b"HTTP/1.1 %d %b\r\n" % (status, reason)
    return line


_RENAMED = {413: b"Content Too Large", 414: b"URI Too Long"}
"""By RFC 9110, which Python follows from 3.13 on."""


def reason_of(status: int) -> bytes:
    if status in _RENAMED:
        return _RENAMED[status]
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


def request_head(head: RequestHead, cookie: bytes | None, added: bytes) -> bytes:
    """The head for an endpoint; `added` are whole lines: forwarding, ids, the pool."""
    parts = [head.method, b" ", head.target, b" HTTP/1.1\r\nHost: ", head.host, CRLF]
    parts += head.fields
    if cookie:
        parts += (b"Cookie: ", cookie, CRLF)
    length = head.length
    if length > 0:
        parts.append(b"Content-Length: %d\r\n" % length)
    elif length < 0:
        parts.append(CHUNKED)
    special = head.special
    if special is not None:
        if length == 0 and b"content-length" in special:
            parts.append(b"Content-Length: 0\r\n")
        if head.expect:
            parts.append(CONTINUE)
        if head.upgrade is not None:
            parts += (b"Connection: Upgrade\r\nUpgrade: ", head.upgrade, CRLF)
    parts += (added, VIA, CRLF)
    return b"".join(parts)


def interim_head(head: ResponseHead) -> bytes:
    """An interim answer (1xx but 101), passed on."""
    return b"".join((status_line(head.status, head.reason), *head.fields, CRLF))


def upgrade_head(head: ResponseHead, added: bytes = b"") -> bytes:
    """The 101 that begins a tunnel; `added` are whole lines."""
    return b"".join(
        (
            status_line(101, head.reason),
            *head.fields,
            added,
            b"Connection: Upgrade\r\nUpgrade: ",
            head.upgrade or b"",
            CRLF,
            VIA,
            CRLF,
        )
    )


def special_fields(head: ResponseHead, special: dict[bytes, bytes], *, is_chunked: bool) -> Fields:
    """Of what a final answer says about one connection only, that which the client needs to know.

    426 without Upgrade would not say to what (RFC 9110 section 15.5.22); trailers that are
    passed on are announced as they were.
    """
    fields: Fields = []
    wanted = special.get(b"upgrade")
    if head.status == UPGRADE_REQUIRED and wanted is not None and may_upgrade(wanted):
        fields += (b"Connection: Upgrade\r\nUpgrade", COLON, wanted, CRLF)
    announced = special.get(b"trailer")
    if is_chunked and announced is not None:
        fields += (b"Trailer", COLON, announced, CRLF)
    return fields


def chunk(data: bytes) -> tuple[bytes, bytes, bytes]:
    return b"%x\r\n" % len(data), data, CRLF


def last_chunk(trailers: Fields | None) -> bytes:
    if not trailers:
        return LAST_CHUNK
    return b"".join((b"0\r\n", *trailers, CRLF))
