from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.control.config.environment import expand
from proxy.control.config.problem import Wrong

ENVIRON = {"NAME": "shop", "EMPTY": "", "TRICKY": "${NAME} $NAME \\"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("${NAME}", "shop"),
        ("a-${NAME}-${NAME}", "a-shop-shop"),
        ("${NAME:-x}", "shop"),
        ("${UNSET:-x}", "x"),
        ("${UNSET:-}", ""),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY}", ""),
        ("${UNSET:-http://a:80}", "http://a:80"),
        ("${UNSET:-$NAME \\$ $$}", "$NAME \\$ $$"),
        ("${TRICKY}", "${NAME} $NAME \\"),
    ],
)
def test_two_forms_are_expanded_once(text: str, expanded: str) -> None:
    assert expand(text, ENVIRON) == expanded


@pytest.mark.parametrize("text", ["$NAME", "$", "$$", "5$", "a$b", "$(NAME)", "\\$", "{NAME}"])
def test_any_other_dollar_stays_a_dollar(text: str) -> None:
    assert expand(text, ENVIRON) == text


@pytest.mark.parametrize(
    "text", ["${", "${}", "${1A}", "${NAME", "${NAME-x}", "${#NAME}", "${NAME:=x}"]
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(Wrong, match=r"expected \$\{NAME\} or \$\{NAME:-default\}"):
        expand(text, ENVIRON)


def test_an_unset_variable_without_a_default_is_named() -> None:
    with pytest.raises(Wrong, match="the environment variable UNSET is not set"):
        expand("${UNSET}", ENVIRON)


def test_a_variable_that_is_not_utf8_is_named_and_not_shown() -> None:
    with pytest.raises(Wrong, match=r"^the environment variable RAW is not UTF-8$"):
        expand("${RAW}", {"RAW": "\udcff"})


@given(st.text(alphabet="${}:-NAME \\"))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    try:
        expand(text, ENVIRON)
    except Wrong:
        assert "${" in text
