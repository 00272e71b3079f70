"""What is wrong with a configuration: where, what, what was expected, what was probably meant."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]
"""Keys and indexes from the top of the file to a value."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_QUOTE = 60


class Wrong(ValueError):  # noqa: N818 - it reads as a sentence where it is raised
    """A value that cannot stand, seen without its place in a file.

    `what` is a sentence's end ("is negative"), the two others are names or examples.
    """

    def __init__(self, what: str, expected: str = "", suggestion: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected
        self.suggestion = suggestion

    def __str__(self) -> str:
        return self.what + _in_brackets(self.expected, self.suggestion)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong at a path; the loader knows the line."""

    path: Path
    what: str
    expected: str = ""
    suggestion: str = ""
    at_key: bool = False
    """The key itself is wrong, not the value behind it."""
    place: tuple[int, int] | None = None
    """Line and column where the path alone does not lead there."""
    since: Path | None = None
    """The key because of which this one has no effect; no fault of one inherited from `defaults`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong at a line; lines and columns count from 1."""

    file: str
    line: int
    column: int
    path: str
    what: str
    expected: str = ""
    suggestion: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: "
        subject = f"{self.path}: " if self.path else ""
        return place + subject + self.what + _in_brackets(self.expected, self.suggestion)


class ConfigInvalid(Exception):  # noqa: N818 - it names the state of the file, as Refused and Stale do
    """A configuration with at least one problem; they come in the order of the file."""

    def __init__(self, problems: Iterable[Problem], names: Sequence[Any] = ()) -> None:
        self.names = names
        """The files it names, where that could be read: one of them may be what is wrong."""
        self.problems = tuple(sorted(problems, key=lambda p: (p.line, p.column, p.path)))
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: Path) -> str:
    """`services.shop.pools.blue.endpoints[0]`; a key that is no plain word is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{quoted(part)}]"
    return text


def quoted(text: str) -> str:
    """The text in quotes, on one line, shortened when it is long."""
    short = text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 3] + "..."
    return json.dumps(short, ensure_ascii=not short.isprintable())


def either(words: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or an empty string."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.7)
    return by_lower[close[0]] if close else ""


def _in_brackets(expected: str, suggestion: str) -> str:
    parts = []
    if expected:
        parts.append(f"expected {expected}")
    if suggestion:
        parts.append(f"did you mean {suggestion}")
    return f" ({'; '.join(parts)})" if parts else ""
