"""Every suite, case by case, as a table beside its bounds; exits 1 when one is broken.

Usage: python -m benchmarks.judge [--scale 0.25] [--suites null,outage] [--write docs/judge.md]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.judge.measure import Cell, measure
from benchmarks.judge.suites import SUITES, Suite

BEGIN = "<!-- the tables of make judge: begin -->"
END = "<!-- the tables of make judge: end -->"
LEAST_RUNS = 5


def main() -> int:
    given = _arguments()
    names = given.suites.split(",") if given.suites else list(SUITES)
    sections, broken = [], 0
    began = time.monotonic()
    for name in names:
        suite = SUITES[name]
        runs = max(LEAST_RUNS, round(suite.runs * given.scale))
        rows, breaks = _run(name, suite, runs)
        broken += breaks
        sections.append(_section(suite, runs, rows))
    print(f"{broken} bounds broken, {time.monotonic() - began:.0f} s")
    if given.write:
        _write(given.write, "\n\n".join(sections))
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="times the runs of each case")
    parser.add_argument("--suites", default="", help=", ".join(SUITES))
    parser.add_argument("--write", type=Path, help="a page whose tables are replaced")
    return parser.parse_args()


def _run(name: str, suite: Suite, runs: int) -> tuple[list[tuple[str, Cell]], int]:
    print(f"== {name}: {suite.title} ({runs} runs a case)", flush=True)
    rows, broken = [], 0
    for case in suite.cases():
        cell = measure(case, runs)
        rows.append((case.name, cell))
        words = f"{case.name}: {cell.in_words} (bound: {cell.bound_in_words})"
        if cell.broken_bound:
            broken += 1
            words += f"  BROKEN: {cell.broken_bound}"
        print(words, flush=True)
    return rows, broken


def _section(suite: Suite, runs: int, rows: list[tuple[str, Cell]]) -> str:
    lines = [f"**{suite.title}** ({runs} runs a case)", "", "| case | measured | bound |"]
    lines.append("| --- | --- | --- |")
    lines += [f"| {name} | {cell.in_words} | {cell.bound_in_words} |" for name, cell in rows]
    return "\n".join(lines)


def _write(page: Path, tables: str) -> None:
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
