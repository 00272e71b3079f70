"""The sticky cookie: bound clients stay bound, and nobody else gets a word in."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import WHOLE, Sticky
from proxy.policy import sticky as sticky_module
from proxy.policy.sticky import Binding, StickyCookie, bucket_of, endpoint_mark, hash_of

NOW = 1_800_000_000
OLD_KEY, NEW_KEY, OTHER_KEY = "11" * 32, "22" * 32, "33" * 32
STICKY = Sticky(by="cookie", name="turnout", max_idle_s=3600, max_age_s=86400, keys=(OLD_KEY,))
BINDING = Binding(1234, "green", 3, NOW - 1000, NOW, "0badcafe")


def cookie(service: str = "shop", *, keys: tuple[str, ...] = (OLD_KEY,)) -> StickyCookie:
    return StickyCookie(service, replace(STICKY, keys=keys))


bindings = st.builds(
    Binding,
    bucket=st.integers(0, WHOLE - 1),
    pool=st.text(min_size=1, max_size=20),
    epoch=st.integers(0, 2**40),
    issued=st.integers(NOW - 80_000, NOW),
    seen=st.integers(NOW - 3000, NOW),
    endpoint=st.sampled_from(["", "0badcafe"]),
)


@given(binding=bindings)
def test_what_is_written_is_read_and_is_safe_in_a_cookie(binding: Binding) -> None:
    value = cookie().write(binding)
    assert cookie().read(value, NOW) == binding
    assert re.fullmatch(rb"[!#-+\--:<-\[\]-~]+", value), "cookie-octet of RFC 6265"


@given(value=st.binary(max_size=200))
def test_no_bytes_make_it_raise_and_none_are_believed(value: bytes) -> None:
    reader = cookie()
    assert reader.read(value, NOW) is None
    assert reader.read(b"1." + value, NOW) is None
    assert reader.read(b"1." + b"0" * 32 + b"." + value, NOW) is None


@given(payload=st.binary(max_size=60) | st.from_regex(rb"-?\d+(\.-?\d*){4}\..*"))
def test_not_even_a_true_signature_on_nonsense_makes_it_raise(payload: bytes) -> None:
    reader = cookie()
    signer = reader._signers[0].copy()
    signer.update(payload)
    reader.read(b"1.%b.%b" % (signer.hexdigest().encode(), payload), NOW)


def test_a_change_of_any_single_byte_makes_it_a_forgery() -> None:
    value = cookie().write(BINDING)
    reader = cookie()
    for at in range(len(value)):
        forged = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        assert reader.read(forged, NOW) is None, at
    assert reader.read(value + b"x", NOW) is None
    assert reader.read(value[:-1], NOW) is None


def test_a_cookie_of_another_service_is_foreign() -> None:
    assert cookie("blog").read(cookie("shop").write(BINDING), NOW) is None


def test_a_cookie_of_another_key_is_forged() -> None:
    assert cookie().read(cookie(keys=(OTHER_KEY,)).write(BINDING), NOW) is None


def test_after_a_rotation_the_old_key_still_verifies_and_the_new_one_signs() -> None:
    rotated = cookie(keys=(NEW_KEY, OLD_KEY))
    assert rotated.read(cookie(keys=(OLD_KEY,)).write(BINDING), NOW) == BINDING
    assert cookie(keys=(NEW_KEY,)).read(rotated.write(BINDING), NOW) == BINDING
    assert cookie(keys=(OLD_KEY,)).read(rotated.write(BINDING), NOW) is None


def test_it_expires_when_it_was_not_seen_for_max_idle_even_once_remembered() -> None:
    reader, value = cookie(), cookie().write(BINDING)
    assert reader.read(value, NOW + 3600) == BINDING
    assert reader.read(value, NOW + 3601) is None


def test_it_expires_max_age_after_it_was_issued_however_often_it_is_seen() -> None:
    value = cookie().write(BINDING._replace(issued=NOW - 86_400))
    assert cookie().read(value, NOW) is not None
    assert cookie().read(value, NOW + 1) is None


@pytest.mark.parametrize("issued", [NOW, NOW + 300])
def test_a_little_ahead_of_our_clock_is_believed_and_more_is_not(issued: int) -> None:
    value = cookie().write(BINDING._replace(issued=issued, seen=NOW + 300))
    assert cookie().read(value, NOW) is not None
    assert cookie().read(value, NOW - 1) is None


def test_a_version_that_we_do_not_know_is_ignored() -> None:
    assert cookie().read(b"2" + cookie().write(BINDING)[1:], NOW) is None


def test_a_bucket_outside_the_range_is_ignored_even_when_signed() -> None:
    assert cookie().read(cookie().write(BINDING._replace(bucket=WHOLE)), NOW) is None


def test_the_header_names_cookie_life_and_protections() -> None:
    writer = cookie()
    assert writer.prefix == b"turnout="
    expected = b"turnout=%b; Max-Age=3600; HttpOnly; SameSite=Lax; Path=/" % writer.write(BINDING)
    assert writer.header(BINDING, secure=False) == expected
    assert writer.header(BINDING, secure=True) == expected + b"; Secure"


def test_the_cookie_lives_no_longer_than_what_is_left_of_max_age() -> None:
    old = BINDING._replace(issued=NOW - 86_000)
    assert b"; Max-Age=400;" in cookie().header(old, secure=False)
    older = BINDING._replace(issued=NOW - 90_000)
    assert b"; Max-Age=0;" in cookie().header(older, secure=False)


def test_it_is_due_when_half_of_max_idle_has_gone_by() -> None:
    assert not cookie().is_due(BINDING, NOW + 1799)
    assert cookie().is_due(BINDING, NOW + 1800)


def test_a_cookie_without_a_key_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"service shop: .* needs a key"):
        cookie(keys=())


def test_a_key_may_be_longer_than_the_hash_takes() -> None:
    long = cookie(keys=("ab" * 100,))
    assert long.read(long.write(BINDING), NOW) == BINDING
    assert 0 <= bucket_of(b"k" * 100, b"x") < WHOLE


def test_remembered_cookies_do_not_pile_up_and_forged_ones_are_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sticky_module, "_MEMO_LIMIT", 10)
    reader = cookie()
    for epoch in range(25):
        value = cookie().write(BINDING._replace(epoch=epoch))
        assert reader.read(value, NOW) == reader.read(value, NOW)
        reader.read(value + b"x", NOW)
        assert 0 < len(reader._memo) <= 10


def test_an_endpoint_is_marked_by_eight_hex_digits_that_are_its_own() -> None:
    assert re.fullmatch("[0-9a-f]{8}", endpoint_mark("127.0.0.1:9001"))
    assert endpoint_mark("127.0.0.1:9001") == endpoint_mark("127.0.0.1:9001")
    assert endpoint_mark("127.0.0.1:9001") != endpoint_mark("127.0.0.1:9002")


def test_hashed_clients_fill_the_buckets_evenly() -> None:
    tenths = Counter(
        bucket_of(b"key", b"10.0.%d.%d" % divmod(n, 256)) // 1000 for n in range(20_000)
    )
    assert len(tenths) == 10
    assert min(tenths.values()) > 1800
    assert max(tenths.values()) < 2200


def test_a_client_keeps_its_bucket_under_one_key_and_has_another_under_another() -> None:
    assert bucket_of(b"a", b"10.0.0.1") == bucket_of(b"a", b"10.0.0.1")
    moved = sum(bucket_of(b"a", b"%d" % n) != bucket_of(b"b", b"%d" % n) for n in range(1000))
    assert moved > 990


def test_a_hash_has_64_bits() -> None:
    assert all(0 <= hash_of(b"%d" % n) < 2**64 for n in range(100))
    assert max(hash_of(b"%d" % n) for n in range(100)) > 2**62
