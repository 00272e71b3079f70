"""Which media type a client likes best."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http1.accept import HTML, JSON, LONGEST, MOST, TEXT, best

USUAL = (TEXT, JSON, HTML)
WITH_PAGE = (HTML, TEXT, JSON)

BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
IMAGE = b"image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "liked"),
    [
        (BROWSER, HTML),
        (IMAGE, TEXT),
        (None, TEXT),
        (b"", TEXT),
        (b"*/*", TEXT),
        (b"application/json", JSON),
        (b"application/problem+json", JSON),
        (b"application/vnd.example.v2+json", JSON),
        (b"application/json, text/plain, */*", JSON),
        (b"text/plain, application/json", TEXT),
        (b"application/*", JSON),
        (b"text/*", TEXT),
        (b"text/html", HTML),
        (b"TEXT/HTML", HTML),
        (b"text/html;level=1;q=0.4, text/plain;q=0.3", HTML),
        (b"text/html;q=0.5, */*", TEXT),
        (b"text/html;q=0.5, application/json;q=0.50001", HTML),
        (b"text/html ; Q=0.5 , application/json ; q=0.7", JSON),
        (b"text/plain;q=0, */*", JSON),
        (b"text/plain;q=0.0, application/*;q=0, */*", HTML),
        (b"image/png", TEXT),
        (b"*/*;q=0", TEXT),
        (b"text/html;q=0", TEXT),
        (b"*/*, text/html", HTML),
        (b"text/*;q=0.2, text/html;q=0.1, application/json;q=0.15", TEXT),
        (b"application/json;q=0, application/problem+json", JSON),
        (b"text/html;q=2", TEXT),
        (b"text/html;q=", TEXT),
        (b"text/html;q=nan", TEXT),
        (b"text/html;q=-1, application/json;q=0.1", JSON),
        (b",,;;q=1,/,text/html", HTML),
    ],
)
def test_qualities_then_precision_then_the_clients_order_decide(
    accept: bytes | None, liked: bytes
) -> None:
    assert best(accept, USUAL) == liked


@pytest.mark.parametrize(
    ("accept", "liked"),
    [
        (BROWSER, HTML),
        (IMAGE, HTML),
        (None, HTML),
        (b"*/*", HTML),
        (b"text/*", HTML),
        (b"application/json", JSON),
        (b"application/json, text/plain, */*", JSON),
        (b"text/plain", TEXT),
        (b"text/html;q=0, */*", TEXT),
        (b"text/html;q=0.9, */*", TEXT),
        (b"text/html;q=0", TEXT),
        (b"text/*;q=0", JSON),
        (b"image/png", HTML),
    ],
)
def test_who_does_not_care_gets_the_first_offer(accept: bytes | None, liked: bytes) -> None:
    assert best(accept, WITH_PAGE) == liked


def test_only_so_much_of_the_header_is_read_and_never_half_a_range() -> None:
    filler = b"image/png," * (LONGEST // 10)
    assert best(b"text/html," + filler, USUAL) == HTML
    assert best(filler + b"application/json,text/html", USUAL) == TEXT
    assert best(b"x" * (2 * LONGEST), USUAL) == TEXT
    half = b"text/plain;q=0.1," + b"a" * (LONGEST - 27) + b",text/html;q=0.0"
    assert best(half + b"01" * LONGEST, USUAL) == TEXT


def test_only_so_many_ranges_are_looked_at() -> None:
    many = b"text/*;q=0.1," * (MOST - 1)
    assert best(many + b"application/json", USUAL) == JSON
    assert best(many + b"text/*;q=0.1,application/json", USUAL) == TEXT


@pytest.mark.parametrize("piece", [b",", b";", b"*/*,", b"text/html;q=", b"q=1;"])
def test_a_hostile_header_costs_next_to_nothing(piece: bytes) -> None:
    began = time.process_time()
    for _ in range(20):
        best(piece * 8192, USUAL)
    assert time.process_time() - began < 0.5


@given(st.binary(max_size=200))
def test_whatever_a_client_says_there_is_an_answer(accept: bytes) -> None:
    assert best(accept, USUAL) in USUAL
