"""Targets and hosts: every form is brought to one that reads the same again, or refused.

An input is a method, a target and a Host with zeros between.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from urllib.parse import urlsplit

from proxy.http1 import target
from proxy.http1.message import Malformed, RequestHead

A_WHILE = 120_000
TOKENS = (
    *(b"http://", b"https://", b"HTTP://", b"//", b"/", b"?", b"*", b"@", b":", b":80", b"[::1]"),
    *(b"[", b"]", b"a.b", b" ", b"\t", b",", b"%00", b"\\", b"OPTIONS\x00*\x00a", b"..", b";"),
)
_HOST = re.compile(rb"(?:[\w.~%!$&'()*+;=-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?").fullmatch


def seeds() -> list[bytes]:
    return [
        b"GET\x00/\x00a.b:80",
        b"GET\x00http://a/b?c\x00d",
        b"GET\x00https://[::1]:8?c/d\x00d",
        b"OPTIONS\x00*\x00a",
        b"OPTIONS\x00http://a:1\x00b",
        b"GET\x00/\x00[::1]:8080",
        b"GET\x00\x00",
    ]


def run(data: bytes) -> Hashable:
    method, wanted, host = [*data.split(b"\x00", 2), b"", b""][:3]
    head = RequestHead(method, wanted, [])
    head.host = host
    try:
        target.settle(head)
    except Malformed as bad:
        return bad.sentence, bad.status
    _check(head, wanted, host)
    again = RequestHead(method, head.target, [])
    again.host = head.host
    target.settle(again)
    assert (again.host, again.target) == (head.host, head.target), "it changes once more"
    return wanted[:1], head.target[:1], host == head.host, b"[" in head.host


def _check(head: RequestHead, wanted: bytes, host: bytes) -> None:
    assert head.host or wanted == b"*", "a request without a host passed as one of HTTP/1.1"
    assert _HOST(head.host), f"the host is {head.host!r}"
    assert head.target == b"*" or head.target[:1] == b"/"
    if wanted[:1] == b"/":
        assert (head.target, head.host) == (wanted, host.strip(b" \t"))
    elif wanted != b"*":
        split = urlsplit(wanted.decode("latin-1"))
        assert split.scheme in {"http", "https"}
        if not re.search(rb"[\t\r\n#]", wanted):  # urlsplit drops these; the parser refuses them
            assert split.netloc.encode() == head.host, f"{wanted!r} names {head.host!r}"
