"""Query parameters: taken by name, all that is wrong with them said at once."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.control.admin import duration
from proxy.control.admin.nearest import unknown_key
from proxy.control.admin.problem import invalid


class Query:
    """Takes typed values out of a query string, collecting what is wrong until `done`."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for key, value in pairs:
            self._values.setdefault(key, []).append(value)
        self._asked: set[str] = set()
        self._errors: list[str] = []

    def done(self) -> None:
        """Raise Problem 422 with every error and every unknown parameter, if there are any."""
        unknown = [key for key in self._values if key not in self._asked]
        errors = self._errors + [unknown_key(key, self._asked, "parameter") for key in unknown]
        if errors:
            raise invalid(errors)

    def number(self, key: str, default: int, *, least: int, most: int) -> int:
        text = self.text(key)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            self._errors.append(f"{key}: {text[:40]!r} is no whole number")
            return default
        if not least <= int(text) <= most:
            self._errors.append(f"{key}: {text} is out of range (expected {least} to {most})")
        return int(text)

    def seconds(self, key: str, default: float) -> float:
        text = self.text(key)
        if text is None:
            return default
        try:
            return duration.seconds(text)
        except ValueError as error:
            self._errors.append(f"{key}: {error}")
            return default

    def text(self, key: str) -> str | None:
        """Return the parameter's value, or None when it is absent."""
        self._asked.add(key)
        values = self._values.get(key, [])
        if len(values) > 1:
            self._errors.append(f"{key}: given {len(values)} times")
        return values[0] if values else None
