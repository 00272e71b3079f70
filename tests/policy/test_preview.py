"""Preview: the secret and nothing but the secret names a pool."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import Preview
from proxy.policy.preview import pool_wanted


def preview(secret: str) -> Preview:
    return Preview(header="x-turnout-preview", cookie="turnout_preview", secret=secret)


def test_the_right_secret_names_the_pool() -> None:
    assert pool_wanted(preview("s3cret"), b"s3cret:green") == "green"


def test_a_secret_may_contain_colons_and_letters_beyond_ascii() -> None:
    assert pool_wanted(preview("a:b"), b"a:b:green") == "green"
    assert pool_wanted(preview("schlüssel"), "schlüssel:green".encode()) == "green"


@pytest.mark.parametrize(
    "value",
    [b"", b":", b"s3cret", b"s3cret:", b"wrong:green", b"s3cre:green", b"S3cret:green", b":green"],
)
def test_anything_but_the_whole_secret_and_a_pool_names_nothing(value: bytes) -> None:
    assert pool_wanted(preview("s3cret"), value) is None


@given(pool=st.binary(max_size=8))
def test_an_empty_secret_matches_nothing(pool: bytes) -> None:
    assert pool_wanted(preview(""), b":" + pool) is None
    assert pool_wanted(preview(""), pool) is None


@given(value=st.binary(max_size=40))
def test_no_bytes_make_it_raise(value: bytes) -> None:
    assert pool_wanted(preview("s3cret"), value) is None
    pool_wanted(preview("s3cret"), b"s3cret:" + value)


def test_a_pool_that_is_no_text_names_nothing() -> None:
    assert pool_wanted(preview("s3cret"), b"s3cret:\xff\xfe") is None
