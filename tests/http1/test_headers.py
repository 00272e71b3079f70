"""Header names and lists: what is passed on, set aside, or never removed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http1 import headers
from proxy.http1.headers import (
    named_by_connection,
    take_cookie,
    tokens,
    underscored,
    value_of,
    without,
)

FIELDS = [
    *(b"Accept", b": ", b"a", b"\r\n"),
    *(b"X-A", b": ", b"1", b"\r\n"),
    *(b"x-a", b": ", b"2", b"\r\n"),
]


def test_a_value_is_found_by_its_lower_case_name_and_the_first_counts() -> None:
    assert value_of(FIELDS, b"x-a") == b"1"
    assert value_of(FIELDS, b"accept") == b"a"
    assert value_of(FIELDS, b"1") is None


def test_fields_are_dropped_by_name_whatever_their_case() -> None:
    assert without(FIELDS, {b"x-a"}) == FIELDS[:4]
    assert without(FIELDS, frozenset()) == FIELDS
    assert without([], {b"x-a"}) == []


def test_a_list_is_read_without_blanks_case_and_gaps() -> None:
    assert tokens(b" Close ,,\tX-a,close, ") == {b"close", b"x-a"}
    assert tokens(b"") == set()


@pytest.mark.parametrize("name", sorted(headers.PROTECTED))
def test_connection_can_never_name_what_is_protected(name: bytes) -> None:
    assert named_by_connection(b"x-a, " + name.upper() + b" , x-b") == {b"x-a", b"x-b"}


def test_what_others_read_as_our_headers_is_a_look_alike() -> None:
    assert underscored(b"a-b-c") == {b"a_b-c", b"a-b_c", b"a_b_c"}
    assert underscored(b"host") == set()
    for name in (b"x_forwarded-for", b"content_length", b"transfer_encoding", b"x_turnout_pool"):
        assert name in headers.LOOK_ALIKES
        assert name in headers.REQUEST_READ
    assert not headers.LOOK_ALIKES & headers.PROTECTED


def test_trailers_may_carry_nothing_that_frames_routes_or_authorises() -> None:
    for name in (b"host", b"content-length", b"transfer-encoding", b"cookie", b"set-cookie"):
        assert name in headers.TRAILERS_REFUSED
    assert b"x-checksum" not in headers.TRAILERS_REFUSED


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (b"t=1", b"1"),
        (b"a=0; t=1; b=2", b"1"),
        (b"a=0;t=1", b"1"),
        (b"xt=0; t=1", b"1"),
        (b"xt=0", None),
        (b"t = 1", None),
        (b"a=t=1", None),
        (b"t=", b""),
        (b"t=1; t=2", b"1"),
        (b"", None),
    ],
)
def test_a_cookie_is_found_by_its_whole_name(header: bytes, value: bytes | None) -> None:
    assert take_cookie(header, b"t=")[0] == value


@pytest.mark.parametrize(
    ("header", "left"),
    [
        (b"t=1", b""),
        (b"a=0; t=1; b=2", b"a=0; b=2"),
        (b"t=1;t=2;a=t=3", b"a=t=3"),
        (b"xt=1; T=2", b"xt=1; T=2"),
        (b"t=1; a=0; t=2", b"a=0"),
        (b"a=0;  t=1", b"a=0"),
        (b"a=x t=1; b=2", b"a=x t=1; b=2"),
    ],
)
def test_a_cookie_is_taken_out_and_the_others_stay(header: bytes, left: bytes) -> None:
    assert take_cookie(header, b"t=")[1] == left


@given(st.lists(st.sampled_from([b"t=1", b"a=2", b"xt=3", b" t=4", b"t", b"", b"b=t=1"])))
def test_nothing_of_a_cookie_is_left_behind(pairs: list[bytes]) -> None:
    _, left = take_cookie(b";".join(pairs), b"t=")
    assert take_cookie(left, b"t=") == (None, left)
