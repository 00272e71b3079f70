"""What the demo saw: its acts, what was promised in each, and what nobody should have seen (pure)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from proxy.cli import words
from proxy.cli.demo_load import Record

LATE_S: Final = 0.5
"""How long after its end a trouble may still be met: the news has to reach the services."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Errors that were made on purpose: whose, and of the requests sent when."""

    releases: frozenset[str]
    from_s: float = -math.inf
    to_s: float = math.inf

    def explains(self, record: Record) -> bool:
        return record.release in self.releases and self.from_s <= record.sent_s < self.to_s + LATE_S


@dataclass(slots=True)
class Act:
    """A part of the story."""

    title: str
    from_s: float
    to_s: float = math.inf

    def has(self, record: Record) -> bool:
        return self.from_s <= record.sent_s < self.to_s


@dataclass(frozen=True, slots=True)
class Promise:
    """What should have happened, with the numbers of what did."""

    said: str
    is_kept: bool


@dataclass(slots=True)
class Report:
    """Everything the summary needs."""

    acts: list[Act] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    records: Sequence[Record] = ()
    failures: Sequence[str] = ()

    @property
    def unexplained(self) -> int:
        """Requests that failed though nobody had made them fail."""
        return len(self.failures) + sum(
            1
            for record in self.records
            if record.is_bad and not any(each.explains(record) for each in self.troubles)
        )

    @property
    def is_good(self) -> bool:
        is_kept = bool(self.promises) and all(promise.is_kept for promise in self.promises)
        return is_kept and not self.unexplained and bool(self.records)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Of each act: its title, requests, who answered them, and bad answers."""
        return [self._row(act) for act in self.acts]

    def _row(self, act: Act) -> tuple[str, str, str, str]:
        found = [record for record in self.records if act.has(record)]
        counts = Counter(record.release for record in found)
        return (
            act.title,
            words.number(len(found)),
            pair(shares(counts)) or "-",
            words.number(sum(record.is_bad for record in found)),
        )

    def totals(self) -> list[str]:
        """The lines below the table."""
        requests = len(self.records) + len(self.failures)
        bad = sum(record.is_bad for record in self.records)
        return [
            f"{words.count(requests, 'request')}, {words.count(bad, 'bad answer')} in all",
            f"failures that nobody made on purpose: {self.unexplained}",
            *(f"  {failure}" for failure in self.failures[:10]),
        ]


def of_release(records: Iterable[Record], release: str) -> list[Record]:
    """What a release answered, in the order it was sent."""
    found = [record for record in records if record.release == release]
    return sorted(found, key=lambda record: record.sent_s)


def recent(records: Sequence[Record], since_s: float) -> Counter[str]:
    """Answers to the requests sent since then; the records come nearly in their order."""
    counts: Counter[str] = Counter()
    for record in reversed(records):
        # Slow requests are recorded seconds after later ones: look a little further back.
        if record.sent_s < since_s - 5:
            break
        if record.sent_s >= since_s:
            counts[record.release] += 1
    return counts


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    whole = sum(counts.values())
    return {name: 100 * number / whole for name, number in counts.items()} if whole else {}


def pair(found: Mapping[str, float]) -> str:
    """`v41 89.9 %, v42 10.1 %`, by name."""
    return ", ".join(
        f"{name} {words.percent(round(share, 1))}" for name, share in sorted(found.items())
    )
