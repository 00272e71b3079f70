from __future__ import annotations

from proxy.control.keys import StickyKey, derive, hex_keys, rotate


def test_the_key_of_one_service_is_foreign_to_another() -> None:
    assert derive("secret", "shop") != derive("secret", "blog")
    assert derive("secret", "shop") == derive("secret", "shop")
    assert len(bytes.fromhex(derive("secret", "shop"))) == 32


def test_secret_and_service_do_not_run_into_each_other() -> None:
    assert derive("ab", "c") != derive("a", "bc")


def test_the_secret_does_not_show_in_its_key() -> None:
    assert "secret" not in derive("secret", "shop")


def test_an_old_key_verifies_until_its_cookies_are_over() -> None:
    ring = rotate((), "old", max_age_s=100.0, now=0.0)
    ring = rotate(ring, "new", max_age_s=100.0, now=50.0)
    assert ring == (StickyKey(key="new"), StickyKey(key="old", until=150.0))
    assert hex_keys(ring, 149.0) == ("new", "old")
    assert hex_keys(ring, 150.0) == ("new",)
    assert rotate(ring, "new", max_age_s=100.0, now=150.0) == (StickyKey(key="new"),)


def test_the_same_key_again_changes_nothing() -> None:
    ring = rotate((), "key", max_age_s=100.0, now=0.0)
    assert rotate(ring, "key", max_age_s=5.0, now=10.0) == ring


def test_a_key_that_comes_back_signs_again_and_stands_once() -> None:
    ring = rotate((), "one", max_age_s=100.0, now=0.0)
    ring = rotate(ring, "two", max_age_s=100.0, now=10.0)
    ring = rotate(ring, "one", max_age_s=100.0, now=20.0)
    assert hex_keys(ring, 20.0) == ("one", "two")
    assert ring[0].until is None
