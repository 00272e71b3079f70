"""What a pool is filled with, and what a lockout knows it by."""

from __future__ import annotations

import pytest

from proxy.control.filling import Filling, Member, filling_in_words, release_key

A, B = Member(address="10.0.0.1:80"), Member(address="10.0.0.2:80", weight=3)


def test_it_is_written_as_in_the_file() -> None:
    assert filling_in_words(Filling(members=(A, B), release="v42")) == {
        "endpoints": ["10.0.0.1:80", {"address": "10.0.0.2:80", "weight": 3}],
        "release": "v42",
    }


def test_a_release_is_known_by_its_label_whatever_its_endpoints() -> None:
    assert release_key(Filling(members=(A,), release="v42")) == "v42"
    assert release_key(Filling(members=(B,), release="v42")) == "v42"


@pytest.mark.parametrize("members", [(A, B), (B, A)])
def test_without_a_label_it_is_known_by_its_endpoints_in_any_order(
    members: tuple[Member, ...],
) -> None:
    assert release_key(Filling(members=members)) == "10.0.0.1:80, 10.0.0.2:80"


def test_other_endpoints_without_a_label_are_another_release() -> None:
    assert release_key(Filling(members=(A,))) != release_key(Filling(members=(B,)))
