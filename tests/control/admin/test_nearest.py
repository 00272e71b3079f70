from __future__ import annotations

from proxy.control.admin.nearest import unknown_key


def test_the_nearest_key_is_proposed() -> None:
    assert unknown_key("realese", {"release", "endpoints"}) == (
        "realese: unknown key (did you mean release?)"
    )


def test_without_a_near_one_all_are_listed() -> None:
    assert unknown_key("zzz", {"to", "force"}) == "zzz: unknown key (known: force, to)"


def test_where_there_are_none_it_says_so_and_a_long_key_is_cut() -> None:
    assert unknown_key("a" * 99, ()) == f"{'a' * 60}...: unknown key (there are none here)"
