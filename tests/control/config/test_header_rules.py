"""What header rules may name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.control.config.schema import Config

Problems = Callable[..., list[str]]
Load = Callable[..., Config]


def _with(side: str, rules: str) -> str:
    return f"    headers: {{{side}: {rules}}}\n"


@pytest.mark.parametrize(
    ("side", "rules"),
    [
        (
            "request",
            "{set: {Host: 'inside.example:81', X-Key: secret}, remove: [Cookie, authorization]}",
        ),
        ("request", "{set: {Cookie: a=b}, remove: [Accept-Encoding, Server, Proxy-Status]}"),
        (
            "response",
            "{set: {Date: never, Server: '', Set-Cookie: a=b}, remove: [Server, SET-COOKIE]}",
        ),
        ("response", "{remove: [X-Forwarded-For, Forwarded, Host]}"),
    ],
)
def test_headers_of_the_application_may_be_named(load: Load, side: str, rules: str) -> None:
    load(service=_with(side, rules))


FRAMING = "says how the message is framed, which is not a rule's business"
CONNECTION = "is about one connection, and never passed on"
OURS = "is what Turnout itself says"


@pytest.mark.parametrize(
    ("side", "name", "why"),
    [
        ("request", "Content-Length", FRAMING),
        ("response", "transfer-encoding", FRAMING),
        ("request", "Expect", FRAMING),
        ("response", "Connection", CONNECTION),
        ("request", "UPGRADE", CONNECTION),
        ("request", "Via", OURS),
        ("response", "X-Request-ID", OURS),
        ("request", "X-Forwarded-For", OURS),
        ("request", "X_Forwarded_For", OURS),
        ("request", "X-Forwarded-Prefix", OURS),
        ("request", "Forwarded", OURS),
        ("request", "traceparent", OURS),
        ("request", "tracestate", OURS),
        ("request", "X-Real-IP", OURS),
        ("request", "X-Client-Cert-Subject", OURS),
        ("request", "X-Turnout-Pool", OURS),
        ("response", "x-turnout-release", OURS),
        ("response", "Proxy-Status", OURS),
    ],
)
def test_the_connections_headers_and_ours_may_not(
    problems: Problems, side: str, name: str, why: str
) -> None:
    expected = f"{why} (expected a header of the application's)"
    assert problems(service=_with(side, f"{{set: {{{name}: '1'}}}}")) == [
        f"t.yaml:10:{24 + len(side)}: services.shop.headers.{side}.set.{name}: {expected}"
    ]
    assert problems(service=_with(side, f"{{remove: [X-A, {name}]}}")) == [
        f"t.yaml:10:{32 + len(side)}: services.shop.headers.{side}.remove[1]: {expected}"
    ]


def test_a_request_keeps_a_host(problems: Problems) -> None:
    assert problems(service=_with("request", "{remove: [host]}")) == [
        (
            't.yaml:10:34: services.shop.headers.request.remove[0]: is "Host", without which there is '
            "no request (expected to set another)"
        )
    ]
    assert problems(service=_with("request", "{set: {Host: 'a/b'}}")) == [
        (
            "t.yaml:10:37: services.shop.headers.request.set.Host: is no host "
            "(expected a host such as shop.internal:8443)"
        )
    ]


def test_a_header_is_set_once_by_a_name_that_is_one(problems: Problems) -> None:
    assert problems(service=_with("response", "{set: {X-A: '1', x-a: '2', 'X A': '3'}}")) == [
        "t.yaml:10:42: services.shop.headers.response.set.x-a: is the same header as X-A",
        (
            't.yaml:10:52: services.shop.headers.response.set["X A"]: is "X A" '
            "(expected a name of letters, digits and hyphens)"
        ),
    ]


@pytest.mark.parametrize(
    "value", ['"a\\r\\nX-Evil: 1"', '"a\\nb"', '"\\0"', "' a'", "ä", "4", "[]"]
)
def test_a_value_is_one_line_of_plain_characters_and_is_not_shown(
    problems: Problems, value: str
) -> None:
    (problem,) = problems(service=_with("request", f"{{set: {{X-A: {value}}}}}"))
    assert problem.startswith("t.yaml:10:36: services.shop.headers.request.set.X-A: ")
    assert "Evil" not in problem


def test_rules_of_the_wrong_shape_are_complained_of_once(problems: Problems) -> None:
    assert len(problems(service=_with("request", "{set: [a], remove: {b: c}}"))) == 2
    assert len(problems(service="    headers: {request: 4}\n")) == 1


def test_values_are_hidden_in_every_view(load: Load) -> None:
    config = load(service=_with("request", "{set: {X-Key: hunter2}}"))
    assert "hunter2" not in config.model_dump_json()
    assert "hunter2" not in repr(config)
    assert '"X-Key":"***"' in config.model_dump_json()
