from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from proxy.control.config.explain import fields_at, findings, kind_of_field
from proxy.control.config.problem import Finding
from proxy.control.config.schema import Config

VALID = {"listeners": [{"bind": "127.0.0.1:80"}], "services": {}}


def _findings(**changed: object) -> list[Finding]:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate({**VALID, **changed})
    return list(findings(caught.value))


def test_an_unknown_key_names_the_nearest_known_one() -> None:
    (finding,) = _findings(lisseners=[])
    assert finding == Finding(
        path=("lisseners",), what="unknown key", suggestion="listeners", at_key=True
    )


def test_an_unknown_key_like_none_other_names_them_all() -> None:
    (finding,) = _findings(access_log={"colour": "red"})
    assert (finding.path, finding.expected) == (("access_log", "colour"), "path or format")


@pytest.mark.parametrize(
    ("path", "first_key"),
    [
        ((), "listeners"),
        (("listeners", 0), "bind"),
        (("listeners", 3, "limits"), "max_header"),
        (("services", "shop"), "routes"),
        (("services", "shop", "preview"), "header"),
        (("services", "shop", "pools", "blue", "endpoints", 0), "address"),
        (("defaults",), "preview"),
    ],
)
def test_the_keys_of_every_section_are_known(path: tuple[str | int, ...], first_key: str) -> None:
    assert next(iter(fields_at(path))) == first_key


@pytest.mark.parametrize(
    "path", [("nonsense",), ("workers",), ("services", "shop", "weights"), ("listeners", 0, "bind")]
)
def test_what_is_no_section_has_no_keys(path: tuple[str | int, ...]) -> None:
    assert fields_at(path) == {}


def test_a_missing_key_says_what_kind_it_wants() -> None:
    missing = {finding.path[-1]: finding.expected for finding in _findings(services={"shop": {}})}
    assert missing == {"routes": "a list", "pools": "a mapping", "active": "a name"}


@pytest.mark.parametrize(
    ("changed", "what", "expected"),
    [
        ({"admin": "127.0.0.1:1"}, 'is "127.0.0.1:1"', "a mapping"),
        ({"listeners": {}}, "is a mapping", "a list"),
        ({"services": []}, "is a list", "a mapping"),
        ({"access_log": None}, "is empty", "a mapping"),
        ({"workers": 0}, "is the number 0", "a whole number from 1 to 256"),
    ],
)
def test_wrong_kinds_are_named(changed: dict[str, object], what: str, expected: str) -> None:
    (finding,) = _findings(**changed)
    assert (finding.what, finding.expected) == (what, expected)


def test_a_bad_name_points_at_the_key() -> None:
    service = {"routes": [{}], "pools": {"a b": {}}, "active": "a"}
    (finding,) = _findings(services={"shop": service})
    assert (finding.path, finding.at_key) == (("services", "shop", "pools", "a b"), True)


def test_every_key_has_a_kind_in_words() -> None:
    kinds: Callable[[tuple[str | int, ...]], dict[str, str]] = lambda path: {  # noqa: E731
        key: kind_of_field(field) for key, field in fields_at(path).items()
    }
    assert kinds(("services", "s", "routes", 0)) == {
        "host": "a host",
        "path": "a path",
        "strip_prefix": "true or false",
    }
    assert kinds(("services", "s", "sticky"))["on_zero"] == "`move` or `finish`"
    assert kinds(("services", "s"))["preview"] == "a mapping"
    assert kinds(())["workers"] == "a number, or `auto`"
