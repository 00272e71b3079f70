"""The header Forwarded (RFC 7239): what a chain of proxies says of a request, and what we add."""

from __future__ import annotations

import re

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_PAIR = re.compile(rb"[ \t]*+(?:(%b)=(%b|%b))?[ \t]*+([;,]|$)" % (_TOKEN, _TOKEN, _QUOTED)).match
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_PLAIN = re.compile(_TOKEN).fullmatch


class Forwarded:
    """What the header says; nothing when it is malformed anywhere, for then nobody knows what."""

    __slots__ = ("chain", "host", "proto", "value")

    def __init__(self, value: bytes) -> None:
        self.value = b""
        """The header as it came, when it is well-formed."""
        self.chain = b""
        """Those that it names with `for`, as X-Forwarded-For would list them."""
        self.host = b""
        """Of the last element, which is the one that our own peer has written."""
        self.proto = b""
        elements = _elements(value) if value else None
        if elements is None:
            return
        self.value = value
        self.chain = b", ".join(_bare(pairs[b"for"]) for pairs in elements if pairs.get(b"for"))
        self.host = elements[-1].get(b"host", b"")
        self.proto = elements[-1].get(b"proto", b"")


def element(peer: str, host: bytes, proto: bytes) -> bytes:
    """Our own element: who has sent us the request, with which Host, over what."""
    node = f'"[{peer}]"' if ":" in peer else peer or "unknown"
    name = host if _PLAIN(host) else b'"%b"' % host
    return b"for=%b;host=%b;proto=%b" % (node.encode(), name, proto)


def _elements(value: bytes) -> list[dict[bytes, bytes]] | None:
    elements: list[dict[bytes, bytes]] = []
    pairs: dict[bytes, bytes] = {}
    at, size = 0, len(value)
    while at < size:
        match = _PAIR(value, at)
        if match is None:
            return None
        name, said, end = match.groups()
        if name is not None:
            if name.lower() in pairs:  # section 4: each parameter once in an element
                return None
            pairs[name.lower()] = _unquoted(said)
        at = match.end()
        if end != b";" and pairs:
            elements.append(pairs)
            pairs = {}
    if pairs:
        elements.append(pairs)
    return elements or None


def _unquoted(said: bytes) -> bytes:
    return _ESCAPED.sub(rb"\1", said[1:-1]) if said[:1] == b'"' else said


def _bare(node: bytes) -> bytes:
    """An IPv6 address without its brackets, if it has no port: so X-Forwarded-For has it."""
    if b"," in node:
        return b"unknown"  # else it would be two
    return node[1:-1] if node[:1] == b"[" and node[-1:] == b"]" else node
