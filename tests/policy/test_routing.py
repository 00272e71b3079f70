"""Routing: the most specific host, then the longest path on segment borders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import Route
from proxy.policy.routing import _MEMO_LIMIT, NOWHERE, Router


def router(*routes: tuple[str | None, str]) -> Router:
    return Router((Route(host=host, path=path), index) for index, (host, path) in enumerate(routes))


def test_an_exact_host_wins_over_a_wildcard_and_a_wildcard_over_any() -> None:
    routes = router((None, "/"), ("*.example.com", "/"), ("shop.example.com", "/"))
    assert routes.find(b"shop.example.com", b"/") == 2
    assert routes.find(b"api.example.com", b"/") == 1
    assert routes.find(b"example.org", b"/") == 0


def test_the_longest_wildcard_suffix_wins() -> None:
    routes = router(("*.example.com", "/"), ("*.eu.example.com", "/"))
    assert routes.find(b"a.eu.example.com", b"/") == 1
    assert routes.find(b"a.us.example.com", b"/") == 0


def test_a_wildcard_stands_for_one_or_more_labels_but_not_for_none() -> None:
    routes = router(("*.example.com", "/"))
    assert routes.find(b"a.example.com", b"/") == 0
    assert routes.find(b"a.b.c.example.com", b"/") == 0
    assert routes.find(b"example.com", b"/") == NOWHERE
    assert routes.find(b".example.com", b"/") == NOWHERE
    assert routes.find(b"badexample.com", b"/") == NOWHERE


@pytest.mark.parametrize(
    "host",
    [b"shop.example.com", b"SHOP.Example.COM", b"shop.example.com:8080", b"shop.example.com.:80"],
)
def test_case_port_and_trailing_dot_of_the_host_do_not_matter(host: bytes) -> None:
    assert router(("shop.example.com", "/")).find(host, b"/x") == 0
    assert router(("*.example.com", "/")).find(host, b"/x") == 0


@pytest.mark.parametrize("written", ["::1", "[::1]"])
@pytest.mark.parametrize("host", [b"[::1]", b"[::1]:8080"])
def test_an_ipv6_host_is_found_with_and_without_a_port(written: str, host: bytes) -> None:
    assert router((written, "/")).find(host, b"/") == 0


def test_the_longest_path_wins_whatever_the_order_of_the_routes() -> None:
    routes = router(("a.io", "/"), ("a.io", "/api/v2"), ("a.io", "/api"))
    assert routes.find(b"a.io", b"/api/v2/users") == 1
    assert routes.find(b"a.io", b"/api/v1") == 2
    assert routes.find(b"a.io", b"/other") == 0


@pytest.mark.parametrize("written", ["/api", "/api/"])
def test_a_path_is_a_prefix_on_segment_borders_and_its_trailing_slash_is_meaningless(
    written: str,
) -> None:
    routes = router((None, written))
    for target in (b"/api", b"/api/", b"/api/x", b"/api?x", b"/api/?x=/y"):
        assert routes.find(b"h", target) == 0, target
    for target in (b"/apix", b"/ap", b"/", b"/x/api", b"/?/api", b"*"):
        assert routes.find(b"h", target) == NOWHERE, target


def test_paths_are_compared_raw() -> None:
    routes = router((None, "/api"))
    assert routes.find(b"h", b"/%61pi") == NOWHERE
    assert routes.find(b"h", b"/API") == NOWHERE
    assert routes.find(b"h", b"/x/../api") == NOWHERE


def test_the_asterisk_is_treated_as_the_root() -> None:
    assert router((None, "/")).find(b"h", b"*") == 0
    assert router((None, "/api"), (None, "/")).find(b"h", b"*") == 1


def test_a_host_without_a_route_for_the_path_falls_on_to_the_next_host() -> None:
    routes = router(("a.b.io", "/api"), ("*.b.io", "/web"), (None, "/"))
    assert routes.find(b"a.b.io", b"/api") == 0
    assert routes.find(b"a.b.io", b"/web") == 1
    assert routes.find(b"a.b.io", b"/else") == 2


def test_of_two_equal_routes_the_first_one_wins() -> None:
    assert router(("a.io", "/x"), ("a.io", "/x/")).find(b"a.io", b"/x") == 0


def test_the_second_answer_is_the_first_one() -> None:
    routes = router(("a.io", "/api"), (None, "/api/v1"))
    for host in (b"a.io", b"b.io"):
        for target in (b"/api", b"/api/v1", b"/"):
            assert routes.find(host, target) == routes.find(host, target)


def test_hosts_made_up_by_strangers_do_not_pile_up() -> None:
    routes = router(("*.a.io", "/"))
    for number in range(3 * _MEMO_LIMIT):
        assert routes.find(b"%d.a.io" % number, b"/") == 0
    routes.find(b"x" * 10_000, b"/")
    assert len(routes._memo) <= _MEMO_LIMIT
    assert len(routes._whole) <= _MEMO_LIMIT
    assert max(map(len, routes._memo)) < 300


def test_a_host_longer_than_any_name_finds_only_the_routes_for_any_host() -> None:
    host = b"a." * 10_000 + b"a.io"
    assert router(("*.a.io", "/")).find(host, b"/") == NOWHERE
    assert router(("*.a.io", "/"), (None, "/")).find(host, b"/") == 1


@given(host=st.binary(max_size=300), target=st.binary(max_size=50))
def test_no_bytes_make_it_raise(host: bytes, target: bytes) -> None:
    routes = router(("a.io", "/api"), ("*.b.io", "/"))
    assert routes.find(host, target) in {NOWHERE, 0, 1}


names = st.sampled_from(["a", "b", "c"])
hosts = st.one_of(
    st.none(),
    st.lists(names, min_size=1, max_size=3).map(".".join),
    st.lists(names, min_size=1, max_size=2).map(lambda labels: "*." + ".".join(labels)),
)
paths = st.lists(names, max_size=3).map(lambda segments: "/" + "/".join(segments))


def rank(route: Route, labels: list[str], segments: list[str]) -> tuple[int, int] | None:
    """How specific a route is for a request, by the words of the rule; None when it is not for it."""
    wanted = [segment for segment in route.path.split("/") if segment]
    if segments[: len(wanted)] != wanted:
        return None
    if route.host is None:
        return 0, len(wanted)
    if not route.host.startswith("*."):
        return (100, len(wanted)) if route.host.split(".") == labels else None
    suffix = route.host[2:].split(".")
    if len(labels) <= len(suffix) or labels[-len(suffix) :] != suffix:
        return None
    return len(suffix), len(wanted)


@given(
    routes=st.lists(st.tuples(hosts, paths), max_size=8),
    labels=st.lists(names, min_size=1, max_size=4),
    segments=st.lists(names, max_size=4),
)
def test_it_finds_what_the_rule_says(
    routes: list[tuple[str | None, str]], labels: list[str], segments: list[str]
) -> None:
    best, best_rank = NOWHERE, (-1, -1)
    for index, (host, path) in enumerate(routes):
        ranked = rank(Route(host=host, path=path), labels, segments)
        if ranked is not None and ranked > best_rank:
            best, best_rank = index, ranked
    host_header = ".".join(labels).encode()
    assert router(*routes).find(host_header, b"/" + "/".join(segments).encode()) == best
