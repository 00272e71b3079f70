"""Chunked bodies: their bytes and trailers in whatever pieces, and every line bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http1.message import Malformed
from proxy.http1.parser.chunks import MAX_CHUNK_LINE, Chunks

Splits = Callable[[bytes], Iterator[list[bytes]]]
Read = tuple[bytes, list[bytes], bytes]
"""Body, trailers (names and values in turn), and what follows."""


def read(pieces: list[bytes], max_trailers: int = 1024) -> Read | int:
    """What is read of these pieces; or the status that they deserve."""
    body: list[bytes] = []
    chunks = Chunks(body.append, max_trailers)
    rest = b""
    try:
        for piece in pieces:
            at = 0 if chunks.is_whole else chunks.feed(piece, 0)
            assert at == len(piece) or chunks.is_whole, "it stops at its end only"
            rest += piece[at:]
    except Malformed as bad:
        return bad.status
    assert chunks.is_whole or not rest
    trailers = [item for item in chunks.trailers if item not in (b": ", b"\r\n")]
    return b"".join(body), trailers, rest if chunks.is_whole else b"(more)"


@pytest.mark.parametrize(
    ("raw", "body", "trailers"),
    [
        (b"0\r\n\r\n", b"", []),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello", []),
        (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2, []),
        (b"0" * 40 + b"5\r\nhello\r\n000\r\n\r\n", b"hello", []),
        (b'5;a;b=c;d="e;\\"f"\r\nhello\r\n0;z\r\n\r\n', b"hello", []),
        (b"5 ; a = b\t;c\r\nhello\r\n0 \r\n\r\n", b"hello", []),
        (b"5\t \r\nhello\r\n0\r\n\r\n", b"hello", []),
        (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", []),
        (b"0\r\nA: 1\r\nB:\r\nA:\t2 3 \t\r\n\r\n", b"", [b"A", b"1", b"B", b"", b"A", b"2 3"]),
    ],
)
def test_a_body_is_read_the_same_in_whatever_pieces(
    raw: bytes, body: bytes, trailers: list[bytes], splits: Splits
) -> None:
    for pieces in splits(raw):
        assert read(pieces) == (body, trailers, b"")
    for pieces in splits(raw + b"GET /"):
        assert read(pieces) == (body, trailers, b"GET /")


@pytest.mark.parametrize(
    "raw",
    [
        *(b"\r\n", b" 5\r\n", b";a\r\n", b"5g\r\n", b"0x5\r\n", b"-5\r\n", b"+5\r\n", b"5_0\r\n"),
        *(b"5 5\r\n", b"5;\r\n", b"5;=a\r\n", b"5;a=\r\n", b'5;a="\r\n', b'5;a="b"c\r\n'),
        *(
            b"5\n",
            b"5\r",
            b"5\rhello\r\n",
            b"5;a\nb\r\n",
            b"5;a\rb\r\n",
            b"5;a\0\r\n",
            b"5\x0b\r\n",
        ),
        *(b"8000000000000000\r\n", b"ffffffffffffffff\r\n", b"10000000000000000\r\n"),
        *(
            b"5\r\nhelloXX",
            b"5\r\nhello\n",
            b"5\r\nhello\rX",
            b"5\r\nhello0\r\n",
            b"5\r\nhello, \r\n",
        ),
        *(
            b"0\r\nA\r\n",
            b"0\r\n: a\r\n",
            b"0\r\nA : a\r\n",
            b"0\r\n A: a\r\n",
            b"0\r\nA: a\r\n b\r\n",
        ),
        *(
            b"0\r\nA: \0\r\n",
            b"0\r\nA: a\nB: b\r\n",
            b"0\r\nA: a\rB: b\r\n",
            b"0\r\n\n",
            b"0\r\n\rX",
        ),
    ],
)
def test_what_is_no_chunk_is_refused_in_whatever_pieces(raw: bytes, splits: Splits) -> None:
    for pieces in splits(raw + b"\r\n0\r\n\r\n"):
        assert read(pieces) == 400


def test_the_small_chunks_of_one_read_are_told_as_one_piece_even_before_a_bad_one() -> None:
    told: list[bytes] = []
    chunks = Chunks(told.append, 1024)
    assert chunks.feed(b"1\r\na\r\n" * 1000, 0) == 6000
    with pytest.raises(Malformed):
        chunks.feed(b"2\r\nbc\r\n1\r\nd\r\nno size\r\n", 0)
    assert told == [b"a" * 1000, b"bcd"]


def test_a_line_is_bounded_while_it_goes_on_and_when_it_comes_at_once() -> None:
    just = b"1;" + b"a" * (MAX_CHUNK_LINE - 2)
    end = b"\r\nx\r\n0\r\n\r\n"
    for line, wanted in ((just, (b"x", [], b"")), (just + b"a", 400)):
        assert read([line + end], 8192) == wanted
        assert read([line[at : at + 1] for at in range(len(line))] + [end], 8192) == wanted
    assert read([b"1;" + b"a" * MAX_CHUNK_LINE]) == 400


def test_trailers_are_bounded_in_bytes_and_number() -> None:
    just = b"0\r\n" + b"A: 4567\r\n" * 3
    for raw, wanted in ((just, tuple), (just + b"A:\r\n", int)):
        single = [raw[at : at + 1] for at in range(len(raw))]
        for pieces in ([raw + b"\r\n"], [*single, b"\r\n"]):
            assert isinstance(read(pieces, max_trailers=27), wanted)
    assert read([just + b"A:"], max_trailers=27) == 431
    assert read([b"0\r\n" + b"A:\r\n" * 101]) == 431


def test_more_around_the_chunks_than_in_them_is_refused() -> None:
    assert read([b"1;" + b"a" * 60 + b"\r\nx\r\n"] * 100) == 400
    assert isinstance(read([b"1\r\nx\r\n"] * 10_000), tuple)
    assert isinstance(read([b"ff;" + b"a" * 60 + b"\r\n" + b"x" * 255 + b"\r\n"] * 100), tuple)


def by_h11(raw: bytes) -> bytes | None:
    """The body as h11 reads it; None while it does not."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + raw
    )
    body = b""
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                body += event.data
            elif not isinstance(event, h11.Request):
                return None
    except h11.RemoteProtocolError:
        return None
    return body


FRAGMENTS = (
    *(
        b"0",
        b"1",
        b"5",
        b"a",
        b"F",
        b"\r\n",
        b"\r",
        b"\n",
        b"hello",
        b";",
        b"a=b",
        b'"',
        b" ",
        b"\t",
    ),
    *(b"0\r\n\r\n", b"5\r\nhello\r\n", b"A: b\r\n", b":", b"\xff", b"\0", b"\\"),
)


@settings(max_examples=500, deadline=None)
@given(fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=12))
def test_h11_reads_the_same_body_where_we_read_one(fragments: list[bytes]) -> None:
    raw = b"".join(fragments)
    whole = read([raw] if raw else [])
    assert read([raw[at : at + 1] for at in range(len(raw))]) == whole
    if isinstance(whole, tuple) and whole[2] != b"(more)" and not whole[1]:
        assert by_h11(raw) == whole[0]
