"""The trail of an exchange whose first attempt was not its last: what failed, and what is kept.

Most exchanges have none. One with a body that may be sent twice has it from the
beginning, for the body; the others get it with their first failure.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from proxy import stats
from proxy.errors import Fault

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.live import PoolLive

KEPT = 64 * 1024
"""Bytes of a request body that are kept for a retry; a longer one cannot be sent again."""
PIECE_OVERHEAD = 64
"""What a piece costs beside its bytes: chunks of one byte must not grow the bound."""


class Trail:
    __slots__ = (
        "address",
        "attempts",
        "began",
        "fault",
        "has_told",
        "is_retrying",
        "kept",
        "left",
        "pool",
        "pools",
        "retries",
        "size",
    )

    def __init__(self) -> None:
        # the first failure
        self.fault: Fault | None = None
        self.pool: PoolLive | None = None
        self.address = ""
        # since then
        self.pools: list[PoolLive] = []
        """Every pool that has failed it: what they do next is no first attempt there."""
        self.began = 0.0
        """When the attempt under way began, if there was another before."""
        self.attempts = 1
        self.retries = 0
        self.is_retrying = False
        """The attempt under way was paid for from the budget."""
        self.left: PoolLive | None = None
        """The pool that failed before this retry."""
        self.has_told = False
        """The client was sent an interim answer: no other endpoint can answer in its place."""
        # the body
        self.kept: list[bytes] | None = None
        """All of the request's body until now, framed as it was sent; None = not in our hands."""
        self.size = 0

    def keep(self, pieces: list[bytes] | tuple[bytes, ...]) -> None:
        """Keep what follows of the body, or give all of it up when it grows too long."""
        if self.kept is None:
            return
        self.size += sum(map(len, pieces)) + PIECE_OVERHEAD * len(pieces)
        if self.size > KEPT:
            self.kept = None
        else:
            self.kept += pieces


def note_failure(exchange: Exchange, fault: Fault) -> Trail:
    """An attempt has failed; the first failure is what the trail remembers."""
    trail = exchange.trail
    if trail is None:
        trail = exchange.trail = Trail()
    if trail.fault is None:
        trail.fault = fault
        trail.pool = exchange.pool
        trail.address = exchange.endpoint.address if exchange.endpoint is not None else ""
    if exchange.pool is not None and exchange.pool not in trail.pools:
        trail.pools.append(exchange.pool)
    trail.began = time.monotonic()
    exchange.is_timed = False
    return trail


def retry_failed(exchange: Exchange) -> None:
    """The retry under way, if there is one, has failed."""
    trail = exchange.trail
    if trail is not None and trail.is_retrying:
        trail.is_retrying = False
        count_outcome(exchange, stats.RETRY_FAILED)


def count_outcome(exchange: Exchange, outcome: int) -> None:
    service = exchange.service
    if service is not None:
        exchange.plane.words[service.spec.slot + stats.S_RETRY_OUTCOMES + outcome] += 1


def count_end(exchange: Exchange, pool: PoolLive) -> None:
    """Count what became of it; with the answer, so that both are read together."""
    trail = exchange.trail
    if trail is None or trail.pool is None or trail.attempts < 2:
        return
    first, status = trail.pool, exchange.status
    first.words[first.slot + stats.P_WENT_ON] += 1
    pool.words[pool.slot + stats.P_LATER] += 1
    if status >= 500:
        pool.words[pool.slot + stats.P_LATER_5XX] += 1
    if trail.is_retrying and exchange.is_started:
        count_outcome(exchange, stats.RETRIED if pool is trail.left else stats.RESCUED)
