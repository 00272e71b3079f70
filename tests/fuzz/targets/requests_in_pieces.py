"""Requests: any bytes in any pieces tell only what the sink may hear, and the same every time."""

from __future__ import annotations

import re
from collections.abc import Hashable

from proxy.http1.headers import HEAD_END, HOP_BY_HOP
from tests.fuzz import reading
from tests.fuzz.reading import Event, Request

A_WHILE = 27_000
TOKENS = reading.TOKENS
_METHOD = re.compile(rb"[A-Z][A-Z0-9_-]*").fullmatch
_HOST = re.compile(rb"[!$%&'()*+,;=\[\]:.0-9A-Za-z_~-]*").fullmatch
_TARGET = re.compile(rb"(?:/|\*$)[!-\"$-~\x80-\xff]*").fullmatch


def seeds() -> list[bytes]:
    return reading.requests_of_the_corpus()


def run(data: bytes) -> Hashable:
    told: list[Event] | None = None
    for pieces in reading.cuts(data):
        now = reading.read_requests(pieces)
        if told is not None and not _alike(now, told):
            # A head of a method that llhttp does not know is judged when it has ended.
            later = [reading.read_requests([*each, HEAD_END]) for each in (pieces, [data])]
            assert _alike(*later), f"one by one or whole it tells\n{now}\n{told}"
        told = now
    told = told or []
    _check_order(told)
    _check_again(data, told)
    return reading.shape(told)


def _alike(one: list[Event], other: list[Event]) -> bool:
    """The same, but a head that is too large and malformed is refused as whichever is seen first."""
    if one[-1][0] == other[-1][0] == "malformed" and {one[-1][1], other[-1][1]} & {414, 431}:
        return one[:-1] == other[:-1]
    return one == other


def _check_order(told: list[Event]) -> None:
    """A head, its body, its end; then the next head: and every part is what it may be."""
    open_request: Request | None = None
    got = 0
    for event in told:
        kind = event[0]
        if kind == "request":
            assert open_request is None, "a request begins inside another one"
            open_request, got = event[1], 0
            _check_head(open_request)
        elif kind == "body":
            assert open_request is not None, "a body without a request"
            got += len(event[1])
        elif kind == "end":
            assert open_request is not None, "an end without a request"
            length = open_request.head.length
            assert length in (got, -1), f"{got} bytes were told of a body of {length}"
            assert not event[1] or length == -1, "trailers without chunks"
            reading.check_fields(event[1])
            if not open_request.head.keep_alive:
                assert event is told[-2], "something is told behind the last request"
            open_request = None


def _check_head(told: Request) -> None:
    head = told.head
    assert _METHOD(head.method), f"the method is {head.method!r}"
    assert _TARGET(head.target), f"the target is {head.target!r}"
    assert _HOST(head.host), f"the host is {head.host!r}"
    assert head.host or head.version_1_0 or head.target == b"*"
    assert (head.length == -1) == head.chunked
    assert head.length >= -1
    reading.check_fields(head.fields)
    lower = {name.lower() for name in head.fields[::4]}
    assert not lower & HOP_BY_HOP
    dashed = {name.replace(b"_", b"-") for name in lower}
    assert not dashed & {b"host", b"content-length", b"transfer-encoding", b"cookie"}
    assert not dashed & {b"x-forwarded-for", b"x-forwarded-proto", b"forwarded", b"x-request-id"}
    if head.upgrade is not None:
        assert head.length == 0
        assert not head.version_1_0


def _check_again(data: bytes, told: list[Event]) -> None:
    """What was remembered of a request changes nothing for the next one."""
    if len(told) > 1 and told[-1] == ("rest",) and reading.last_request(told).keep_alive:
        twice = reading.read_requests([data, data])
        assert twice == [*told[:-1], *told], f"the second time it tells\n{twice}"
