"""What a judge does in a case: how often and how soon it turns back, beside the case's bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.judge.chance import quantile, wilson
from benchmarks.judge.traffic import Ticks
from proxy.policy.judge import Call, Judge, Knobs, Tick, Verdict

MOST_EARLY = 0.01
"""Share of runs that may be turned back before there is anything to find."""


@dataclass(frozen=True)
class Healthy:
    """Nothing is wrong: so many runs may be turned back at most. None: only reported."""

    most: float | None


@dataclass(frozen=True)
class Broken:
    """Something is wrong from `since` on: so many are found at least, in so long at the median."""

    least: float = 0.0
    most_s: float | None = None
    since: float = 0.0


Begin = Callable[[Judge, int], None]
Look = Callable[[Tick], Verdict]


@dataclass(frozen=True)
class Case:
    name: str
    traffic: Ticks
    expected: Healthy | Broken
    begin: Begin | None = None
    """What happens to the judge of a run (by its seed) before its first tick."""
    knobs: Knobs = field(default_factory=Knobs)
    run: Callable[[Case, int], Run] | None = None
    """How a run goes, where more takes part than a judge."""

    @property
    def since(self) -> float:
        return self.expected.since if isinstance(self.expected, Broken) else 0.0


@dataclass
class Cell:
    """All runs of a case."""

    expected: Healthy | Broken
    runs: int = 0
    found: int = 0
    early: int = 0
    after_s: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    """The candidate's, served to users from `since` until it was turned back."""
    passed_s: list[float] = field(default_factory=list)
    held: int = 0
    """Runs with at least one HOLD."""

    def add(self, run: Run) -> None:
        self.runs += 1
        self.held += run.is_held
        if run.passed_s is not None:
            self.passed_s.append(run.passed_s)
        if run.failed_s is None:
            return
        since = self.expected.since if isinstance(self.expected, Broken) else 0.0
        if run.failed_s <= since:
            self.early += 1
            return
        self.found += 1
        self.after_s.append(run.failed_s - since)
        self.errors.append(run.errors)

    @property
    def broken_bound(self) -> str:
        """What bound it breaks, in words; empty: none. Measured by the intervals of the shares."""
        lowest, highest = wilson(self.found, self.runs)
        expected = self.expected
        if isinstance(expected, Healthy):
            if expected.most is not None and lowest > expected.most:
                return f"at most {expected.most:.0%} may be turned back"
            return ""
        if highest < expected.least:
            return f"at least {expected.least:.0%} have to be found"
        median = quantile(self.after_s, 0.5)
        if expected.most_s is not None and not median <= expected.most_s:
            return f"the median has to be {expected.most_s:.0f} s at most"
        if wilson(self.early, self.runs)[0] > MOST_EARLY:
            return "too many are turned back before anything is wrong"
        return ""

    @property
    def in_words(self) -> str:
        """`0.0 %` of healthy runs; `97 %, 25 / 37 s, 5 errors` of broken ones."""
        if isinstance(self.expected, Healthy):
            return f"{100 * self.found / self.runs:.1f} %"
        early = f", {self.early} too early" if self.early else ""
        share = f"{100 * self.found / self.runs:.0f} %"
        if not self.found:
            return f"{share}{early}"
        median, most = quantile(self.after_s, 0.5), quantile(self.after_s, 0.9)
        errors = quantile(self.errors, 0.5)
        return f"{share}, {median:,.0f} / {most:,.0f} s, {errors:,.0f} errors{early}"

    @property
    def bound_in_words(self) -> str:
        expected = self.expected
        if isinstance(expected, Healthy):
            return "-" if expected.most is None else f"{100 * expected.most:.0f} %"
        if expected.most_s is None:
            return "-"
        return f"{100 * expected.least:.0f} %, {expected.most_s:,.0f} s"


@dataclass
class Run:
    failed_s: float | None = None
    reason: str = ""
    errors: float = 0.0
    passed_s: float | None = None
    is_held: bool = False


def run_once(case: Case, seed: int) -> Run:
    """Feed one judge with one seeded run of the traffic until it fails the candidate."""
    judge = Judge(case.knobs)
    if case.begin:
        case.begin(judge, seed)
    return follow(judge.observe, case.traffic.ticks(seed), case.since)


def follow(look: Look, ticks: Iterator[Tick], since: float = 0.0) -> Run:
    run = Run()
    for tick in ticks:
        if tick.at_s > since:
            run.errors += tick.candidate.errors
        verdict = look(tick)
        if verdict.call is Call.FAIL:
            run.failed_s, run.reason = tick.at_s, verdict.reason
            break
        if verdict.call is Call.HOLD:
            run.is_held = True
        elif verdict.call is Call.PASS and run.passed_s is None:
            run.passed_s = tick.at_s
    return run


def measure(case: Case, runs: int, seed: int = 1) -> Cell:
    cell = Cell(case.expected)
    for number in range(runs):
        cell.add((case.run or run_once)(case, seed + number))
    return cell
