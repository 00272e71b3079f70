"""The proxy's own answers: short, explained, in the form the client likes, and without our insides.

They carry Proxy-Status (RFC 9209) and the request's id. `no-store` makes a `Vary` needless.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache

from proxy.dataplane.header_rules import own_lines
from proxy.dataplane.page import OUR_PAGE, PageTemplate
from proxy.errors import Fault
from proxy.http1 import accept, encode
from proxy.http1.headers import CRLF, list_of
from proxy.http1.message import RequestHead
from proxy.model import HeaderRules, Page, Redirect

RETRY_AFTER_S = 1
NO_RULES = HeaderRules()

_OFFERS = (accept.TEXT, accept.JSON, accept.HTML)
_OFFERS_WITH_PAGE = (accept.HTML, accept.TEXT, accept.JSON)


class OwnAnswers:
    """What a service has to say about the answers that we give in its place."""

    __slots__ = ("_pages", "lines")

    def __init__(self, pages: Iterable[Page] = (), rules: HeaderRules = NO_RULES) -> None:
        self._pages = {page.status: PageTemplate(page.html) for page in pages}
        self.lines = own_lines(rules)
        """Header lines to be added to each."""

    def page(self, status: int) -> PageTemplate | None:
        """The page of that very status, else of those that begin so, else of all."""
        pages = self._pages
        if not pages:
            return None
        return (
            pages.get(status) or pages.get(status // 10) or pages.get(status // 100) or pages.get(0)
        )


NOBODYS = OwnAnswers()
"""For answers that belong to no service."""


def own_answer(
    fault: Fault,
    request_id: bytes,
    head: RequestHead | None,
    *,
    keep_alive: bool,
    wall: float,
    own: OwnAnswers = NOBODYS,
) -> bytes:
    """The whole answer, head and body; `head` is None when the request could not be read.

    What such a request says of itself is not to be relied on, so it is answered in plain text.
    """
    kind, body = _content(fault, request_id, head, own)
    parts = [
        encode.status_line(fault.status, encode.reason_of(fault.status)),
        b"Content-Type: %b\r\nContent-Length: %d\r\n" % (kind, len(body)),
        b"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n",
        b"Proxy-Status: turnout; error=%b\r\n" % fault.error.encode(),
    ]
    if fault.status in {429, 503}:
        parts.append(b"Retry-After: %d\r\n" % RETRY_AFTER_S)
    parts.append(own.lines)
    _end(parts, request_id, head, body, keep_alive=keep_alive, wall=wall)
    return b"".join(parts)


def redirection(
    redirect: Redirect, request_id: bytes, head: RequestHead, *, keep_alive: bool, wall: float
) -> bytes:
    """The answer that sends a client to the same host and target by https."""
    body = b"This is served by https.\n"
    parts = [
        encode.status_line(redirect.status, encode.reason_of(redirect.status)),
        b"Location: %b\r\n" % https_place(redirect, head),
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n" % len(body),
    ]
    _end(parts, request_id, head, body, keep_alive=keep_alive, wall=wall)
    return b"".join(parts)


def https_place(redirect: Redirect, head: RequestHead) -> bytes:
    """The URL; `OPTIONS *` is written as the one without a path (RFC 9112 section 3.2.4)."""
    host = head.host
    name = host[: host.find(b"]") + 1] if host[:1] == b"[" else host.partition(b":")[0]
    port = b"" if redirect.port == 443 else b":%d" % redirect.port
    return b"https://%b%b%b" % (name, port, b"" if head.target == b"*" else head.target)


def _content(
    fault: Fault, request_id: bytes, head: RequestHead | None, own: OwnAnswers
) -> tuple[bytes, bytes]:
    """Content type and body."""
    page = own.page(fault.status)
    liked = accept.TEXT
    if head is not None:
        offers = _OFFERS if page is None else _OFFERS_WITH_PAGE
        liked = accept.best(list_of(head.fields, b"accept"), offers)
    if liked is accept.JSON:
        return b"application/problem+json", _problem(fault, request_id)
    if liked is accept.HTML:
        return b"text/html; charset=utf-8", (page or OUR_PAGE).filled(fault, request_id)
    reason = encode.reason_of(fault.status)
    text = (fault.status, reason, fault.sentence.encode(), request_id)
    return b"text/plain; charset=utf-8", b"%d %b\n%b\nRequest id: %b\n" % text


def _problem(fault: Fault, request_id: bytes) -> bytes:
    return json.dumps(
        {
            "type": "about:blank",
            "title": encode.reason_of(fault.status).decode(),
            "status": fault.status,
            "detail": fault.sentence,
            "request_id": request_id.decode("latin-1"),
        }
    ).encode()


def _end(
    parts: list[bytes],
    request_id: bytes,
    head: RequestHead | None,
    body: bytes,
    *,
    keep_alive: bool,
    wall: float,
) -> None:
    parts.append(b"X-Request-ID: %b\r\nDate: %b\r\n" % (request_id, _date(int(wall))))
    parts.append(encode.VIA)
    if not keep_alive:
        parts.append(encode.CLOSE)
    elif head is not None and head.version_1_0:
        parts.append(encode.KEEP_ALIVE)
    parts.append(CRLF)
    if head is None or head.method != b"HEAD":
        parts.append(body)


@lru_cache(maxsize=4)
def _date(wall: int) -> bytes:
    return formatdate(wall, usegmt=True).encode()
