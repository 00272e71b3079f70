"""Targets and Host: every form comes down to one, and what is none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http1.message import Malformed, RequestHead
from proxy.http1.target import settle


def head_of(target: bytes, host: bytes = b"a", method: bytes = b"GET") -> RequestHead:
    head = RequestHead(method, target, [])
    head.host = host
    return head


@pytest.mark.parametrize(
    ("method", "target", "settled", "host"),
    [
        (b"GET", b"/x?y", b"/x?y", b"a"),
        (b"GET", b"//x", b"//x", b"a"),
        (b"GET", b"http://b", b"/", b"b"),
        (b"GET", b"HTTPS://b:1/x", b"/x", b"b:1"),
        (b"GET", b"http://b?q=/1", b"/?q=/1", b"b"),
        (b"GET", b"http://[::1]:80/", b"/", b"[::1]:80"),
        (b"OPTIONS", b"*", b"*", b"a"),
        (b"OPTIONS", b"http://b", b"*", b"b"),
        (b"OPTIONS", b"http://b/", b"/", b"b"),
        (b"OPTIONS", b"http://b?", b"/?", b"b"),
    ],
)
def test_every_form_comes_down_to_a_path_and_a_host(
    method: bytes, target: bytes, settled: bytes, host: bytes
) -> None:
    head = head_of(target, method=method)
    settle(head)
    assert (head.target, head.host) == (settled, host)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        (b"GET", b"*", 400),
        (b"GET", b"", 400),
        (b"GET", b"x", 400),
        (b"GET", b"b:80", 400),
        (b"GET", b"ftp://b/", 400),
        (b"GET", b"http:///x", 400),
        (b"GET", b"http://", 400),
        (b"GET", b"http://u@b/", 400),
        (b"GET", b"http://b:1:2/", 400),
        (b"GET", b"http://b\\@c/", 400),
        (b"GET", b"http://[0:1]/", 400),
        (b"GET", b"http://[::1::2]/", 400),
        (b"OPTIONS", b"*x", 400),
        (b"CONNECT", b"b:443", 501),
    ],
)
def test_what_is_no_target_is_refused(method: bytes, target: bytes, status: int) -> None:
    with pytest.raises(Malformed) as bad:
        settle(head_of(target, method=method))
    assert bad.value.status == status


@pytest.mark.parametrize(
    "host", [b"a", b"A.b-c_d", b"a:80", b"a:", b"[::1]", b"[::ffff:1.2.3.4]:8", b"1.2.3.4:65535"]
)
def test_a_host_passes_with_and_without_blanks_behind_it(host: bytes) -> None:
    for value in (host, host + b" ", host + b"\t "):
        head = head_of(b"/", value)
        settle(head)
        assert head.host == host


@pytest.mark.parametrize(
    "host",
    [
        *(b"", b" ", b"a b", b"a,b", b"a, b", b"a/b", b"a@b", b"a\\b", b"a?b", b"a#b", b'a"b'),
        *(b"a:1:2", b"a:b", b"a:123456", b":80", b"[::1", b"a]", b"[::1]a", b"[g]", b"[]", b"\xe4"),
    ],
)
def test_what_is_no_host_is_refused(host: bytes) -> None:
    with pytest.raises(Malformed, match="Host"):
        settle(head_of(b"/", host))


def test_an_old_client_needs_no_host() -> None:
    head = head_of(b"/", b"")
    head.version_1_0 = True
    settle(head)
    assert head.host == b""


@given(target=st.binary(max_size=30), host=st.binary(max_size=10))
def test_whatever_comes_is_settled_or_malformed(target: bytes, host: bytes) -> None:
    head = head_of(target, host)
    try:
        settle(head)
    except Malformed:
        return
    assert head.target.startswith(b"/")
    assert head.host
    assert not set(head.host) & set(b' \t\r\n/\\@,#?"')
