"""The proxy's own answers: short, with Proxy-Status (RFC 9209) and the request's id."""

from __future__ import annotations

import json

from proxy.errors import Fault
from proxy.http1.encode import CLOSE, VIA, reason_of, status_line
from proxy.http1.headers import CRLF

RETRY_AFTER_S = 1


def own_answer(
    fault: Fault, request_id: bytes, *, is_head: bool, keep_alive: bool, json_wanted: bool
) -> bytes:
    """The whole answer, head and body."""
    if json_wanted:
        kind = b"application/problem+json"
        body = json.dumps(
            {
                "type": "about:blank",
                "title": reason_of(fault.status).decode(),
                "status": fault.status,
                "detail": fault.sentence,
                "request_id": request_id.decode("latin-1"),
            }
        ).encode()
    else:
        kind = b"text/plain; charset=utf-8"
        body = b"%d %b\n%b\nRequest id: %b\n" % (
            fault.status,
            reason_of(fault.status),
            fault.sentence.encode(),
            request_id,
        )
    parts = [
        status_line(fault.status, reason_of(fault.status)),
        b"Content-Type: %b\r\nContent-Length: %d\r\n" % (kind, len(body)),
        b"Cache-Control: no-store\r\nX-Request-ID: %b\r\n" % request_id,
        b"Proxy-Status: turnout; error=%b\r\n" % fault.error.encode(),
    ]
    if fault.status in {429, 503}:
        parts.append(b"Retry-After: %d\r\n" % RETRY_AFTER_S)
    parts.append(VIA)
    if not keep_alive:
        parts.append(CLOSE)
    parts.append(CRLF)
    if not is_head:
        parts.append(body)
    return b"".join(parts)
