"""Where the docs are, and what is written in them: blocks of code, headings, links."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Blocks = Callable[[str, str], list[str]]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def blocks() -> Blocks:
    """Take the fenced blocks of a language out of a Markdown text."""

    def found(text: str, language: str) -> list[str]:
        return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)

    return found
