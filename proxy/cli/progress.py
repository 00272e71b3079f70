"""How a rollout is told while it goes on, without a terminal: lines for people, or JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import click

from proxy.cli import rollout_words, words
from proxy.cli.following import old_drain
from proxy.cli.session import write_json

View = Mapping[str, Any]

EVERY_S: Final = 30.0
"""A log that says nothing for longer looks as if it hung."""


class LineTeller:
    """A line with the time for each change, and one every EVERY_S."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shown: object = None
        self._due = 0.0

    def update(self, view: View, trouble: str) -> None:
        key = trouble or change(view)
        if key == self._shown and self._clock() < self._due:
            return
        self._shown, self._due = key, self._clock() + EVERY_S
        click.echo(f"{datetime.now().astimezone():%H:%M:%S}  {trouble or line(view)}")

    def close(self, view: View) -> None:
        """Nothing is open; what it came to is said by who asked."""


class JsonTeller:
    """The service's view as a line of JSON for each change; the last one as it is at the end."""

    def __init__(self) -> None:
        self._shown: object = None
        self._last: View | None = None

    def update(self, view: View, trouble: str) -> None:
        if trouble or change(view) == self._shown:
            return
        self._shown = change(view)
        self._write(view)

    def close(self, view: View) -> None:
        if view != self._last:
            self._write(view)

    def _write(self, view: View) -> None:
        self._last = view
        write_json(view)


def change(view: View) -> object:
    """What makes a new line when it differs from the one before."""
    rollout = view.get("rollout")
    if rollout is None:
        return None
    guard = view.get("guard") or {}
    return (
        rollout["id"],
        rollout["phase"],
        rollout["step"],
        rollout.get("paused"),
        rollout.get("reason"),
        guard.get("verdict") if guard.get("verdict") in {"HOLD", "FAIL"} else None,
        view["weights"]["in_force"],
    )


def line(view: View) -> str:
    """`step 2 of 4: green 10 %, 3m12s of 5m left; 812 requests; evidence 0.3 of 5.3 (errors)`."""
    rollout = view.get("rollout")
    if rollout is None:
        return "no rollout"
    parts = [rollout_words.sentence(view)]
    if rollout["phase"] in {"baking", "paused", "manual"}:
        guard = view.get("guard")
        parts += [
            words.count(int(rollout.get("requests") or 0), "request"),
            rollout_words.sides(guard),
            rollout_words.evidence(guard),
        ]
    if rollout_words.is_finished(view):
        parts.append(words.drain_sentence(old_drain(view)).removesuffix("."))
    return "; ".join(filter(None, parts))
