"""The judge: counts of both pools in, a verdict with its reasons out. Pure, standard library only.

`Judge` compares the candidate with the active pool while both have traffic; `record.Watch`
takes its place when the candidate has everything. docs/judge.md explains both.
"""

from proxy.policy.judge.judge import Judge
from proxy.policy.judge.knobs import Knobs
from proxy.policy.judge.tick import BUCKETS, Counts, Tick
from proxy.policy.judge.verdict import Call, Sides, Test, Verdict

__all__ = ["BUCKETS", "Call", "Counts", "Judge", "Knobs", "Sides", "Test", "Tick", "Verdict"]
