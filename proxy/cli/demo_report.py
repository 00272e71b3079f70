"""What the demo saw: phases, the shares in each, and what nobody should have seen (pure)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.cli import words
from proxy.cli.demo_load import Record

EDGE_S = 0.05
"""A request sent so shortly before the next change may already meet it."""


@dataclass(slots=True)
class Phase:
    """A time of constant weights: from a change's answer until the next change is asked for."""

    title: str
    wanted: Mapping[str, float]
    from_s: float
    left: str | None = None
    """The pool that a switch left: it must get nothing that is sent after the answer."""
    to_s: float = math.inf

    def end(self, now_s: float) -> None:
        self.to_s = now_s - EDGE_S

    def has(self, record: Record) -> bool:
        return self.from_s <= record.sent_s < self.to_s


@dataclass(slots=True)
class Report:
    """Everything the summary needs."""

    phases: list[Phase] = field(default_factory=list)
    records: Sequence[Record] = ()
    failures: Sequence[str] = ()

    @property
    def stale(self) -> int:
        """Requests sent after the answer of a switch that still reached the pool it left."""
        return sum(
            seen(self.records, phase)[phase.left] for phase in self.phases if phase.left is not None
        )

    @property
    def is_good(self) -> bool:
        return not self.failures and not self.stale and bool(self.records)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Of each phase: its title, wanted and seen shares, requests."""
        return [self._row(phase) for phase in self.phases]

    def _row(self, phase: Phase) -> tuple[str, str, str, str]:
        counts = seen(self.records, phase)
        whole = counts.total()
        return (
            phase.title,
            pair(phase.wanted, phase.wanted),
            pair(shares(counts), phase.wanted) if whole else "-",
            str(whole),
        )

    def totals(self) -> list[str]:
        """The lines below the table."""
        requests = len(self.records) + len(self.failures)
        return [
            f"requests {requests}, failures: {len(self.failures)}",
            f"stale requests (sent after a switch's answer, reached the old pool): {self.stale}",
            *(f"  {failure}" for failure in self.failures[:10]),
        ]


def seen(records: Iterable[Record], phase: Phase) -> Counter[str]:
    return Counter(record.pool for record in records if phase.has(record))


def recent(records: Sequence[Record], since_s: float) -> Counter[str]:
    """Answers to the requests sent since then; the records come nearly in their order."""
    counts: Counter[str] = Counter()
    for record in reversed(records):
        # Slow requests are recorded seconds after later ones: look a little further back.
        if record.sent_s < since_s - 5:
            break
        if record.sent_s >= since_s:
            counts[record.pool] += 1
    return counts


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    whole = sum(counts.values())
    return {pool: 100 * number / whole for pool, number in counts.items()} if whole else {}


def pair(weights: Mapping[str, float], order: Iterable[str]) -> str:
    """`90 / 10`: shares in the order of the pools, one decimal where it says something."""
    numbers = (words.percent(round(weights.get(pool, 0.0), 1)) for pool in order)
    return " / ".join(number.removesuffix(" %") for number in numbers)
