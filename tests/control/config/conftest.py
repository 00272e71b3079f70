"""What the tests of the configuration share: a small valid file, and the problems of any text."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from proxy.control.config.load import load_text
from proxy.control.config.problem import ConfigInvalid
from proxy.control.config.schema import Config

MINIMAL = """\
listeners:
  - bind: 127.0.0.1:8080
services:
  shop:
    routes: [{path: /}]
    pools:
      blue: {endpoints: ["127.0.0.1:9001"]}
      green: {endpoints: ["127.0.0.1:9101"]}
    active: blue
"""

Problems = Callable[..., list[str]]
Load = Callable[..., Config]


@pytest.fixture
def minimal() -> str:
    return MINIMAL


@pytest.fixture
def load() -> Load:
    """The configuration of a text that must be valid; `service` is added to the minimal file."""

    def _load(
        text: str = "", *, service: str = "", environ: Mapping[str, str] | None = None
    ) -> Config:
        return load_text(text or MINIMAL + service, "t.yaml", environ or {}).config

    return _load


@pytest.fixture
def problems() -> Problems:
    """The problems of a text as sentences, or of the minimal file with `service` or `top` added."""

    def _problems(
        text: str | None = None,
        *,
        service: str = "",
        top: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> list[str]:
        try:
            load_text(MINIMAL + service + top if text is None else text, "t.yaml", environ or {})
        except ConfigInvalid as invalid:
            return [str(problem) for problem in invalid.problems]
        return []

    return _problems
