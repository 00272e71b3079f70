"""How the demo is told: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from proxy.cli import rollout_words, words
from proxy.cli.demo_load import Load
from proxy.cli.demo_report import Promise, Report, recent, shares
from proxy.cli.status_view import bar, colour_of, in_flight
from proxy.cli.terminal import Paper, console, is_plain, paper, show, table

WINDOW_S: Final = 3.0
"""The last seconds whose shares are shown as the ones of now."""


@dataclass(slots=True)
class Scene:
    """What is on stage at this moment."""

    load: Load
    began_s: float
    seconds: float
    since_s: float = 0.0
    """When the weights of now came into force: what was sent before says nothing about them."""
    service: Mapping[str, Any] = field(default_factory=dict)
    """The service as the admin showed it last."""

    @property
    def weights(self) -> Mapping[str, float]:
        found: Mapping[str, float] = (self.service.get("weights") or {}).get("in_force") or {}
        return found

    def releases(self) -> dict[str, str]:
        """The release of every pool that has one."""
        pools = self.service["pools"]
        return {
            name: pools[name]["release"] for name in sorted(pools) if pools[name].get("release")
        }

    def shares(self, now_s: float) -> dict[str, float]:
        return shares(self._recent(now_s))

    def rate(self, now_s: float) -> float:
        span_s = min(WINDOW_S, now_s - self.began_s)
        sent = recent(self.load.records, now_s - WINDOW_S).total()
        return sent / span_s if span_s > 0.2 else 0.0

    def _recent(self, now_s: float) -> Counter[str]:
        return recent(self.load.records, max(now_s - WINDOW_S, self.since_s))


class Teller(Protocol):
    """Who tells the story."""

    def head(self, title: str) -> None:
        """An act begins."""
        ...

    def say(self, sentence: str) -> None: ...

    def command(self, command: str) -> None:
        """What is typed now, and really run."""
        ...

    def line(self, line: str) -> None:
        """What the command prints."""
        ...

    def promise(self, promise: Promise) -> None:
        """What came of it."""
        ...

    def update(self, scene: Scene) -> None:
        """Show the numbers of now."""
        ...

    def end(self, report: Report) -> None: ...


class PlainTeller:
    """Lines for a log: what happens, and the numbers every `every_s` seconds."""

    def __init__(self, out: Console, every_s: float = 5.0) -> None:
        self._out = out
        self._every_s = every_s
        self._next_s = time.monotonic() + every_s

    def head(self, title: str) -> None:
        self._out.print(f"\n{title}")

    def say(self, sentence: str) -> None:
        self._out.print(sentence)

    def command(self, command: str) -> None:
        self._out.print(f"$ {command}")

    def line(self, line: str) -> None:
        self._out.print(f"  {line}", soft_wrap=True)

    def promise(self, promise: Promise) -> None:
        self._out.print(f"{mark(promise)} {promise.said}", soft_wrap=True)

    def update(self, scene: Scene) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_s and scene.service:
            self._next_s = now_s + self._every_s
            self._out.print(f"    {numbers(scene, now_s)}")

    def end(self, report: Report) -> None:
        show(summary(report, paper(self._out)), self._out)


class LiveTeller:
    """A table that stays at the bottom while the story scrolls above it."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._live = Live(console=out, auto_refresh=False, transient=True)
        self._live.start()

    def head(self, title: str) -> None:
        self._out.print(Text(f"\n{title}", style="bold underline"))

    def say(self, sentence: str) -> None:
        self._out.print(Text(sentence))

    def command(self, command: str) -> None:
        self._out.print(Text(f"$ {command}", style="bold"))

    def line(self, line: str) -> None:
        self._out.print(Padding(Text(line, style="dim"), (0, 0, 0, 2)))

    def promise(self, promise: Promise) -> None:
        self._out.print(promised(promise))

    def update(self, scene: Scene) -> None:
        self._live.update(frame(scene, time.monotonic(), paper(self._out)), refresh=True)

    def end(self, report: Report) -> None:
        self.close()
        show(summary(report, paper(self._out)), self._out)

    def close(self) -> None:
        self._live.stop()


def teller() -> PlainTeller | LiveTeller:
    out = console()
    return PlainTeller(out) if is_plain() else LiveTeller(out)


def mark(promise: Promise) -> str:
    return "ok:" if promise.is_kept else "NOT AS PROMISED:"


def promised(promise: Promise) -> Text:
    style = "bold green" if promise.is_kept else "bold red"
    return Text.assemble((mark(promise), style), " ", promise.said)


def numbers(scene: Scene, now_s: float) -> str:
    """One line: `12s  v41 89.9 %, v42 10.1 %  201/s  14 in flight  bad answers 0, failures 0`."""
    found = scene.shares(now_s)
    seen = ", ".join(
        f"{release} {words.percent(round(found.get(release, 0.0), 1)) if found else '-'}"
        for release in scene.releases().values()
    )
    return (
        f"{now_s - scene.began_s:4.0f}s  {seen}  {scene.rate(now_s):.0f}/s"
        f"  {scene.load.in_flight} in flight"
        f"  bad answers {scene.load.bad}, failures {len(scene.load.failures)}"
    )


def frame(scene: Scene, now_s: float, page: Paper) -> RenderableType:
    """The live table: shares wanted and seen, what is in flight, the drain, the rollout."""
    if not scene.service:
        return Text("\nstarting ...", style="dim")
    return Group(
        Text(),
        Padding(_pools(scene, now_s, page), (0, 0, 0, 2)),
        Padding(_rollout(scene.service), (0, 0, 0, 2)),
        _foot(scene, now_s),
    )


def _pools(scene: Scene, now_s: float, page: Paper) -> RenderableType:
    shown = table(page)
    for head in ("pool", "release"):
        shown.add_column(head, no_wrap=True)
    shown.add_column("wanted", justify="right", no_wrap=True, min_width=6)
    shown.add_column("seen", justify="right", no_wrap=True, min_width=7)
    shown.add_column(f"in the last {WINDOW_S:g} s", no_wrap=True)
    shown.add_column("in flight", justify="right", no_wrap=True)
    shown.add_column("", no_wrap=True)
    found = scene.shares(now_s)
    for index, (name, pool) in enumerate(sorted(scene.service["pools"].items())):
        wanted = float(scene.service["weights"]["in_force"].get(name, 0))
        colour = colour_of(name, index)
        share = found.get(str(pool.get("release")), 0.0)
        shown.add_row(
            Text(name, style=f"bold {colour}"),
            str(pool.get("release") or "-"),
            Text(words.percent(wanted), style="bold"),
            f"{share:.1f} %",
            bar(share, 24 if page.width >= 90 else 16, colour),
            str(in_flight(pool)),
            Text(_drain(scene.service, name), style="yellow"),
        )
    return shown


def _drain(service: Mapping[str, Any], pool: str) -> str:
    drain = service.get("drain")
    if not drain or drain.get("pool") != pool:
        return ""
    return "empty" if words.is_empty(drain) else "drains"


def _rollout(service: Mapping[str, Any]) -> Text:
    """Where the rollout is and what the judge says, in a line or two."""
    if not service.get("rollout"):
        return Text()
    evidence = rollout_words.evidence(service.get("guard"))
    said = rollout_words.sentence(service)
    return Text(f"{said}; {evidence}" if evidence else said, style="cyan")


def _foot(scene: Scene, now_s: float) -> Text:
    failures = len(scene.load.failures)
    text = Text("  ")
    text.append(words.count(scene.load.requests, "request"), style="bold")
    text.append(f"  {scene.rate(now_s):.0f}/s  ")
    text.append(f"{scene.load.bad} bad answers", style="yellow" if scene.load.bad else "green")
    text.append(f"  {failures} other failures", style="bold red" if failures else "green")
    elapsed = min(now_s - scene.began_s, scene.seconds)
    return text.append(f"   {elapsed:.0f} of about {scene.seconds:.0f} s", style="dim")


def summary(report: Report, page: Paper) -> list[RenderableType]:
    """The last page: every act with who answered, the promises, and the totals."""
    shown = table(page)
    shown.add_column("act", no_wrap=True)
    shown.add_column("requests", justify="right", no_wrap=True)
    shown.add_column("answered by", no_wrap=True)
    shown.add_column("bad answers", justify="right", no_wrap=True)
    for row in report.rows():
        shown.add_row(*row)
    style = "bold green" if report.is_good else "bold red"
    kept = [promised(promise) for promise in report.promises]
    totals = [Text(line, style=style) for line in report.totals()]
    return [Text(), shown, Text(), *kept, Text(), *totals]
