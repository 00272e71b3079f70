"""What the judge is told: the outcome of a request's first attempt on a pool, by client bucket.

Counters of a pool's area (stats.P_JUDGED): requests, errors, 4xx, and the latency to the
answer's head of what was no error. Previews are no traffic of the release, and a retry on
the same pool is no second request. The rescue on another pool is that pool's first attempt, and
its latency begins with it: what the failed one took is not the rescuer's. The last failures are
kept by name, as samples for people.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from zlib import crc32

from proxy import stats

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.live import PoolLive, ServiceLive

_ERRORS = stats.P_JUDGED + stats.J_ERRORS
_REQUESTS = stats.P_JUDGED + stats.J_REQUESTS
_REFUSED = stats.P_JUDGED + stats.J_REFUSED
_UNTIMED = stats.P_JUDGED + stats.J_UNTIMED
_LOG_SUMS = stats.P_JUDGED + stats.J_LOG_SUMS
_LOG_SQUARES = stats.P_JUDGED + stats.J_LOG_SQUARES
_LATENCIES = stats.P_JUDGED + stats.J_LATENCIES
_MASK = stats.JUDGE_BUCKETS - 1

KEPT_SAMPLES = 8
"""Failed first attempts that a worker remembers of each pool."""

Sample = tuple[float, bytes, str, int, str]
"""When (monotonic seconds), request id, endpoint, the answer's status or 0, kind of failure or ""."""


def answered(exchange: Exchange, pool: PoolLive, place: int) -> None:
    """The endpoint's answer has begun; `place` is the bin of its latency."""
    decision, trail, service = exchange.decision, exchange.trail, exchange.service
    if decision is None or service is None or decision.previewed:
        return
    if trail is not None and trail.pools:
        if pool in trail.pools:
            return
        place = stats.latency_bin(time.monotonic() - trail.began)
    words, slot = pool.words, pool.slot
    base = slot + (decision.bucket & _MASK if service.is_sticky else _by_address(exchange))
    words[base + _REQUESTS] += 1
    status = exchange.status
    if status >= 400:
        if status >= 500:
            words[base + _ERRORS] += 1
            words[base + _UNTIMED] += 1
            if not exchange.is_whole:  # else `note_error` has done it
                _keep(exchange, pool, status, "")
            return
        words[base + _REFUSED] += 1
        if not exchange.is_whole and _is_on_trial(service, pool):
            _keep(exchange, pool, status, "")
    if exchange.is_timed:
        words[base + _UNTIMED] += 1
    else:
        words[slot + _LATENCIES + place] += 1
        words[base + _LOG_SUMS] += place
        words[base + _LOG_SQUARES] += place * place


def failed(exchange: Exchange, pool: PoolLive, kind: str) -> None:
    """The attempt failed before an answer began; an answer that breaks off is an error too.

    But an event stream or a tunnel was judged by its head. `kind` is one of stats.FAILURE_KINDS.
    """
    if not _is_first(exchange, pool):
        return
    if not exchange.is_started:
        _lost(exchange, pool, kind)
    elif exchange.status < 500 and exchange.kind == stats.REQUEST:  # else it is an error already
        pool.words[pool.slot + _bucket(exchange) + _ERRORS] += 1
        _keep(exchange, pool, exchange.status, kind)


def absent(exchange: Exchange, pool: PoolLive | None) -> None:
    """The pool that was to have the request has nobody for it; another one may help out.

    Unless something of it was tried, which is counted already, or a limit of ours is reached.
    """
    if (
        pool is not None
        and exchange.tried is None
        and not pool.is_full
        and _is_first(exchange, pool)
    ):
        _lost(exchange, pool, "unavailable")


def waited(exchange: Exchange, pool: PoolLive, seconds: float) -> None:
    """It waits, or was left, without an answer for that long: a latency of at least that.

    People leave because it is slow; without them a release that hangs would look fast.
    """
    if exchange.is_timed or not _is_first(exchange, pool):
        return
    exchange.is_timed = True
    words, base = pool.words, pool.slot + _bucket(exchange)
    place = stats.latency_bin(seconds)
    words[pool.slot + _LATENCIES + place] += 1
    words[base + _UNTIMED] -= 1  # it is a latency without a request, or before its request
    words[base + _LOG_SUMS] += place
    words[base + _LOG_SQUARES] += place * place


def left(exchange: Exchange, now: float) -> None:
    """The client has gone away before the answer began: no error, but perhaps out of patience."""
    pool, service = exchange.pool, exchange.service
    if pool is None or service is None or exchange.is_started or not _is_asked(exchange):
        return
    slow_ms = exchange.plane.board[service.spec.slot + stats.B_SLOW_MS]
    # One that closed its side is given up a while later: it has waited no longer than until then.
    seconds = (exchange.client.eof_since or now) - began(exchange)
    if slow_ms and seconds * 1000.0 >= slow_ms:
        waited(exchange, pool, seconds)


def look(exchange: Exchange, pool: PoolLive, slot: int, now: float) -> None:
    """Enter an attempt that hangs once it is old enough: it would end too late to be judged."""
    stall_ms = exchange.plane.board[slot + stats.B_STALL_MS]
    if not stall_ms or exchange.is_timed or not _is_asked(exchange):
        return
    seconds = now - began(exchange)
    if seconds * 1000.0 >= stall_ms:
        waited(exchange, pool, seconds)


def note_error(exchange: Exchange) -> None:
    """Keep a 4xx or 5xx that came whole, while it is known whose it is; it is counted a bit later."""
    pool, service = exchange.pool, exchange.service
    if (
        exchange.is_whole
        and pool is not None
        and service is not None
        and (exchange.status >= 500 or _is_on_trial(service, pool))
        and _is_first(exchange, pool)
    ):
        _keep(exchange, pool, exchange.status, "")


def samples(pool: PoolLive) -> list[dict[str, Any]]:
    """The last failures in plain values, newest first; and what a candidate refused (4xx)."""
    return [
        {
            "request_id": request_id.decode("latin-1"),
            "status": status or None,
            "failure": kind or None,
            "endpoint": endpoint,
            "at": at,
        }
        for at, request_id, endpoint, status, kind in sorted(
            (*pool.samples, *pool.refusals), reverse=True
        )
    ]


def _lost(exchange: Exchange, pool: PoolLive, kind: str) -> None:
    words, base = pool.words, pool.slot + _bucket(exchange)
    words[base + _REQUESTS] += 1
    words[base + _ERRORS] += 1
    words[base + _UNTIMED] += 1
    _keep(exchange, pool, 0, kind)


def _keep(exchange: Exchange, pool: PoolLive, status: int, kind: str) -> None:
    endpoint = exchange.endpoint
    address = endpoint.address if endpoint is not None else ""
    kept = pool.refusals if 400 <= status < 500 and not kind else pool.samples
    kept.append((time.monotonic(), exchange.request_id, address, status, kind))


def _is_on_trial(service: ServiceLive, pool: PoolLive) -> bool:
    """Whether its refusals are of interest: those of the pool in charge turn nothing back."""
    return pool.name != service.spec.active


def began(exchange: Exchange) -> float:
    """When the attempt under way began, as far as its pool is concerned."""
    trail = exchange.trail
    return trail.began if trail is not None and trail.pools else exchange.started


def _is_asked(exchange: Exchange) -> bool:
    """Whether it is the endpoint that is waited for: not the client's body, nor a limit of ours."""
    return not exchange.pending_since and (
        exchange.request_done or exchange.is_paused or exchange.upstream is None
    )


def _bucket(exchange: Exchange) -> int:
    """The client's bucket: by its stickiness, else by its address."""
    service, decision = exchange.service, exchange.decision
    if service is not None and decision is not None and service.is_sticky:
        return decision.bucket & _MASK
    return _by_address(exchange)


def _by_address(exchange: Exchange) -> int:
    origin = exchange.client.origin
    if not origin.trusted:
        return origin.judge_bucket
    return crc32(origin.client(exchange.head).encode()) & _MASK


def _is_first(exchange: Exchange, pool: PoolLive) -> bool:
    decision, trail = exchange.decision, exchange.trail
    if decision is None or decision.previewed:
        return False
    return trail is None or pool not in trail.pools
