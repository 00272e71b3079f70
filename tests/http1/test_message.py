"""Parsed heads: what holds of them before anything was read into them."""

from __future__ import annotations

import pytest

from proxy.http1.message import Malformed, RequestHead, ResponseHead


def test_a_malformed_message_says_why_and_with_what_status() -> None:
    bad = Malformed("a sentence", 431)
    assert (bad.sentence, bad.status, str(bad)) == ("a sentence", 431, "a sentence")
    assert Malformed("x").status == 400


def test_a_request_head_begins_without_a_body_and_keeps_its_connection() -> None:
    head = RequestHead(b"GET", b"/", [])
    assert (head.length, head.chunked, head.keep_alive, head.expect) == (0, False, True, False)
    assert (head.host, head.cookie, head.upgrade, head.special) == (b"", None, None, None)
    assert not head.version_1_0


def test_a_response_head_begins_without_a_length() -> None:
    head = ResponseHead(200, b"OK", [])
    assert (head.length, head.chunked, head.to_end, head.keep_alive) == (None, False, False, True)
    assert not head.event_stream


@pytest.mark.parametrize("head", [RequestHead(b"GET", b"/", []), ResponseHead(200, b"", [])])
def test_heads_hold_nothing_but_what_is_declared(head: object) -> None:
    with pytest.raises(AttributeError):
        head.misspelt = 1  # type: ignore[attr-defined]
