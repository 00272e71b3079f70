"""Header rules of a service, made ready when a snapshot is applied: what is removed, then set.

They are for what passes between clients and endpoints. Interim answers are left as they are.
"""

from __future__ import annotations

import re

from proxy.http1 import encode
from proxy.http1.headers import STRIDE, Fields, without
from proxy.http1.message import RequestHead
from proxy.model import HeaderRules, Route, Service
from proxy.policy.routing import Router

_OURS = frozenset(
    {
        b"content-type",
        b"content-encoding",
        b"content-language",
        b"content-location",
        b"content-disposition",
        b"content-range",
        b"x-content-type-options",
        b"cache-control",
        b"expires",
        b"age",
        b"date",
        b"etag",
        b"last-modified",
        b"accept-ranges",
        b"location",
        b"retry-after",
    }
)
"""Headers that describe an answer: what a service says of its own is not true of ours."""

_Lines = tuple[tuple[bytes, bytes], ...]


def _set_by(rules: HeaderRules) -> _Lines:
    return tuple((name.encode(), value.encode()) for name, value in rules.set)


def _written(lines: _Lines) -> bytes:
    return b"".join(b"%b: %b\r\n" % line for line in lines)


def _replaced(rules: HeaderRules) -> frozenset[bytes]:
    """Lower-case names of what goes, because it is removed or set anew."""
    names = (*rules.remove, *(name for name, _ in rules.set))
    return frozenset(name.lower().encode() for name in names)


def _lines_of(names: frozenset[bytes]) -> re.Pattern[bytes]:
    """Finds the whole lines of these names; a fifth of the cost of looking at each of them."""
    any_of = b"|".join(re.escape(name) for name in sorted(names)) or b"(?!)"
    return re.compile(rb"^(?:%b):.*\n" % any_of, re.IGNORECASE | re.MULTILINE)


def own_lines(rules: HeaderRules) -> bytes:
    """What is set in the answers that we give in the service's place, too."""
    return _written(tuple(each for each in _set_by(rules) if each[0].lower() not in _OURS))


class AnswerRules:
    """For the heads, and the trailers, of endpoints' answers."""

    __slots__ = ("_in_block", "_names", "added")

    def __init__(self, rules: HeaderRules) -> None:
        self._names = _replaced(rules)
        self._in_block = _lines_of(self._names)
        self.added = _written(_set_by(rules))
        """Lines to be added."""

    def kept(self, fields: Fields) -> Fields:
        return without(fields, self._names)

    def kept_lines(self, block: bytes) -> bytes:
        """The same for whole lines, each with its end."""
        return self._in_block.sub(b"", block)


def answer_rules(rules: HeaderRules) -> AnswerRules | None:
    """None where there is nothing to be done."""
    return AnswerRules(rules) if rules.set or rules.remove else None


class RequestRules:
    """For the heads, and the trailers, of requests: headers, and the prefix that is left out."""

    __slots__ = ("_added", "_host", "_in_block", "_names", "_prefixes", "_router")

    def __init__(self, service: Service) -> None:
        rules = service.request_headers
        lines = _set_by(rules)
        self._host = next((value for name, value in lines if name.lower() == b"host"), None)
        self._added = _written(tuple(each for each in lines if each[0].lower() != b"host"))
        self._names = frozenset(name.replace(b"_", b"-") for name in _replaced(rules))
        self._in_block = _lines_of(self._names)
        self._prefixes = [_prefix(route) for route in service.routes]
        self._router: Router | None = None
        if any(self._prefixes):
            # Its own routes alone: what was routed here finds the same one among them.
            self._router = Router((route, index) for index, route in enumerate(service.routes))

    def request_head(self, head: RequestHead, cookie: bytes | None, added: bytes) -> bytes:
        """The head for an endpoint, as `encode.request_head`.

        `head` is what the client said, for the log and for another attempt. It is lent other
        words only while it is written: a copy of it costs 3 us.
        """
        target, host, fields = head.target, head.host, head.fields
        if head.special is not None:  # some of that comes back among the added lines
            added = self._in_block.sub(b"", added)
        prefix = self._prefix(head)
        if prefix:
            head.target = _without_prefix(target, prefix)
            added = _with_prefix(added, head, prefix)
        if b"cookie" in self._names:
            cookie = None
        head.fields = self.kept(fields)
        head.host = self._host or host
        try:
            return encode.request_head(head, cookie, added + self._added)
        finally:
            head.target, head.host, head.fields = target, host, fields

    def kept(self, fields: Fields) -> Fields:
        """Underscores count as hyphens: gateways read `X_User` and `X-User` as the same."""
        names = self._names
        if not names:
            return fields
        kept: Fields = []
        for index in range(0, len(fields), STRIDE):
            if fields[index].lower().replace(b"_", b"-") not in names:
                kept += fields[index : index + STRIDE]
        return kept

    def _prefix(self, head: RequestHead) -> bytes:
        """What the request's route leaves out of the target."""
        if self._router is None:
            return b""
        index = self._router.find(head.host, head.target)
        return self._prefixes[index] if index >= 0 else b""


def request_rules(service: Service) -> RequestRules | None:
    """None where there is nothing to be done."""
    rules = service.request_headers
    has_some = rules.set or rules.remove or any(_prefix(route) for route in service.routes)
    return RequestRules(service) if has_some else None


def _prefix(route: Route) -> bytes:
    return route.path.rstrip("/").encode() if route.strip_prefix else b""


def _without_prefix(target: bytes, prefix: bytes) -> bytes:
    """The rest of the target: nothing is decoded, and no segment resolved.

    It begins with one slash: `//evil.example` would be another host to whoever reads it as a URL.
    """
    return b"/" + target[len(prefix) :].lstrip(b"/")


def _with_prefix(added: bytes, head: RequestHead, prefix: bytes) -> bytes:
    """Say what was left out, behind what a trusted peer had left out before."""
    before = (head.special or {}).get(b"x-forwarded-prefix")
    if before is not None:
        line = b"x-forwarded-prefix: %b\r\n" % before
        if line in added:  # its word is passed on, so it is trusted
            added = added.replace(line, b"", 1)
            prefix = before + b", " + prefix
    return added + b"X-Forwarded-Prefix: %b\r\n" % prefix
