"""Forwarded: what its elements say, and nothing at all of one that is malformed."""

from __future__ import annotations

import pytest

from proxy.http1.forwarded import Forwarded, element


@pytest.mark.parametrize(
    ("value", "chain"),
    [
        (b"for=192.0.2.1", b"192.0.2.1"),
        (b"For=192.0.2.1;PROTO=http , for=192.0.2.2", b"192.0.2.1, 192.0.2.2"),
        (b'for="[2001:db8::1]"', b"2001:db8::1"),
        (b'for="[2001:db8::1]:80"', b"[2001:db8::1]:80"),
        (b'for="192.0.2.1:80";by=_x', b"192.0.2.1:80"),
        (b'for="_a\\"b"', b'_a"b'),
        (b"proto=https", b""),
        (b'for="1.1.1.1, 2.2.2.2"', b"unknown"),
        (b'host="a;for=6.6.6.6,for=6.6.6.6";for=192.0.2.1', b"192.0.2.1"),
        (b", for=a,, for=b;, for=c ,", b"a, b, c"),
    ],
)
def test_the_chain_is_what_the_elements_name(value: bytes, chain: bytes) -> None:
    said = Forwarded(value)
    assert said.value == value
    assert said.chain == chain


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b",",
        b"for",
        b"for=",
        b"for=a b",
        b"for =a",
        b'for="a',
        b"for=a;for=b",
        b"for=[::1]",
        b"for=a:80",
        b"for=a\xff",
        b'for="a\x00"',
        b"=a",
    ],
)
def test_what_is_malformed_says_nothing(value: bytes) -> None:
    said = Forwarded(value)
    assert (said.value, said.chain, said.host, said.proto) == (b"", b"", b"", b"")


def test_host_and_scheme_are_those_of_the_last_element() -> None:
    said = Forwarded(b'host=evil;proto=http, host="b:81";proto=https')
    assert (said.host, said.proto) == (b"b:81", b"https")
    assert Forwarded(b"host=evil, for=a").host == b""


@pytest.mark.parametrize(
    ("peer", "host", "made"),
    [
        ("192.0.2.1", b"a.example", b"for=192.0.2.1;host=a.example;proto=https"),
        ("2001:db8::1", b"a:81", b'for="[2001:db8::1]";host="a:81";proto=https'),
        ("", b"[::1]", b'for=unknown;host="[::1]";proto=https'),
        ("192.0.2.1", b"", b'for=192.0.2.1;host="";proto=https'),
    ],
)
def test_our_element_is_one_that_we_read_again(peer: str, host: bytes, made: bytes) -> None:
    assert element(peer, host, b"https") == made
    said = Forwarded(b"for=_before, " + made)
    assert said.value
    assert said.host == host
    assert said.chain == b"_before, " + (peer or "unknown").encode()
