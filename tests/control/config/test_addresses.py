from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.control.config import addresses
from proxy.control.config.problem import Wrong

PARSERS: list[Callable[[Any], str]] = [
    addresses.address,
    addresses.bind,
    addresses.host,
    addresses.network,
    addresses.route_path,
]


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.text(alphabet="0123456789abcdef.:/[]*-%unix?#")
)
def test_whatever_a_value_is_it_is_taken_or_called_wrong(value: Any) -> None:
    for parse in PARSERS:
        try:
            taken = parse(value)
        except Wrong as wrong:
            assert str(wrong).isprintable()  # noqa: PT017 - most values are wrong, not all
        else:
            assert parse(taken) == taken


@pytest.mark.parametrize(
    ("written", "one_spelling"),
    [
        ("127.0.0.1:9001", "127.0.0.1:9001"),
        ("App.Internal:80", "app.internal:80"),
        ("my_app-1:65535", "my_app-1:65535"),
        ("[::1]:1", "[::1]:1"),
        ("[0:0:0:0:0:0:0:1]:80", "[::1]:80"),
        ("[fe80::1%eth0]:80", "[fe80::1%eth0]:80"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
    ],
)
def test_addresses_have_one_spelling(written: str, one_spelling: str) -> None:
    assert addresses.address(written) == one_spelling
    assert addresses.bind(written) == one_spelling


@pytest.mark.parametrize(
    "written",
    [
        "localhost",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:08080",
        "127.0.0.1:http",
        "127.0.0.256:80",
        "1.2.3:80",
        "a b:80",
        "-a:80",
        ":80",
        "[::1]",
        "[nonsense]:80",
        "[127.0.0.1]:80",
        "unix:",
        "unix:/",
        "unix:run/app.sock",
        "unix:/" + "x" * 107,
        "٣.0.0.1:80",
        "127.0.0.1:80\n",
    ],
)
def test_what_is_no_address_is_refused(written: str) -> None:
    with pytest.raises(Wrong):
        addresses.address(written)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://app:9001/x", "app:9001"),
        ("http://app", "app:80"),
        ("https://app/", "app:443"),
        ("::1:80", "[::1]:80"),
        ("unix:run/app.sock", "unix:/run/app.sock"),
    ],
)
def test_a_slip_in_an_address_is_understood(written: str, meant: str) -> None:
    with pytest.raises(Wrong) as caught:
        addresses.address(written)
    assert caught.value.suggestion == meant


@pytest.mark.parametrize("read", [addresses.address, addresses.bind])
def test_an_abstract_socket_is_refused_with_the_reason(read: Callable[[str], str]) -> None:
    with pytest.raises(Wrong) as caught:
        read("unix:@turnout")
    assert caught.value.expected == "a path: an abstract socket has no permissions"


@pytest.mark.parametrize("written", [8080, ":8080", "*:8080"])
def test_a_bind_that_is_only_a_port_gets_a_host_suggested(written: Any) -> None:
    with pytest.raises(Wrong) as caught:
        addresses.bind(written)
    assert caught.value.suggestion == "0.0.0.0:8080"


def test_only_loopback_and_unix_are_local() -> None:
    local = ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/run/x"]
    reachable = ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.com:1"]
    assert [bind for bind in local + reachable if addresses.is_local(bind)] == local


@pytest.mark.parametrize(
    ("written", "pattern"),
    [
        ("Shop.Example.com", "shop.example.com"),
        ("*.example.com", "*.example.com"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "[::1]"),
    ],
)
def test_hosts_are_exact_or_begin_with_a_star(written: str, pattern: str) -> None:
    assert addresses.host(written) == pattern


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("*", "to leave host out, which means any host"),
        ("shop.example.com:8080", "shop.example.com"),
        ("https://shop.example.com/", "shop.example.com"),
        ("shop.example.com.", "shop.example.com"),
        ("bücher.de", "xn--bcher-kva.de"),
        ("shop.*.com", ""),
        ("*shop.com", ""),
        ("*.127.0.0.1", ""),
        ("a..b", ""),
    ],
)
def test_other_patterns_are_refused_with_what_was_meant(written: str, meant: str) -> None:
    with pytest.raises(Wrong) as caught:
        addresses.host(written)
    assert caught.value.suggestion == meant


def test_a_path_ends_at_a_segments_border() -> None:
    assert [addresses.route_path(path) for path in ("/", "/api", "/api/", "//")] == [
        "/",
        "/api",
        "/api",
        "/",
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [("api", "/api"), ("/api?x=1", "/api"), ("/api#x", "/api"), ("/a b", ""), ("/ü", "")],
)
def test_paths_begin_with_a_slash_and_are_only_paths(written: str, meant: str) -> None:
    with pytest.raises(Wrong) as caught:
        addresses.route_path(written)
    assert caught.value.suggestion == meant


@pytest.mark.parametrize(
    ("written", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("FD00::/8", "fd00::/8"),
        ("::1", "::1/128"),
        ("unix:", "unix:"),
    ],
)
def test_networks_are_written_with_their_length(written: str, network: str) -> None:
    assert addresses.network(written) == network


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("10.0.0.0/33", ""),
        ("lan", ""),
        ("unix:/run/a.sock", ""),
    ],
)
def test_what_is_no_network_is_refused(written: str, meant: str) -> None:
    with pytest.raises(Wrong) as caught:
        addresses.network(written)
    assert caught.value.suggestion == meant


@pytest.mark.parametrize(
    "written", ["shop.internal", "Shop.Internal:8443", "10.0.0.1", "10.0.0.1:80", "[::1]:9000"]
)
def test_a_host_header_is_a_name_or_an_address_perhaps_with_a_port(written: str) -> None:
    assert addresses.authority(written) == written.lower()


@pytest.mark.parametrize(
    "written", ["*.a.b", "a b", "a:0", "a:99999", "::1", "http://a", "", "a/b"]
)
def test_what_is_no_host_header_is_refused(written: str) -> None:
    with pytest.raises(Wrong):
        addresses.authority(written)


@pytest.mark.parametrize("written", ["/", "/healthz", "/h?full=1&a=%20"])
def test_a_path_to_ask_for_may_have_a_query(written: str) -> None:
    assert addresses.request_path(written) == written


@pytest.mark.parametrize("written", ["healthz", "/a b", "/a#b", "/ä", "", 3])
def test_what_no_request_line_carries_is_no_path(written: Any) -> None:
    with pytest.raises(Wrong):
        addresses.request_path(written)
