from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.control.config.check import check

Problems = Callable[..., list[str]]


def _found(problems: list[str]) -> list[str]:
    """The problems without the file's name."""
    return [problem.removeprefix("t.yaml:") for problem in problems]


def test_the_active_pool_must_exist(problems: Problems, minimal: str) -> None:
    assert _found(problems(minimal.replace("active: blue", "active: bleu"))) == [
        '9:13: services.shop.active: unknown pool "bleu" (expected blue or green; did you mean blue)'
    ]


def test_weights_name_pools_that_exist(problems: Problems) -> None:
    assert _found(problems(service="    weights: {blue: 90, gren: 10}\n")) == [
        (
            '10:25: services.shop.weights.gren: unknown pool "gren" '
            "(expected blue or green; did you mean green)"
        )
    ]


@pytest.mark.parametrize("switch", ["true", "${PROXIED}"])
@pytest.mark.parametrize("trusted", ["", "    trusted_proxies: []\n"])
def test_a_proxy_header_is_asked_of_somebody(
    problems: Problems, minimal: str, switch: str, trusted: str
) -> None:
    bind = "  - bind: 127.0.0.1:8080\n"
    text = minimal.replace(bind, f"{bind}    proxy_protocol: {switch}\n{trusted}")
    assert _found(problems(text, environ={"PROXIED": "true"})) == [
        (
            "3:21: listeners[0].proxy_protocol: is on, and there is nobody whose PROXY header is "
            "believed (expected trusted_proxies with the networks of the balancers)"
        )
    ]
    trusting = text.replace(trusted, "") if trusted else text
    trusting = trusting.replace(bind, f"{bind}    trusted_proxies: [10.0.0.0/8]\n")
    assert problems(trusting, environ={"PROXIED": "true"}) == []


@pytest.mark.parametrize(
    ("weights", "total"), [("blue: 90", "90"), ("blue: 99.5, green: 1", "100.5"), ("", "0")]
)
def test_weights_add_up_to_100(problems: Problems, weights: str, total: str) -> None:
    assert _found(problems(service=f"    weights: {{{weights}}}\n")) == [
        f"10:14: services.shop.weights: add up to {total} (expected 100)"
    ]


def test_weights_are_added_exactly(problems: Problems) -> None:
    assert problems(service="    weights: {blue: 33.34, green: 66.66}\n") == []


def test_weights_that_cannot_be_read_are_not_added(problems: Problems) -> None:
    assert _found(problems(service="    weights: {blue: 33.333, green: 1}\n")) == [
        (
            "10:21: services.shop.weights.blue: is the number 33.333, more than two decimals "
            "(expected a percentage from 0 to 100, such as 90 or 12.5; did you mean 33.33)"
        )
    ]


def test_a_pool_without_endpoints_has_no_weight(problems: Problems, minimal: str) -> None:
    text = minimal.replace('green: {endpoints: ["127.0.0.1:9101"]}', "green: {}")
    assert _found(problems(text + "    weights: {blue: 90, green: 10}\n")) == [
        (
            "10:32: services.shop.weights.green: gives traffic to the pool green, "
            "which has no endpoints (expected 0, or endpoints in green)"
        )
    ]
    assert problems(text + "    weights: {blue: 100, green: 0}\n") == []


def test_a_service_may_wait_for_its_first_deploy_altogether(
    problems: Problems, minimal: str
) -> None:
    assert problems(minimal.replace('["127.0.0.1:9001"]', "[]")) == []


@pytest.mark.parametrize(
    ("pools", "what"),
    [("{}", "is empty"), ("{a: {}, b: {}, blue: {}}", "has 3 pools")],
)
def test_a_service_has_one_or_two_pools(problems: Problems, pools: str, what: str) -> None:
    text = (
        "listeners: [{bind: '127.0.0.1:80'}]\n"
        f"services: {{shop: {{routes: [{{}}], active: blue, pools: {pools}}}}}\n"
    )
    assert _found(problems(text)) == [
        f"2:54: services.shop.pools: {what} (expected one or two pools)"
    ]


def test_one_pool_of_any_name_is_enough(problems: Problems) -> None:
    text = (
        "listeners: [{bind: '127.0.0.1:80'}]\n"
        "services: {shop: {routes: [{}], active: main, pools: {main: {}}}}\n"
    )
    assert problems(text) == []


def test_endpoints_of_a_pool_are_different(problems: Problems, minimal: str) -> None:
    text = minimal.replace('["127.0.0.1:9001"]', '["app:1", "app:2", {address: "APP:1"}]')
    assert _found(problems(text)) == [
        "7:44: services.shop.pools.blue.endpoints[2]: app:1 is already endpoints[0] of this pool"
    ]


def test_two_pools_may_share_an_endpoint(problems: Problems, minimal: str) -> None:
    assert problems(minimal.replace("9101", "9001")) == []


def test_listeners_and_admin_have_different_binds(problems: Problems, minimal: str) -> None:
    text = minimal.replace(
        "services:", "  - bind: 127.0.0.1:8080\n  - bind: 127.0.0.1:9900\nservices:"
    )
    assert _found(problems(text)) == [
        "1:1: admin.bind: 127.0.0.1:9900 is already the bind of listeners[2]",
        "3:11: listeners[1].bind: 127.0.0.1:8080 is already the bind of listeners[0]",
    ]


def test_at_least_one_listener_and_one_route(problems: Problems) -> None:
    text = "listeners: []\nservices: {s: {routes: [], pools: {a: {}}, active: a}}\n"
    assert _found(problems(text)) == [
        "1:12: listeners: is empty (expected at least one)",
        "2:24: services.s.routes: is empty (expected at least one)",
    ]


def test_a_proxy_without_services_is_valid(problems: Problems) -> None:
    assert problems("listeners: [{bind: '127.0.0.1:80'}]\nservices: {}\n") == []


@pytest.mark.parametrize("route", ["{path: /}", "{}", "{path: //}"])
def test_a_route_belongs_to_one_service(problems: Problems, route: str) -> None:
    other = f"  other: {{routes: [{route}], pools: {{a: {{}}}}, active: a}}\n"
    assert _found(problems(service=other)) == [
        "10:20: services.other.routes[0]: any host with / is already services.shop.routes[0]"
    ]


def test_routes_that_differ_only_in_spelling_are_the_same(problems: Problems) -> None:
    other = (
        "  other: {pools: {a: {}}, active: a, routes: "
        "[{host: A.example.com, path: /x}, {host: a.example.com, path: /x/}]}\n"
    )
    assert _found(problems(service=other)) == [
        "10:80: services.other.routes[1]: a.example.com with /x is already services.other.routes[0]"
    ]


def test_an_admin_that_others_can_reach_needs_a_token(problems: Problems) -> None:
    assert _found(problems(top="admin: {bind: '0.0.0.0:9900'}\n")) == [
        (
            "10:1: admin.token: is missing, and others than this machine can reach 0.0.0.0:9900 "
            "(expected a token, or a loopback or unix bind)"
        )
    ]
    assert len(problems(top="admin: {bind: '0.0.0.0:9900', token: '${T:-}'}\n")) == 1


@pytest.mark.parametrize(
    "admin",
    [
        "{bind: '0.0.0.0:9900', token: secret}",
        "{bind: 'unix:/run/turnout.sock'}",
        "{bind: '[::1]:9900'}",
        "{bind: 'localhost:9900', token: ''}",
    ],
)
def test_an_admin_with_a_token_or_for_this_machine_only_is_fine(
    problems: Problems, admin: str
) -> None:
    assert problems(top=f"admin: {admin}\n") == []


@pytest.mark.parametrize(
    ("admin", "what"),
    [
        ("{read_token: a}", "protects nothing without a token for changes"),
        ("{token: a, read_token: a}", "is the same as admin.token"),
    ],
)
def test_a_read_token_stands_beside_another_token(
    problems: Problems, admin: str, what: str
) -> None:
    (problem,) = problems(top=f"admin: {admin}\n")
    assert f"admin.read_token: {what}" in problem


@pytest.mark.parametrize("by", ["none", "client_ip", "header:X-User"])
def test_only_a_cookie_can_finish_its_session(problems: Problems, by: str) -> None:
    (problem,) = problems(service=f"    sticky: {{by: '{by}', on_zero: finish}}\n")
    assert "services.shop.sticky.on_zero: " in problem
    assert "(expected by: cookie, or on_zero: move)" in problem
    assert problems(service="    sticky: {by: cookie, on_zero: finish}\n") == []


def test_sticking_to_an_endpoint_needs_a_client_to_recognise(problems: Problems) -> None:
    (problem,) = problems(service="    sticky: {endpoint: true}\n")
    assert "services.shop.sticky.endpoint: has no effect while clients are not sticky" in problem
    assert problems(service="    sticky: {by: client_ip, endpoint: true}\n") == []


def test_sticky_and_preview_have_different_cookies(problems: Problems) -> None:
    (problem,) = problems(
        service="    sticky: {by: cookie, cookie: turnout_preview}\n    preview: {secret: s}\n"
    )
    assert 'sticky.cookie: "turnout_preview" is the cookie of both' in problem


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["blue", "a:1", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "listeners",
                    "services",
                    "admin",
                    "bind",
                    "token",
                    "read_token",
                    "routes",
                    "host",
                    "path",
                    "pools",
                    "endpoints",
                    "address",
                    "active",
                    "weights",
                    "sticky",
                    "by",
                    "on_zero",
                    "endpoint",
                    "cookie",
                    "preview",
                    "secret",
                    "blue",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=30,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["listeners", "services", "admin"]), TREES, max_size=3))
def test_values_of_any_shape_are_passed_over_or_found_wrong(tree: dict[str, Any]) -> None:
    for finding in check(tree):
        assert finding.what


@pytest.mark.parametrize(
    ("health", "said"),
    [
        (
            "{type: tcp, path: /up}",
            (
                "t.yaml:10:25: services.shop.health.path: has no effect, since type: tcp only opens "
                "a connection (expected type: http or https)"
            ),
        ),
        (
            "{verify: false}",
            (
                "t.yaml:10:14: services.shop.health.verify: has no effect without a certificate, which "
                "type: http has not (expected type: https)"
            ),
        ),
        (
            "{interval: 1ms}",
            (
                "t.yaml:10:24: services.shop.health.interval: is 1ms, which would be an attack "
                "(expected at least 50ms)"
            ),
        ),
        (
            "{headers: {Host: a}}",
            (
                "t.yaml:10:24: services.shop.health.headers.Host: is not for a check to send "
                "(expected the key host beside headers)"
            ),
        ),
        (
            "{headers: {Content-Length: '4'}}",
            (
                "t.yaml:10:24: services.shop.health.headers.Content-Length: is not for a check to send "
                "(expected a header of the request, not of the connection)"
            ),
        ),
        (
            "{headers: {X-A: a, x-a: b}}",
            "t.yaml:10:32: services.shop.health.headers.x-a: is the same header as X-A",
        ),
        (
            "{headers: {'X A': a}}",
            (
                't.yaml:10:24: services.shop.health.headers["X A"]: is "X A" '
                "(expected a name of letters, digits and hyphens)"
            ),
        ),
    ],
)
def test_checks_that_make_no_sense_are_refused(problems: Problems, health: str, said: str) -> None:
    assert problems(service=f"    health: {health}\n") == [said]


def test_a_listener_redirects_or_speaks_tls(problems: Problems, minimal: str) -> None:
    bind = "  - bind: 127.0.0.1:8080\n"
    tls = "    tls: {certificates: [{cert: a, key: b}]}\n"
    assert _found(problems(minimal.replace(bind, f"{bind}{tls}    redirect: {{to: https}}\n"))) == [
        (
            "4:5: listeners[0].redirect: would send clients in circles: with tls they speak https here "
            "already (expected redirect or tls)"
        )
    ]
    assert problems(minimal.replace(bind, bind + "    redirect: {to: https}\n")) == []


def test_a_prefix_is_left_out_only_where_there_is_one(problems: Problems, minimal: str) -> None:
    for path in ("", "path: /, "):
        routes = f"[{{{path}strip_prefix: true}}]"
        (problem,) = problems(minimal.replace("[{path: /}]", routes))
        assert problem.endswith(
            "services.shop.routes[0].strip_prefix: has no effect, since there is nothing in the "
            "path / to leave out (expected a longer path)"
        )
    assert problems(minimal.replace("[{path: /}]", "[{path: /a/, strip_prefix: true}]")) == []


@pytest.mark.parametrize(
    ("tls", "is_told"),
    [
        ("{}", True),
        ("{verify: true}", True),
        ("{verify: false}", False),
        ("{server_name: app.internal}", False),
    ],
)
def test_a_unix_socket_needs_a_name_for_its_certificate(
    problems: Problems, minimal: str, tls: str, *, is_told: bool
) -> None:
    pool = f'green: {{endpoints: ["127.0.0.1:9101", "unix:/run/a.sock"], tls: {tls}}}'
    text = minimal.replace('green: {endpoints: ["127.0.0.1:9101"]}', pool)
    told = (
        "8:45: services.shop.pools.green.endpoints[1]: unix:/run/a.sock says nothing of the name "
        "in its certificate (expected tls.server_name in this pool)"
    )
    assert _found(problems(text)) == ([told] if is_told else [])
