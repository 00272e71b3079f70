"""One decision per request: which pool, why, which endpoint, and what the client must remember.

Everything here happens in one synchronous stretch, so nothing can change between
the choice and its bookkeeping.
"""

from __future__ import annotations

from proxy import stats
from proxy.dataplane.live import EndpointLive, PoolLive, ServiceLive
from proxy.http1.headers import take_cookie, value_of, without
from proxy.http1.message import RequestHead
from proxy.policy.preview import pool_wanted
from proxy.policy.sticky import Binding, bucket_of, hash_of

_UNAVAILABLE = stats.P_FAILURES + stats.FAILURE_KINDS.index("unavailable")


class Decision:
    """Where a request goes. `pool` is None when nothing may take it."""

    __slots__ = (
        "binding",
        "bucket",
        "cookie",
        "must_bind",
        "pinned",
        "pool",
        "previewed",
        "until",
    )

    def __init__(self, pool: PoolLive | None, bucket: int, cookie: bytes | None) -> None:
        self.pool = pool
        self.bucket = bucket
        self.cookie = cookie
        """The Cookie header for the endpoint."""
        self.binding: Binding | None = None
        """What the client's cookie says, or should say from now on."""
        self.must_bind = False
        """The answer carries a new cookie."""
        self.pinned = False
        """The client is bound to this pool whatever its weight."""
        self.previewed = False
        self.until = 0.0
        """Wall seconds until which it holds for the same cookie and the same snapshot; 0: never."""


def decide(
    service: ServiceLive, head: RequestHead, client: str, now: float, wall: float
) -> Decision:
    """Preview, then stickiness, then weights. `now` monotonic, `wall` seconds since the epoch."""
    spec = service.spec
    cookie = head.cookie
    if spec.preview is not None and (decision := _preview(service, head)) is not None:
        return decision
    by = spec.sticky.by
    if by == "cookie":
        return _by_cookie(service, cookie, now, wall)
    if by == "none":
        bucket = service.sequence.next()
    else:
        identity = client.encode() if by == "client_ip" else value_of(head.fields, service.header)
        bucket = bucket_of(service.key, identity) if identity else service.sequence.next()
    return Decision(service.pools[service.split.index(bucket)], bucket, cookie)


def _preview(service: ServiceLive, head: RequestHead) -> Decision | None:
    preview = service.spec.preview
    if preview is None:
        return None
    header = preview.header.lower().encode()
    value = value_of(head.fields, header)
    cookie = head.cookie
    if cookie is not None:
        from_cookie, cookie = take_cookie(cookie, preview.cookie.encode() + b"=")
        value = from_cookie if value is None else value
    wanted = pool_wanted(preview, value) if value is not None else None
    pool = service.by_name.get(wanted) if wanted is not None else None
    if pool is None:
        return None
    head.fields = without(head.fields, {header})  # the secret is not the endpoint's business
    if cookie is not None and service.cookie is not None:
        _, cookie = take_cookie(cookie, service.cookie.prefix)
    decision = Decision(pool, 0, cookie)
    decision.pinned = decision.previewed = True
    return decision


def _by_cookie(service: ServiceLive, cookie: bytes | None, now: float, wall: float) -> Decision:
    sticky = service.cookie
    assert sticky is not None, "asked for by kind"
    binding = None
    if cookie is not None:
        value, cookie = take_cookie(cookie, sticky.prefix)
        if value is not None:
            binding = sticky.read(value, wall)
    if binding is None:
        return _bind(service, service.sequence.next(), cookie, int(wall), wall)
    bound = service.by_name.get(binding.pool)
    if bound is None or bound.epoch != binding.epoch:
        return _bind(service, binding.bucket, cookie, binding.issued, wall)
    if service.spec.sticky.on_zero == "finish":
        drain = bound.drain
        stays = bound.is_open or (drain is not None and now < drain.streams_by_s)
        pool = bound if stays else service.pools[service.split.index(binding.bucket)]
    else:
        pool = service.pools[service.split.index(binding.bucket)]
    if pool is not bound:
        return _bind(service, binding.bucket, cookie, binding.issued, wall)
    decision = Decision(pool, binding.bucket, cookie)
    decision.pinned = not pool.is_open
    decision.must_bind = sticky.is_due(binding, wall)
    if decision.must_bind:
        decision.binding = binding._replace(seen=int(wall))
    else:
        decision.binding = binding
        if pool.is_open:
            decision.until = sticky.good_until(binding)
    return decision


def _bind(
    service: ServiceLive, bucket: int, cookie: bytes | None, issued: int, wall: float
) -> Decision:
    pool = service.pools[service.split.index(bucket)]
    decision = Decision(pool, bucket, cookie)
    decision.binding = Binding(bucket, pool.name, pool.epoch, issued, int(wall), "")
    decision.must_bind = True
    return decision


def pick(
    service: ServiceLive,
    decision: Decision,
    client: str,
    tried: set[EndpointLive] | None,
    now: float,
) -> EndpointLive | None:
    """The endpoint for a request, and `decision.pool` made the pool it is in.

    The decided pool's available endpoints; else those of another pool, where stickiness
    and weights allow it; else those of the decided pool that were found unreachable
    lately (their mark may be out of date); else, in panic, all of the pool. None when there is
    nobody left to try.
    """
    pool = decision.pool
    if pool is None:
        return None
    if pool.asking and (home := _home(service, decision, pool, tried)) is not None:
        return home
    members = pool.available(tried, now) or _last_resorts(service, decision, pool, tried, now)
    if not members:
        return None
    if len(members) == 1:
        return members[0]
    return _among(service, decision, client, members)


def _home(
    service: ServiceLive, decision: Decision, pool: PoolLive, tried: set[EndpointLive] | None
) -> EndpointLive | None:
    """The endpoint that the client is bound to, if that one asks to be drained: bound work finishes."""
    binding = decision.binding
    if not service.spec.sticky.endpoint or binding is None or not binding.endpoint:
        return None
    for endpoint in pool.asking:
        if endpoint.mark == binding.endpoint and (tried is None or endpoint not in tried):
            return endpoint
    return None


def _last_resorts(
    service: ServiceLive,
    decision: Decision,
    pool: PoolLive,
    tried: set[EndpointLive] | None,
    now: float,
) -> list[EndpointLive]:
    """Who else may take a request, when its pool has nothing available.

    A release that cannot take its share of the traffic has failed, whoever helps out: that
    counts against the pool, unless what was tried has been counted already, or will be. Nor
    does it count that a limit of ours is reached.
    """
    words = pool.words
    other = _fallback(service, decision, tried, now)
    if other is None and (members := pool.untried(tried)):
        return members
    if tried is None and not decision.previewed and not pool.is_full:
        words[pool.slot + _UNAVAILABLE] += 1
    if other is not None:
        decision.pool = other
        decision.until = 0.0
        decision.must_bind = False  # the cookie stays as it is
        return other.available(tried, now)
    if members := pool.in_panic(tried, now):
        words[pool.slot + stats.P_PANICKED] += 1
    return members


def _fallback(
    service: ServiceLive, decision: Decision, tried: set[EndpointLive] | None, now: float
) -> PoolLive | None:
    if decision.previewed or (
        service.spec.sticky.by != "none" and service.spec.sticky.on_unavailable == "fail"
    ):
        return None
    for pool in service.pools:
        if pool is not decision.pool and pool.is_open and pool.available(tried, now):
            return pool
    return None


def _among(
    service: ServiceLive, decision: Decision, client: str, members: list[EndpointLive]
) -> EndpointLive:
    binding = decision.binding
    if service.spec.sticky.endpoint and binding is not None:
        if binding.endpoint:
            for member in members:
                if member.mark == binding.endpoint:
                    return member
        member = service.balancer.pick(members, 0)
        decision.binding = binding._replace(endpoint=member.mark)
        decision.must_bind = True
        decision.until = 0.0
        return member
    if service.spec.balance != "hash":
        return service.balancer.pick(members, 0)
    key = decision.bucket if service.spec.sticky.by != "none" else hash_of(client.encode())
    return service.balancer.pick(members, key)
