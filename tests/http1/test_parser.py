"""The parsers: the same events whatever the pieces, and no exception but Malformed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http1.parser import MAX_ANSWER_HEAD, RequestParser, ResponseParser

Read = Callable[..., list[str]]
Splits = Callable[[bytes], Iterator[list[bytes]]]

HERE = Path(__file__).parent
NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\nX-Next: 1\r\n\r\n"
NEXT_TOLD = ["head GET /next host=next length=0", "  field X-Next: 1", "end"]
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"

FRAGMENTS = [
    *(b"\r\n", b"\r", b"\n", b"\r\n\r\n", b" ", b"\t", b":", b"\x00", b"\xff", b"0\r\n\r\n", b"5"),
    *(b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.0\r\n", b"Host: a\r\n", b"Content-Length: 5\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n"),
    *(b"Connection: close\r\n", b"hello", b"5\r\nhello\r\n", b"Expect: 100-continue\r\n"),
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 S\r\n"),
]


def corpus(folder: str) -> list[Path]:
    paths = sorted((HERE / folder).glob("*.http"))
    assert len(paths) > 20
    return paths


def named(path: Path) -> str:
    return path.stem


def expected(path: Path) -> list[str]:
    return path.with_suffix(".events").read_text().splitlines()


def is_for_head(path: Path) -> bool:
    return path.stem.startswith("head_")


@pytest.mark.parametrize("path", corpus("requests/valid"), ids=named)
def test_a_valid_request_is_told_the_same_in_whatever_pieces_it_comes(
    path: Path, read_requests: Read, splits: Splits
) -> None:
    for pieces in splits(path.read_bytes()):
        assert read_requests(pieces) == expected(path)


@pytest.mark.parametrize("path", corpus("requests/valid"), ids=named)
def test_what_follows_a_valid_request_is_the_next_one(
    path: Path, read_requests: Read, splits: Splits
) -> None:
    told = expected(path)
    if told[-1].startswith("raw"):
        told[-1] += NEXT.decode().replace("\r\n", "\\r\\n")
    elif not any(" last" in line for line in told):
        told += NEXT_TOLD
    for pieces in splits(path.read_bytes() + NEXT):
        assert read_requests(pieces) == told


@pytest.mark.parametrize("path", corpus("requests/invalid"), ids=named)
def test_an_invalid_request_is_refused_in_whatever_pieces_it_comes(
    path: Path, read_requests: Read, splits: Splits
) -> None:
    assert expected(path)[-1].startswith("malformed ")
    for pieces in splits(path.read_bytes() + NEXT):
        assert read_requests(pieces) == expected(path)


@pytest.mark.parametrize("path", corpus("responses/valid"), ids=named)
def test_a_valid_answer_is_told_the_same_in_whatever_pieces_it_comes(
    path: Path, read_responses: Read, splits: Splits
) -> None:
    for pieces in splits(path.read_bytes()):
        assert read_responses(pieces, is_head=is_for_head(path)) == expected(path)


@pytest.mark.parametrize("path", corpus("responses/valid"), ids=named)
def test_bytes_after_a_whole_answer_are_noticed(
    path: Path, read_responses: Read, splits: Splits
) -> None:
    told = expected(path)
    if told[-1] == "end" or told[-1].startswith("  trailer"):
        for pieces in splits(path.read_bytes() + OK):
            assert read_responses(pieces, is_head=is_for_head(path)) == [*told, "malformed"]


@pytest.mark.parametrize("path", corpus("responses/invalid"), ids=named)
def test_an_invalid_answer_is_refused_in_whatever_pieces_it_comes(
    path: Path, read_responses: Read, splits: Splits
) -> None:
    assert expected(path)[-1] == "malformed"
    for pieces in splits(path.read_bytes()):
        assert read_responses(pieces, is_head=is_for_head(path)) == expected(path)


def test_one_parser_reads_many_answers_by_pass_or_not() -> None:
    told: list[object] = []

    class Sink:
        def response_interim(self, head: object) -> None: ...
        def response_head(self, head: object) -> None: ...
        def response_body(self, data: bytes) -> None:
            told.append(data)

        def response_end(self, trailers: object) -> None:
            told.append(trailers)

    parser, sink = ResponseParser(), Sink()
    answers = [
        ([OK + b"Content-Length: 4\r\n\r\nab", b"c", b"d"], False, [b"ab", b"c", b"d", None]),
        ([OK + b"Content-Length: 9\r\n\r\n"], True, [None]),
        ([OK + b"Content-Length: 2\r\n\r\nhi"], False, [b"hi", None]),
        ([b"HTTP/1.1 304 N\r\nContent-Length: 2\r\n\r\n"], False, [None]),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"], False, [b"x", None]),
        ([OK + b"Content-Length: 2\r\n\r\n", b"ok"], False, [b"ok", None]),
    ]
    for _ in range(3):
        for pieces, is_head, events in answers:
            told.clear()
            parser.expect(sink, is_head=is_head)
            for piece in pieces:
                parser.feed(piece)
            assert told == events


@pytest.mark.parametrize(
    "trailer", [b"Transfer-Encoding: x", b"Connection: close", b"Upgrade: h2c", b"Sum: 1"]
)
def test_a_trailer_says_nothing_about_the_next_answer(trailer: bytes) -> None:
    told: list[object] = []

    class Sink:
        def response_interim(self, head: object) -> None: ...
        def response_head(self, head: object) -> None: ...
        def response_body(self, data: bytes) -> None:
            told.append(data)

        def response_end(self, trailers: object) -> None: ...

    parser, sink = ResponseParser(), Sink()
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"
    for _ in range(3):
        told.clear()
        parser.expect(sink, is_head=False)
        parser.feed(chunked + trailer + b"\r\n\r\n")
        assert told == [b"hi"]


# ---- limits ----


@pytest.mark.parametrize("size", [1, 7, 500, 100_000])
def test_a_head_over_the_limit_is_refused_before_it_ends(read_requests: Read, size: int) -> None:
    endless = HEAD + b"X: " + b"y" * 3000
    pieces = [endless[at : at + size] for at in range(0, len(endless), size)]
    assert read_requests(pieces, max_header=1024) == ["malformed 431"]
    whole = endless + b"\r\n\r\n"
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert read_requests(pieces, max_header=1024) == ["malformed 431"]


@pytest.mark.parametrize("size", [1, 7, 500, 100_000])
def test_a_target_over_the_limit_has_its_own_status(read_requests: Read, size: int) -> None:
    whole = b"GET /" + b"y" * 3000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert read_requests(pieces, max_header=1024) == ["malformed 414"]


def test_the_limit_is_exact_in_whatever_pieces(read_requests: Read, splits: Splits) -> None:
    head = HEAD + b"X: " + b"y" * 100 + b"\r\n\r\n"
    for pieces in splits(head):
        assert read_requests(pieces, max_header=len(head))[-1] == "end"
        assert read_requests(pieces, max_header=len(head) - 1) == ["malformed 431"]


@pytest.mark.parametrize("name", [b"X-%d", b"Cookie", b"X-Forwarded-For", b"X_Forwarded_For"])
def test_headers_are_counted_whatever_their_name(read_requests: Read, name: bytes) -> None:
    def head(count: int) -> bytes:
        names = [name % at if b"%" in name else name for at in range(count)]
        return HEAD + b"".join(n + b": v\r\n" for n in names) + b"\r\n"

    assert read_requests([head(9)], max_headers=10)[-1] == "end"
    assert read_requests([head(10)], max_headers=10) == ["malformed 431"]


def test_what_came_before_a_head_is_not_measured_with_it(read_requests: Read) -> None:
    many = (HEAD + b"\r\n") * 200
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n" + b"x\r\n\r\n" * 600
    chunked = CHUNKED + b"bb8\r\n" + b"x\r\n\r\n" * 600 + b"\r\n0\r\n\r\n"
    for before in (many, post, chunked):
        told = read_requests([before + NEXT[:20], NEXT[20:]], max_header=256)
        assert told[-3:] == NEXT_TOLD


@pytest.mark.parametrize(
    "more",
    [b"5;" + b"a" * 998, b"0\r\nX: " + b"a" * 994, b"X: y\r\n" * 25, b"0" * 1000],
    ids=["extension", "trailer", "trailers", "zeros"],
)
def test_framing_without_end_is_refused_in_time(read_requests: Read, more: bytes) -> None:
    start = CHUNKED + (b"0\r\n" if more.startswith(b"X") else b"")
    later = more[3:] if more.startswith(b"0\r\n") else more
    pieces = [start, more, *([later.replace(b"5;", b"aa")] * 40)]
    assert read_requests(pieces)[-1].startswith("malformed")
    assert read_requests(pieces[:5])[-1].startswith("head")


def test_small_chunks_are_no_offence(read_requests: Read) -> None:
    pieces = [CHUNKED, *([b"1;why=so\r\nx\r\n"] * 20_000), b"0\r\n\r\n"]
    assert read_requests(pieces)[-1] == "end"


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (OK, b"X: y\r\n"),
        (OK + b"X: ", b"yyyyyy"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5;", b"aaaaaa"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    ],
)
def test_an_answer_without_end_of_head_or_framing_is_refused(
    read_responses: Read, start: bytes, more: bytes
) -> None:
    block = more * 5000
    pieces = [start, *([block] * (MAX_ANSWER_HEAD // len(block) + 2))]
    assert read_responses(pieces)[-1] == "malformed"


def test_a_long_body_is_no_endless_framing(read_responses: Read) -> None:
    block = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    start = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    assert read_responses([start, *([block] * 40), b"0\r\n\r\n"])[-1] == "end"
    assert read_responses([OK + b"\r\n", *([block] * 40)])[-1] == "(more)"


def test_between_is_true_only_when_nothing_of_a_request_was_read() -> None:
    class Sink:
        def request_head(self, head: object) -> None: ...
        def request_body(self, data: bytes) -> None: ...
        def request_end(self, trailers: object) -> None: ...

    parser = RequestParser(Sink(), 1024, 10)
    states = []
    for piece in (b"", b"\r\n", b"\r", b"\n", b"GE", HEAD[2:], b"\r\n", b"\r\n" + HEAD + b"\r\n"):
        parser.feed(piece)
        states.append((parser.is_between, parser.head_started))
    rest, half, started = (True, False), (False, False), (False, True)
    assert states == [rest, rest, half, rest, started, started, rest, rest]


# ---- anything at all ----


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=8)), max_size=25),
    is_head=st.booleans(),
)
def test_whatever_comes_is_told_or_malformed_and_pieces_mean_nothing(
    read_requests: Read,
    read_responses: Read,
    pieces: list[bytes],
    is_head: bool,  # noqa: FBT001 - hypothesis passes by name
) -> None:
    whole = b"".join(pieces)
    single = [whole[at : at + 1] for at in range(len(whole))]
    pieces = [piece for piece in pieces if piece]
    assert read_requests([whole] if whole else []) == read_requests(single)
    assert read_requests(pieces) == read_requests(single)
    for cut in (pieces, single):  # a blank line behind an answer may pass in one read with it
        told = read_responses(cut, is_head=is_head)
        assert told.count("malformed") <= 1


MUTABLE = [path.read_bytes() for path in (*corpus("requests/valid"), *corpus("requests/invalid"))]
MUTABLE_ANSWERS = [path.read_bytes() for path in corpus("responses/valid")]


def mutated(messages: list[bytes]) -> st.SearchStrategy[bytes]:
    spot = st.tuples(
        st.integers(0, 400),
        st.integers(0, 6),
        st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=2)),
    )

    def mutate(message: bytes, spots: list[tuple[int, int, bytes]]) -> bytes:
        for at, drop, put in spots:
            place = at % (len(message) + 1)
            message = message[:place] + put + message[place + drop :]
        return message

    return st.builds(mutate, st.sampled_from(messages), st.lists(spot, min_size=1, max_size=3))


@settings(max_examples=500, deadline=None)
@given(message=mutated(MUTABLE))
def test_a_mutated_request_means_the_same_in_whatever_pieces(
    read_requests: Read, message: bytes
) -> None:
    single = [message[at : at + 1] for at in range(len(message))]
    halves = [half for half in (message[: len(message) // 2], message[len(message) // 2 :]) if half]
    told = read_requests(single)
    assert read_requests([message] if message else []) == told
    assert read_requests(halves) == told


@settings(max_examples=300, deadline=None)
@given(message=mutated(MUTABLE_ANSWERS), is_head=st.booleans())
def test_a_mutated_answer_means_the_same_in_whatever_pieces(
    read_responses: Read,
    message: bytes,
    is_head: bool,  # noqa: FBT001 - hypothesis passes by name
) -> None:
    single = [message[at : at + 1] for at in range(len(message))]
    told = read_responses(single, is_head=is_head)
    whole = read_responses([message] if message else [], is_head=is_head)
    assert told in (whole, [*whole, "malformed"])  # only blank lines behind it


# ---- beside another parser ----


STRICTER = re.compile(
    rb"\n[0-9a-f]+[ \t]+;|\n0[^\n]*\r\n.*(?:transfer-encoding|content-length|host)",
    re.DOTALL | re.IGNORECASE,
).search
"""h11 takes no blank before a chunk's extension, which RFC 9112 section 7.1.1 has us take, and
refuses a body for the framing among its trailers, which we drop."""


def first_of_h11(message: bytes) -> tuple[bytes, bytes] | None:
    """Method and body of the first whole request, as h11 reads it; None when it does not."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
    method, body = b"", b""
    try:
        connection.receive_data(message)
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Request):
                method = event.method
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                return None
    except h11.RemoteProtocolError:
        return None
    return method, body


def first_of_ours(told: list[str]) -> tuple[str, str] | None:
    if "end" not in told:
        return None
    body = [line for line in told[: told.index("end")] if line.startswith("body ")]
    return told[0].split()[1], body[0].split()[1] if body else "0"


@settings(max_examples=500, deadline=None)
@given(message=st.one_of(st.sampled_from(MUTABLE), mutated(MUTABLE)))
def test_h11_reads_the_same_of_what_we_accept(read_requests: Read, message: bytes) -> None:
    ours = first_of_ours(read_requests([message] if message else []))
    # Empty lines before a request are skipped here (RFC 9112 section 2.2), and not by h11.
    theirs = first_of_h11(message.lstrip(b"\r\n"))
    if ours is not None and not (theirs is None and STRICTER(message)):
        assert theirs is not None
        assert ours == (theirs[0].decode(), str(len(theirs[1])))
