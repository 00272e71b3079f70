"""How a rollout is told on a terminal: a block that stays in its place, and what changed above it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from proxy.cli import rollout_words, words
from proxy.cli.following import old_drain
from proxy.cli.progress import change
from proxy.cli.status_view import bar, colour_of
from proxy.cli.terminal import Paper, console, paper, table

View = Mapping[str, Any]

CELLS = 24
"""Width of a bar of evidence."""
NEAR = 50.0
"""Percent of its bar from which a test's evidence is shown in yellow: the judge holds by then."""


class LiveTeller:
    def __init__(self, out: Console | None = None) -> None:
        self._out = out or console()
        self._shown: object = None
        self._live = Live(console=self._out, auto_refresh=False, transient=True)
        self._live.start()

    def update(self, view: View, trouble: str) -> None:
        if not trouble and change(view) != self._shown:
            self._shown = change(view)
            self._out.print(Text(f"{datetime.now().astimezone():%H:%M:%S}  {_news(view)}"))
        self._live.update(frame(view, trouble, paper(self._out)), refresh=True)

    def close(self, _view: View) -> None:
        self._live.stop()


def _news(view: View) -> str:
    return rollout_words.sentence(view) if view.get("rollout") else "no rollout"


def frame(view: View, trouble: str, sheet: Paper) -> RenderableType:
    """The rollout at this moment: its steps, both sides, the evidence, what it waits for."""
    parts: list[RenderableType] = [Text()]
    if view.get("rollout"):
        parts += _rollout(view, sheet)
    foot = Text(f"! {trouble}", style="bold red") if trouble else Text("Ctrl-C leaves it going on")
    foot.stylize("dim" if not trouble else "")
    return Group(*parts, foot)


def _rollout(view: View, sheet: Paper) -> Iterator[RenderableType]:
    rollout = view["rollout"]
    yield Text.assemble((str(view["name"]), "bold"), f"  {rollout_words.title(rollout)}")
    yield Padding(_steps(rollout), (0, 0, 0, 2))
    yield Padding(Text(rollout_words.phase(view), style="bold"), (0, 0, 0, 2))
    if waits := rollout_words.waiting(view):
        yield Padding(Text(waits, style="yellow"), (0, 0, 0, 2))
    yield Padding(_sides(view, sheet), (1, 0, 0, 2), expand=False)
    if rollout_words.is_finished(view):
        yield Padding(Text(words.drain_sentence(old_drain(view)), style="yellow"), (0, 0, 0, 2))
    else:
        yield Padding(_evidence(view.get("guard") or {}, sheet), (1, 0, 0, 2), expand=False)


def _steps(rollout: View) -> Text:
    """All steps in a row, those behind us dim, the present one marked."""
    text = Text()
    for number, step in enumerate(rollout["steps"], start=1):
        is_now = number == rollout["step"] and rollout["phase"] in {"baking", "paused", "manual"}
        mark = "▸ " if is_now else ""
        style = "bold cyan" if is_now else "dim"
        gate = " pause" if step.get("pause") else ""
        bake = f" {words.duration(step['bake_s'])}" if step["bake_s"] else ""
        text.append(f"{mark}{words.percent(step['weight'])}{bake}{gate}", style=style)
        text.append("   ")
    return text


def _sides(view: View, sheet: Paper) -> RenderableType:
    """Both pools: share, and what the last second brought."""
    rollout = view["rollout"]
    found = (view.get("guard") or {}).get("sides") or {}
    shown = table(sheet)
    for head in ("pool", "weight", ""):
        shown.add_column(head, no_wrap=True)
    for head in ("requests/s", "failed", "in flight"):
        shown.add_column(head, justify="right", no_wrap=True)
    for index, pool in enumerate((rollout["candidate"], rollout["old"])):
        share = float(view["weights"]["in_force"].get(pool, 0))
        side, colour = found.get(pool), colour_of(pool, index)
        in_flight = ((view["pools"].get(pool) or {}).get("in_flight") or {}).values()
        shown.add_row(
            Text(pool, style=colour),
            words.percent(share),
            bar(share, 10, colour),
            words.number(int(side["requests"])) if side else "-",
            _failed(side),
            words.number(sum(in_flight)),
        )
    return shown


def _failed(side: View | None) -> Text:
    if not side or not side["requests"]:
        return Text("-")
    errors = int(side["errors"])
    share = words.percent(100.0 * errors / side["requests"])
    return Text(f"{words.number(errors)} ({share})", style="red" if errors else "")


def _evidence(guard: View, sheet: Paper) -> RenderableType:
    """Each test's evidence against the bar at which it turns back."""
    shown = table(sheet)
    for head in ("evidence", "", "turns back at"):
        shown.add_column(head, no_wrap=True)
    for test in guard.get("tests") or []:
        value, limit = max(0.0, float(test["evidence"])), float(test["bar"])
        part = min(100.0, 100.0 * value / limit) if limit > 0 else 0.0
        style = "red" if part >= 100 else ("yellow" if part >= NEAR else "green")
        shown.add_row(
            str(test["name"]),
            bar(part, CELLS, style),
            f"{float(test['evidence']):.1f} of {limit:.1f}",
        )
    return shown if guard.get("tests") else Text("no verdict yet", style="dim")
