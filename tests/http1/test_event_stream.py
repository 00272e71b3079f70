"""Borders of events: every kind of line end, in any pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http1.event_stream import EventBorders, retry_field

texts = st.text(alphabet="a:\r\n", max_size=24).map(str.encode)


def is_border(text: bytes) -> bool:
    """Whether a stream that begins with `text` is between two events: line by line, by the book."""
    if not text:
        return True
    if not text.endswith((b"\r", b"\n")):
        return False
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return lines[-2] == b""


@given(st.lists(texts, max_size=6))
def test_a_border_is_behind_a_blank_line_in_whatever_pieces_it_comes(pieces: list[bytes]) -> None:
    follower, so_far = EventBorders(), b""
    assert follower.is_between
    for piece in pieces:
        follower.feed(piece)
        so_far += piece
        assert follower.is_between == is_border(so_far), so_far


@given(texts, st.lists(texts, min_size=1, max_size=6))
def test_the_first_border_is_found_in_whatever_pieces_it_comes(
    before: bytes, pieces: list[bytes]
) -> None:
    follower, so_far = EventBorders(), before
    follower.feed(before)
    for piece in pieces:
        found = follower.find(piece)
        earlier = [n for n in range(1, len(piece) + 1) if is_border(so_far + piece[:n])]
        if found < 0:
            assert not earlier, so_far
            so_far += piece
            continue
        # CR LF is one end of a line: the LF that has come belongs to it, but need not be awaited.
        assert found in earlier[:2]
        assert is_border(so_far + piece[:found])
        assert follower.is_between
        return


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\n\n"])
def test_what_follows_an_event_is_not_taken_along(end: bytes) -> None:
    follower = EventBorders()
    follower.feed(b"data: 1")
    event = b"23" + end
    assert follower.find(event + b"data: half") == len(event)


def test_a_retry_field_leaves_the_stream_between_two_events() -> None:
    follower = EventBorders()
    follower.feed(b"data: 1\n\n" + retry_field(1234))
    assert retry_field(1234) == b"retry: 1234\n\n"
    assert follower.is_between
