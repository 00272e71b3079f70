"""Retries: a request whose attempt failed is tried once more, elsewhere, within the budget.

Only before anything of an answer went to the client, only what may be done twice, and
never at the same endpoint. The budget is one for all workers: the control plane deals
each of them a number of retries up to which it may count (see proxy.policy.budget).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy import stats
from proxy.dataplane import attempts, faults
from proxy.dataplane.trail import count_outcome, note_failure, retry_failed
from proxy.errors import Fault, Retry

if TYPE_CHECKING:
    from proxy.dataplane.decision import Decision
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.live import PoolLive, ServiceLive

SILENT_S = 1.0
"""How long a request waits on for an endpoint that is known to be down or ejected."""
LOST = stats.DOWN | stats.EJECTED
"""What the board says of such an endpoint."""


def after_failure(exchange: Exchange, fault: Fault) -> bool:
    """Try the request elsewhere; False when the failure must be the client's answer."""
    note_failure(exchange, fault)
    retry_failed(exchange)
    if fault.retry is not Retry.IF_IDEMPOTENT:
        return False
    pool = _where(exchange) or _last_resort(exchange)
    if pool is None and fault is faults.KEPT_CLOSED_EARLY:
        pool = _same_again(exchange)
    if pool is None:
        return False
    if not _spend(exchange):
        count_outcome(exchange, stats.NO_BUDGET)
        return False
    _go(exchange, pool, fault)
    return True


def leave_silent(exchange: Exchange) -> None:
    """Take the request away from an endpoint that went down while it waits there, if that may be.

    If not, it waits on: the endpoint may come back and answer.
    """
    pool = _where(exchange)
    if pool is None or not _spend(exchange):
        return
    exchange.count_failure(faults.FELL_SILENT)
    note_failure(exchange, faults.FELL_SILENT)
    retry_failed(exchange)
    _go(exchange, pool, faults.FELL_SILENT)


def _where(exchange: Exchange) -> PoolLive | None:
    """The pool that may have the retry now; None when there is to be none."""
    service, endpoint, decision = exchange.service, exchange.endpoint, exchange.decision
    if service is None or endpoint is None or decision is None or not _may_repeat(exchange):
        return None
    if exchange.tried is None:
        exchange.tried = set()
    exchange.tried.add(endpoint)
    attempts.decide_again(exchange)
    service = exchange.service or service
    now = exchange.plane.clock.now
    for pool in _in_order(service, decision):
        if pool is not None and pool.available(exchange.tried, now):
            return pool
    return None


def _last_resort(exchange: Exchange) -> PoolLive | None:
    """The pool whose endpoints may answer though none counts as available: better than a failure.

    While a pool is restarted quickly those that are back are not yet known to be: they were
    unreachable a moment ago, or are ejected still.
    """
    service, decision, tried = exchange.service, exchange.decision, exchange.tried
    if service is None or decision is None or not _may_repeat(exchange):
        return None
    for pool in _in_order(service, decision):
        if pool is not None and pool.untried(tried):
            return pool
    home = decision.pool
    may_panic = home is not None and home.in_panic(tried, exchange.plane.clock.now)
    return home if may_panic else None


def _same_again(exchange: Exchange) -> PoolLive | None:
    """The pool whose only endpoint closed a kept connection: a new one may serve as well."""
    endpoint, decision = exchange.endpoint, exchange.decision
    if endpoint is None or decision is None or not _may_repeat(exchange):
        return None
    if exchange.tried is not None:
        exchange.tried.discard(endpoint)
    return decision.pool if decision.pool is endpoint.pool else None


def _may_repeat(exchange: Exchange) -> bool:
    service, trail, head = exchange.service, exchange.trail, exchange.head
    if service is None or head.method not in attempts.IDEMPOTENT:
        return False
    if trail is None:
        return service.spec.retry.attempts > 0 and not head.length
    return (
        trail.retries < service.spec.retry.attempts
        and not trail.has_told
        and not (head.length and trail.kept is None)
    )


def _in_order(service: ServiceLive, decision: Decision) -> tuple[PoolLive | None, PoolLive | None]:
    """The pools to try: that of a release on trial comes second, every other one first."""
    home = decision.pool
    other = None
    if _may_be_rescued(service, decision):
        other = next((pool for pool in service.pools if pool is not home and pool.is_open), None)
    is_on_trial = home is not None and home.is_open and home.name != service.spec.active
    return (other, home) if is_on_trial else (home, other)


def _may_be_rescued(service: ServiceLive, decision: Decision) -> bool:
    sticky = service.spec.sticky
    return (
        service.spec.retry.rescue
        and not decision.previewed
        and (sticky.by == "none" or sticky.on_unavailable != "fail")
    )


def _spend(exchange: Exchange) -> bool:
    """Take one retry from this worker's part of the budget."""
    plane, service = exchange.plane, exchange.service
    if service is None:
        return False
    slot = service.spec.slot
    share = stats.share_index(slot, stats.LOT_RETRIES, plane.workers, plane.worker)
    if plane.words[slot + stats.S_RETRIES] >= plane.board[share]:
        return False
    plane.words[slot + stats.S_RETRIES] += 1
    return True


def _go(exchange: Exchange, pool: PoolLive, fault: Fault) -> None:
    trail, decision = exchange.trail, exchange.decision
    assert trail is not None and decision is not None, "it has failed before"  # noqa: PT018
    trail.retries += 1
    trail.is_retrying = True
    trail.left = exchange.pool
    if pool is not decision.pool:
        decision.pool = pool
        decision.until = 0.0  # it was for this request only
        decision.must_bind = False  # the cookie stays as it is
    exchange.leave()
    exchange.rewind()
    attempts.begin(exchange, fault)
    exchange.flush_request()
