"""Answers: any bytes in any pieces, one after the other on a connection, tell the same every time.

An input is a row of answers; a zero and a letter stand before each: H is one to a HEAD.
"""

from __future__ import annotations

import re
from collections.abc import Hashable

from proxy.http1.headers import HOP_BY_HOP
from proxy.http1.parser import ResponseParser
from tests.fuzz import reading
from tests.fuzz.reading import Event

A_WHILE = 22_000
TOKENS = (*reading.TOKENS, b"\x00H", b"\x00G")
_REFUSED = ("malformed",)
_BORDER = re.compile(rb"\x00([GH])")


def seeds() -> list[bytes]:
    made = [
        (b"\x00H" if is_head else b"\x00G") + raw
        for raw, is_head in reading.answers_of_the_corpus()
    ]
    return [*made, b"".join(made[-40:-30]), made[-3] * 3, made[-1] + made[-8] + made[-1]]


def run(data: bytes) -> Hashable:
    parts = _BORDER.split(data)[1:13]
    kept = ResponseParser()
    shapes = []
    for letter, raw in zip(parts[::2], parts[1::2], strict=True):
        is_head = letter == b"H"
        told = _read_alike(raw, is_head=is_head)
        _check_order(told, is_head=is_head)
        is_whole = _check_whole(kept, raw, told, is_head=is_head)
        shapes.append((is_whole, *reading.shape(told)))
        if not is_whole:
            now, may_go_on = reading.read_answer(kept, [raw] if raw else [], is_head=is_head)
            assert now == told, f"on a connection that was used it tells\n{now}\nand not\n{told}"
            if not may_go_on:
                break
    return tuple(shapes)


def _read_alike(raw: bytes, *, is_head: bool) -> list[Event]:
    results = [
        reading.read_answer(ResponseParser(), pieces, is_head=is_head)[0]
        for pieces in reading.cuts(raw)
    ]
    told = results[0]
    for other in results[1:]:
        # Blank lines behind an answer pass in one read with it, and are refused in the next.
        alike = other in (told, [*told, _REFUSED]) or told == [*other, _REFUSED]
        assert alike, f"told\n{told}\nand\n{other}"
    return told


def _check_order(told: list[Event], *, is_head: bool) -> None:
    final = None
    got = 0
    for event in told:
        kind = event[0]
        if kind == "interim":
            assert final is None, "an interim answer behind the final one"
            reading.check_fields(event[1].fields)
        elif kind == "answer":
            assert final is None, "two answers"
            final = event[1].head
            reading.check_fields(event[1].fields)
            assert not {name.lower() for name in event[1].fields[::4]} & HOP_BY_HOP
            assert final.reason.translate(None, b"\r\n\x00") == final.reason
        elif kind == "body":
            assert final is not None
            assert not is_head
            assert final.status not in {204, 304}
            got += len(event[1])
        elif kind == "end":
            assert final is not None
            assert not final.to_end
            reading.check_fields(event[1])
            if not is_head and final.status not in {204, 304}:
                assert final.chunked or final.length == got


def _check_whole(parser: ResponseParser, raw: bytes, told: list[Event], *, is_head: bool) -> bool:
    """What is taken whole is what would be told step by step."""
    parser.expect(reading.Heard(), is_head=is_head)
    whole = parser.whole(raw)
    if whole is None:
        return False
    head = told[0][1].head
    body = b"".join(event[1] for event in told if event[0] == "body")
    assert [event[0] for event in told] == ["answer", *(["body"] if body else []), "end"]
    assert (whole.status, whole.keep_alive, whole.body) == (head.status, head.keep_alive, body)
    assert head.length == len(body)
    lines = [line for line in whole.block.split(b"\r\n") if line]
    names = [line.partition(b":")[0].lower() for line in lines]
    assert names.count(b"content-length") == 1
    rest = [
        (name.lower(), value.strip(b" \t"))
        for name, _, value in (line.partition(b":") for line in lines)
        if name.lower() != b"content-length"
    ]
    fields = head.fields
    assert rest == [
        (fields[at].lower(), fields[at + 2].strip(b" \t")) for at in range(0, len(fields), 4)
    ]
    return True
