"""Traffic for the judge, from the simulator of `make judge`, and a run of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from benchmarks.judge.traffic import Traffic
from proxy.policy.judge import Judge, Tick, Verdict
from proxy.policy.judge.verdict import Call


@dataclass(frozen=True)
class Ended:
    verdict: Verdict
    at_s: float
    passed_at_s: float | None


def judged(judge: Judge, ticks: Iterator[Tick]) -> Ended:
    """Feed the judge until it fails the candidate, or the traffic ends."""
    passed: float | None = None
    for tick in ticks:
        verdict = judge.observe(tick)
        if verdict.call is Call.PASS and passed is None:
            passed = tick.at_s
        if verdict.call is Call.FAIL:
            break
    return Ended(verdict, tick.at_s, passed)


@pytest.fixture
def traffic() -> type[Traffic]:
    return Traffic


@pytest.fixture
def run() -> Callable[[Judge, Iterator[Tick]], Ended]:
    return judged
