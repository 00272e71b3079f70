"""What a trail keeps of a body."""

from __future__ import annotations

import pytest

from proxy.dataplane.trail import KEPT, PIECE_OVERHEAD, Trail


@pytest.fixture
def trail() -> Trail:
    trail = Trail()
    trail.kept = []
    return trail


def test_pieces_are_kept_in_their_order(trail: Trail) -> None:
    trail.keep((b"a", b"b"))
    trail.keep([b"c"])
    assert trail.kept == [b"a", b"b", b"c"]


def test_a_body_as_long_as_the_bound_is_kept_and_a_longer_one_is_let_go_for_good(
    trail: Trail,
) -> None:
    trail.keep((b"x" * (KEPT - PIECE_OVERHEAD),))
    assert trail.kept is not None
    trail.keep((b"",))
    assert trail.kept is None
    trail.keep((b"y",))
    assert trail.kept is None, "a part of a body is no body"


def test_a_body_that_is_not_to_be_sent_again_is_not_kept() -> None:
    trail = Trail()
    trail.keep((b"x",))
    assert trail.kept is None
