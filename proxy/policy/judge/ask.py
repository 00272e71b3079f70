"""The question to the old pool before traffic is turned back from 100 %: does it fare any better."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from proxy.policy.judge.evidence import divergence
from proxy.policy.judge.guards import is_clearly_better

SURE = 2.3
"""Nats, 10 %: how plainly the old pool has to be no better than at half of the failures. It has a
fifth of the traffic for five seconds; at 1 %, one shared outage in four was undecided at a
hundred requests a second, and so turned back."""


class Reply(Enum):
    BETTER = "better"
    NO_BETTER = "no better"
    UNDECIDED = "undecided"


def reply(sums: Sequence[float]) -> Reply:
    """What requests and errors of the candidate, then of the old pool, say since it was asked."""
    requests, errors, old_requests, old_errors = sums
    if requests <= 0 or old_requests <= 0 or errors <= 0:
        return Reply.UNDECIDED
    if is_clearly_better(sums, is_longest=False):
        return Reply.BETTER
    half = 0.5 * errors / requests
    share = old_errors / old_requests
    if share > half and divergence(old_requests, share, half) >= SURE:
        return Reply.NO_BETTER
    return Reply.UNDECIDED
