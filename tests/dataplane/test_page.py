"""Pages: gaps filled, strangers' words escaped, the rest untouched."""

from __future__ import annotations

import re

from proxy.dataplane import faults
from proxy.dataplane.page import OUR_PAGE, PageTemplate


def filled(html: str, request_id: bytes = b"abc") -> str:
    return PageTemplate(html).filled(faults.NO_POOL, request_id).decode()


def test_the_gaps_are_filled_wherever_and_as_often_as_they_are() -> None:
    page = "{status}{reason} <b>{status}</b> {sentence} {request_id}"
    assert filled(page) == (f"503Service Unavailable <b>503</b> {faults.NO_POOL.sentence} abc")


def test_all_other_braces_are_the_pages_own() -> None:
    page = "<style>a { b: c } @media x { p { q: {} } }</style>{ status }{other}{{status}}%s%d"
    assert filled(page) == page.replace("{{status}}", "{503}")


def test_a_page_without_gaps_is_sent_as_it_is() -> None:
    assert filled("<p>ünder wörk ☕</p>") == "<p>ünder wörk ☕</p>"
    assert filled("") == ""


def test_a_request_id_cannot_break_out_of_a_page_or_an_attribute() -> None:
    hostile = b"""<script>alert('1')</script>" onload="&\xff{status}"""
    page = filled("<p title='{request_id}'>{request_id}</p>", hostile)
    inside = page.removeprefix("<p title='").removesuffix("</p>").replace("'>", "", 1)
    assert not set(inside) & set("<>\"'")
    assert inside.count("{status}") == 2  # what was filled in is not filled in once more
    assert "&amp;ÿ" in page


def test_our_page_loads_nothing_runs_nothing_and_has_no_gap_left() -> None:
    page = OUR_PAGE.filled(faults.NO_POOL, b"abc").decode()
    assert not re.search(r"<script|https?:|src=|href=|url\(|@import", page)
    assert not re.search(r"\{(status|reason|sentence|request_id)\}", page)
    assert "503" in page
    assert "abc" in page
    assert len(page) < 2500
