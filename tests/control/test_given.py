from __future__ import annotations

import pytest

from proxy.control import given
from proxy.control.filling import Member
from proxy.control.refusal import Invalid


def test_endpoints_come_in_the_files_spelling() -> None:
    filling = given.filling([("LOCALHOST:80", 2), ("[::0001]:80", 1)], "v42")
    assert filling.members == (
        Member(address="localhost:80", weight=2),
        Member(address="[::1]:80"),
    )
    assert filling.release == "v42"
    assert given.filling([], None).release is None


@pytest.mark.parametrize(("address", "release"), [("nonsense", None), ("a:1", "line\nbreak")])
def test_what_no_file_may_say_no_caller_may(address: str, release: str | None) -> None:
    with pytest.raises(Invalid, match=r"^(endpoints\[0\]|release): "):
        given.filling([(address, 1)], release)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_is_above_nothing_and_ends(seconds: float) -> None:
    with pytest.raises(Invalid, match="ttl"):
        given.ttl_s(seconds)


def test_no_time_is_for_good() -> None:
    assert given.ttl_s(None) is None
