"""What a chaos run has shown, proxy by proxy, and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.load import BROKEN_OFF
from tests.chaos.plan import Plan

MOST_FAILED = 0.005
"""Share of GETs that may get no answer, or a bad one; a dozen seeds had none."""
MOST_BROKEN_OFF = 0.025
"""Share of GETs that may be cut in the middle of their answer by an endpoint: nobody can save
them, only fewer can be sent there. A dozen seeds had up to 1.1 %, nginx up to 5 %."""

COLUMNS = (
    "proxy",
    "requests",
    "failed GETs",
    "share",
    "failed POSTs",
    "POSTs twice",
    "worst",
    "p99",
)


@dataclass(frozen=True, slots=True)
class Failure:
    at_s: float
    """Seconds since the plan began."""
    part: str
    """Of the plan."""
    method: str
    what: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What the clients of one proxy have seen."""

    proxy: str
    gets: int
    posts: int
    failures: tuple[Failure, ...]
    posts_twice: int
    """POSTs that arrived at the endpoints more than once."""
    worst_s: float
    p99_s: float

    @classmethod
    def of(
        cls, proxy: str, raw: dict[str, Any], orders: Counter[str], plan: Plan, began_s: float
    ) -> Seen:
        """From the load's raw tally; `began_s` is when the plan began, in monotonic seconds."""
        failures = [
            Failure(at_s - began_s, plan.part(at_s - began_s), method, what)
            for at_s, method, what in raw["failures"]
        ]
        twice = sum(
            count > 1 for order, count in orders.items() if order.rsplit("-", 2)[0] == proxy
        )
        return cls(
            proxy,
            raw["gets"],
            raw["posts"],
            tuple(failures),
            twice,
            raw["worst_s"],
            raw["p99_s"],
        )

    def failed(self, method: str, part: str | None = None) -> list[Failure]:
        return [one for one in self.failures if one.method == method and part in {None, one.part}]

    @property
    def share(self) -> float:
        """Failed GETs among all."""
        return len(self.failed("GET")) / max(1, self.gets)


@dataclass(frozen=True, slots=True)
class Report:
    plan: Plan
    seen: tuple[Seen, ...]

    def of(self, proxy: str) -> Seen:
        return next(one for one in self.seen if one.proxy == proxy)

    def complaints(self, proxy: str) -> list[str]:
        """What a proxy promised and its clients did not get."""
        seen = self.of(proxy)
        rolling = len(seen.failed("GET", "rolling restart"))
        late = sum(one.part == "calm" for one in seen.failures)
        broken_off = sum(one.what == BROKEN_OFF for one in seen.failed("GET")) / max(1, seen.gets)
        failed = seen.share - broken_off
        found = {
            f"{rolling} GETs failed in the rolling restart": rolling,
            f"{late} requests failed after the last trouble": late,
            f"{100 * failed:.2f} % of GETs had no good answer": failed > MOST_FAILED,
            f"{100 * broken_off:.2f} % of GETs were broken off": broken_off > MOST_BROKEN_OFF,
            f"{seen.posts_twice} POSTs arrived twice": seen.posts_twice,
            "next to nothing was asked": seen.gets < self.plan.ends_s,
        }
        return [what for what, is_so in found.items() if is_so]

    def __str__(self) -> str:
        return "\n".join([self._heading(), *_table(self.seen), *_kinds(self.seen)])

    def _heading(self) -> str:
        plan = self.plan
        return (
            f"chaos, seed {plan.seed}, {plan.ends_s:g} s, {len(plan.events)} troubles "
            f"(rolling restart until {plan.trouble_s:g} s, calm from {plan.calm_s:g} s)"
        )


def _table(seen: Sequence[Seen]) -> list[str]:
    rows = [COLUMNS, *(_row(one) for one in seen)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _row(seen: Seen) -> tuple[str, ...]:
    return (
        seen.proxy,
        str(seen.gets + seen.posts),
        str(len(seen.failed("GET"))),
        f"{100 * seen.share:.3f} %",
        f"{len(seen.failed('POST'))} of {seen.posts}",
        str(seen.posts_twice),
        f"{seen.worst_s:.2f} s",
        f"{1000 * seen.p99_s:.0f} ms",
    )


def _kinds(seen: Sequence[Seen]) -> list[str]:
    """A line for each part of the plan in which something failed, kinds by frequency."""
    lines = []
    for one in seen:
        parts = dict.fromkeys(failure.part for failure in one.failures)
        for part in parts:
            kinds = Counter(f"{f.method} {f.what}" for f in one.failures if f.part == part)
            said = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            lines.append(f"{one.proxy} in {part}: {said}")
    return lines
