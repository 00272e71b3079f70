"""What outlives a snapshot: pools and endpoints with their connections, keyed by identity.

`Live.apply` builds a new `Table` from a snapshot around the pools and endpoints
that are already known, and the caller swaps it in by one assignment.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from proxy import stats
from proxy.dataplane import judged
from proxy.dataplane.answer import OwnAnswers
from proxy.dataplane.header_rules import AnswerRules, RequestRules, answer_rules, request_rules
from proxy.dataplane.resolve import HostName, is_name
from proxy.dataplane.room import Room
from proxy.dataplane.upstream_tls import UpstreamTls, adopted
from proxy.model import WHOLE, Drain, Endpoint, Pool, PoolTls, Service, Snapshot
from proxy.policy import slow_start
from proxy.policy.balance import Balancer, balancer
from proxy.policy.routing import Router
from proxy.policy.split import Sequence as Buckets
from proxy.policy.split import Split
from proxy.policy.sticky import StickyCookie, endpoint_mark, hash_of

if TYPE_CHECKING:
    import ssl

    from proxy.dataplane.hold import HoldQueue
    from proxy.dataplane.upstream import Upstream

UNREACHABLE_S = 1.0
"""How long an endpoint that could not be connected to is passed over by this worker."""
RUN_S = 1.0
"""How long one with a run of failures is; until then the control plane has ejected it, or has not."""

_NOT_IN_PANIC = stats.UNCHECKED | stats.ASKS_TO_DRAIN
_AMISS = stats.DOWN | stats.EJECTED


class Desk(NamedTuple):
    """Where this worker writes what it counts, and reads what it is told."""

    words: memoryview
    board: memoryview
    worker: int
    workers: int

    def share(self, slot: int, lot: int) -> int:
        """Index on the board of what this worker is dealt of a lot."""
        return stats.share_index(slot, lot, self.workers, self.worker)


class EndpointLive:
    """One endpoint of a pool in this worker. `busy`, `weight`, `key`, `current`: for the balancer."""

    __slots__ = (
        "address",
        "busy",
        "current",
        "drain",
        "drained_at",
        "gone",
        "good",
        "host",
        "idle",
        "key",
        "listed_weight",
        "mark",
        "max_age_s",
        "name",
        "open",
        "passed_over_until",
        "path",
        "pool",
        "port",
        "readmitted_at",
        "room",
        "run",
        "session",
        "since",
        "slot",
        "state",
        "taken",
        "unreachable_until",
        "weight",
        "words",
    )

    def __init__(self, spec: Endpoint, pool: PoolLive) -> None:
        self.address = spec.address
        self.pool = pool
        self.words = pool.words
        self.slot = spec.slot
        self.path, self.host, self.port = split_address(spec.address)
        self.name: HostName | None = None
        """What there is to look up; None for an IP address or a path."""
        if not self.path and is_name(self.host):
            self.name = HostName(self.host, self.port, self._leave_other_addresses)
        self.max_age_s = inf
        """How old its connections may become."""
        self.key = hash_of(spec.address.encode())
        self.mark = endpoint_mark(spec.address)
        self.busy = 0
        self.taken = 0
        """Requests not yet added to the shared counter."""
        self.good = 0
        """Good outcomes not yet added to the shared counter."""
        self.run = 0
        """Bad outcomes in a row, before the good ones not yet added."""
        self.current = 0.0
        self.idle: list[Upstream] = []
        """Connections waiting for work, the last one used at the end."""
        self.open: set[Upstream] = set()
        self.unreachable_until = 0.0
        self.passed_over_until = 0.0
        self.state = 0
        """What the board says: see stats.B_STATE."""
        self.since = 0.0
        self.readmitted_at = 0.0
        self.drain: Drain | None = None
        self.drained_at = 0.0
        """When this worker heard of the drain: what began until then belongs to it."""
        self.gone = False
        """No snapshot lists it any more."""
        self.session: ssl.SSLSession | None = None
        """Of its last TLS connection, with which the next one is made for less."""
        self.room = Room(self, pool.desk.board)
        self.adopt(spec)

    def adopt(self, spec: Endpoint) -> None:
        self.listed_weight = spec.weight
        self.weight: float = spec.weight
        """The listed one, or less during a slow start."""
        if is_new(spec.drain, self.drain):
            self.drained_at = time.monotonic()
        self.drain = spec.drain
        self.gone = False
        if self.drain is not None:
            self.close_idle()

    def failed_to_connect(self, now: float) -> None:
        self.unreachable_until = now + UNREACHABLE_S
        self.words[self.slot + stats.E_FAILURES] += 1
        self.words[self.slot + stats.E_UNREACHABLE_MS] = int(self.unreachable_until * 1000)
        self.pool.suspects.add(self)
        self.was_bad(now)

    def connected(self) -> None:
        if self.unreachable_until:
            self.unreachable_until = 0.0
            self.words[self.slot + stats.E_UNREACHABLE_MS] = 0
            if not self.passed_over_until:
                self.pool.suspects.discard(self)

    def failed(self, began: float, now: float) -> None:
        """An attempt of an exchange that began then has brought no answer, or half of one.

        Who fails at once is always the least busy. In the fifth of a second that an ejection
        takes to get here hundreds of requests would be drawn to it.
        """
        self.words[self.slot + stats.E_FAILURES] += 1
        if self.was_bad(began):
            self.pool.pass_over(self, now)

    def settle(self, now: float) -> None:
        """Suspect it no longer, once there is nothing left to suspect."""
        if self.passed_over_until <= now:
            self.passed_over_until = 0.0
            if self.unreachable_until <= now and not self.room.is_used_up:
                self.pool.suspects.discard(self)

    def was_bad(self, began: float) -> bool:
        """An attempt has failed: it speaks for an ejection; True when it makes a whole run.

        What began before the last readmission says nothing about the endpoint as it is now.
        """
        if began < self.readmitted_at:
            return False
        if self.good:
            self._add_good()
        words, slot = self.words, self.slot
        words[slot + stats.E_BAD] += 1
        self.run += 1
        if self.run != self.pool.eject_after:
            return False
        self.run = 0
        words[slot + stats.E_TRIPS] += 1
        return True

    def _add_good(self) -> None:
        self.words[self.slot + stats.E_GOOD] += self.good
        self.good = self.run = 0

    def look(self, board: memoryview) -> None:
        """Take over what the board says."""
        slot = self.slot
        self.state = board[slot + stats.B_STATE]
        self.since = board[slot + stats.B_SINCE_MS] / 1000.0
        readmitted_at = board[slot + stats.B_READMITTED_MS] / 1000.0
        if readmitted_at != self.readmitted_at:
            self.readmitted_at = readmitted_at
            self.run = 0

    def ramp(self, now: float, slow_start_s: float) -> bool:
        """Set the weight that a slow start allows now; whether one is under way."""
        part = slow_start.part(
            now,
            since=self.since,
            readmitted_at=self.readmitted_at,
            slow_start_s=slow_start_s,
        )
        self.weight = self.listed_weight * part if part < 1.0 else self.listed_weight
        return part < 1.0

    def publish(self) -> None:
        """Bring the shared counters up to date: at every sweep, and when a snapshot is applied.

        From then on a draining endpoint only loses requests, so that what the control plane
        reads may be too high for a moment, but never too low.
        """
        words, slot = self.words, self.slot
        taken, self.taken = self.taken, 0
        if self.good:
            self._add_good()
        words[slot + stats.E_REQUESTS] += taken
        words[slot + stats.E_IN_FLIGHT] = self.busy
        words[slot + stats.E_IDLE] = len(self.idle)
        self.room.publish()

    @property
    def keeps_connections(self) -> bool:
        return self.drain is None and not self.gone and self.pool.drain is None

    def limit_age(self, max_age_s: float) -> None:
        if max_age_s != self.max_age_s:
            self.max_age_s = max_age_s
            for connection in self.open:
                if connection.ends_at:
                    connection.limit_age(max_age_s)

    def _leave_other_addresses(self, addresses: frozenset[str]) -> None:
        for connection in list(self.open):
            if connection.address and connection.address not in addresses:
                connection.retire()

    def retire_all(self) -> None:
        """What is in flight finishes; what comes next goes over new connections."""
        self.session = None
        for connection in list(self.open):
            connection.retire()

    def close_idle(self) -> None:
        idle, self.idle = self.idle, []
        for connection in idle:
            connection.close()


class PoolLive:
    __slots__ = (
        "asking",
        "changes_answers",
        "desk",
        "drain",
        "drained_at",
        "eject_after",
        "endpoints",
        "epoch",
        "exposed",
        "has_own",
        "name",
        "panic",
        "passed",
        "ramping",
        "ready",
        "refusals",
        "release",
        "rules",
        "samples",
        "service",
        "share",
        "slot",
        "slow_start_s",
        "suspects",
        "tls",
        "weight",
        "words",
    )

    def __init__(self, spec: Pool, service: str, desk: Desk) -> None:
        self.name = spec.name
        self.service = service
        self.slot = spec.slot
        self.desk = desk
        self.words = desk.words
        self.share = desk.share(spec.slot, stats.LOT_POOL_CONCURRENCY)
        self.endpoints: dict[str, EndpointLive] = {}
        self.suspects: set[EndpointLive] = set()
        """Endpoints that could not be connected to lately, had a run of failures, or no room."""
        self.drain: Drain | None = None
        self.drained_at = 0.0
        self.tls: UpstreamTls | None = None
        """How TLS is spoken to the endpoints; None where it is not."""
        self.samples: deque[judged.Sample] = deque(maxlen=judged.KEPT_SAMPLES)
        self.refusals: deque[judged.Sample] = deque(maxlen=judged.KEPT_SAMPLES)

    def adopt(self, spec: Pool, service: Service) -> None:
        self.weight = spec.weight
        self.epoch = spec.epoch
        self.release = spec.release
        self.eject_after = service.eject_after
        self.slow_start_s = service.slow_start_s
        self.panic = service.panic
        self._adopt_tls(spec.tls)
        before = self.drain
        self.drain = spec.drain
        known = self.endpoints
        self.endpoints = {}
        for endpoint in spec.endpoints:
            live = known.pop(endpoint.address, None)
            if live is None:
                live = EndpointLive(endpoint, self)
            else:
                live.adopt(endpoint)
            live.limit_age(service.timeouts.upstream_max_age_s)
            live.room.adopt(service.limits, self.desk)
            self.endpoints[endpoint.address] = live
        for live in known.values():
            live.gone = True
            live.close_idle()
            self.suspects.discard(live)
        for live in (*self.endpoints.values(), *known.values()):
            live.publish()
        self.ready: list[EndpointLive] = []
        """Endpoints that may get something new, as far as the control plane knows."""
        self.asking: list[EndpointLive] = []
        """Those that only take what is bound to them, since they ask to be drained."""
        self.ramping: list[EndpointLive] = []
        """Those in their slow start."""
        if is_new(self.drain, before):
            self.drained_at = time.monotonic()
            for live in self.endpoints.values():
                live.close_idle()
        self.has_own = service.sticky.endpoint or service.balance == "hash"
        """Clients have an endpoint of their own, and wait for it rather than go elsewhere."""
        self._adopt_lines(spec, service)

    def _adopt_lines(self, spec: Pool, service: Service) -> None:
        """Make ready what its requests and answers get added."""
        self.passed = b""
        self.exposed = b""
        lines = b"X-Turnout-Pool: %b\r\n" % spec.name.encode()
        if spec.release:
            lines += b"X-Turnout-Release: %b\r\n" % spec.release.encode()
        if service.pass_pool:
            self.passed = lines
        if service.expose_pool:
            self.exposed = lines
        self.rules: AnswerRules | None = answer_rules(service.response_headers)
        if self.rules is not None:
            self.exposed += self.rules.added
        self.changes_answers = bool(self.exposed) or self.rules is not None

    def _adopt_tls(self, spec: PoolTls | None) -> None:
        before, self.tls = self.tls, adopted(spec, self.tls)
        if self.tls is not before:
            for endpoint in self.endpoints.values():
                endpoint.retire_all()

    def look(self, board: memoryview, now: float) -> None:
        """Take over what the board says of the endpoints."""
        for endpoint in self.endpoints.values():
            endpoint.look(board)
        staying = [e for e in self.endpoints.values() if e.drain is None]
        self.ready = [e for e in staying if not e.state]
        self.asking = [e for e in staying if e.state == stats.ASKS_TO_DRAIN]
        self.ramping = staying
        self.ramp(now)

    def ramp(self, now: float) -> None:
        """Give those in their slow start the weight of this moment."""
        self.ramping = [e for e in self.ramping if e.ramp(now, self.slow_start_s)]

    @property
    def is_open(self) -> bool:
        """Whether new clients may come."""
        return self.weight > 0 and self.drain is None

    @property
    def is_full(self) -> bool:
        """Whether endpoints would take more, were it not for their limits."""
        return bool(self.suspects) and any(e.room.is_full for e in self.ready)

    def available(self, tried: set[EndpointLive] | None, now: float) -> list[EndpointLive]:
        """Endpoints that may get a request: not draining, not tried, not just found bad.

        Where some have no connection to spare, those that have; else those not yet full.
        """
        if not self.suspects and tried is None:
            return self.ready
        return self._with_room(
            [
                e
                for e in self.ready
                if e.unreachable_until <= now
                and e.passed_over_until <= now
                and (tried is None or e not in tried)
            ]
        )

    def pass_over(self, endpoint: EndpointLive, now: float) -> None:
        """Leave an endpoint alone for a moment, if half of what is ready remains."""
        others = sum(
            1
            for e in self.ready
            if e is not endpoint and e.unreachable_until <= now and e.passed_over_until <= now
        )
        if others and others * 2 >= len(self.ready):
            endpoint.passed_over_until = now + RUN_S
            self.suspects.add(endpoint)

    def untried(self, tried: set[EndpointLive] | None) -> list[EndpointLive]:
        """Every endpoint that is not draining, not full and was not tried, just found bad or not."""
        return [e for e in self.ready if (tried is None or e not in tried) and not e.room.is_full]

    def _with_room(self, members: list[EndpointLive]) -> list[EndpointLive]:
        if not self.suspects:
            return members
        if not self.has_own and (roomy := [e for e in members if e.room.has_some]):
            return roomy
        return [e for e in members if not e.room.is_full]

    def in_panic(self, tried: set[EndpointLive] | None, now: float) -> list[EndpointLive]:
        """All that were not tried, also those down or ejected, if they are so large a part.

        Where most of a pool seems to be amiss the fault may be in how we look at it. Who has
        just failed this very request is amiss, too, unless it was only full. A new endpoint
        gets nothing before its first check even so, nor one that drains.
        """
        if self.panic is None:
            return []
        staying = [e for e in self.endpoints.values() if e.drain is None]
        failed = {e for e in tried if not e.room.is_full} if tried else ()
        amiss = sum(
            1 for e in staying if e.state & _AMISS or e.unreachable_until > now or e in failed
        )
        if amiss * WHOLE <= self.panic * len(staying):
            return []
        return [e for e in staying if not e.state & _NOT_IN_PANIC and (not tried or e not in tried)]


class ServiceLive:
    """A service as the requests of one snapshot see it; sequence and balance carry on."""

    __slots__ = (
        "adapts",
        "balancer",
        "by_name",
        "concurrency_share",
        "cookie",
        "header",
        "hold",
        "is_limited",
        "is_sticky",
        "key",
        "own",
        "pools",
        "rate_share",
        "rules",
        "sequence",
        "spec",
        "split",
    )

    def __init__(
        self, spec: Service, pools: list[PoolLive], desk: Desk, before: ServiceLive | None
    ) -> None:
        self.spec = spec
        self.pools = pools
        self.hold: HoldQueue | None = None
        """Where its new requests wait, during a hold."""
        self.by_name = {pool.name: pool for pool in pools}
        self.split = Split(_shares_of_new(spec.pools) or [WHOLE], spec.offset)
        self.sequence: Buckets = before.sequence if before else Buckets(random.randrange(WHOLE))
        self.balancer: Balancer = (
            before.balancer
            if before and before.spec.balance == spec.balance
            else balancer(spec.balance, random.random)
        )
        sticky = spec.sticky
        self.cookie = StickyCookie(spec.name, sticky) if sticky.by == "cookie" else None
        if before is not None and before.spec.sticky == sticky:
            self.cookie = before.cookie
        self.header = sticky.name.lower().encode() if sticky.by == "header" else b""
        self.is_sticky = sticky.by != "none"
        self.key = bytes.fromhex(sticky.keys[0]) if sticky.keys else b""
        limits = spec.limits
        self.is_limited = limits.rate > 0 or limits.concurrency > 0
        self.adapts = limits.adaptive
        self.rate_share = desk.share(spec.slot, stats.LOT_RATE)
        self.concurrency_share = desk.share(spec.slot, stats.LOT_CONCURRENCY)
        self.rules: RequestRules | None = request_rules(spec)
        look = (spec.pages, spec.response_headers)
        self.own: OwnAnswers = (
            before.own
            if before and (before.spec.pages, before.spec.response_headers) == look
            else OwnAnswers(*look)
        )


def _shares_of_new(pools: Sequence[Pool]) -> list[int]:
    """Shares of what is new: a draining pool's weight goes to the largest of the others."""
    shares = [0 if pool.drain is not None else pool.weight for pool in pools]
    if not any(shares):
        return [pool.weight for pool in pools]
    shares[shares.index(max(shares))] += WHOLE - sum(shares)
    return shares


class Table:
    """Routes to services, of one revision."""

    __slots__ = ("revision", "router", "services")

    def __init__(self, revision: int, router: Router, services: list[ServiceLive]) -> None:
        self.revision = revision
        self.router = router
        self.services = services

    def find(self, host: bytes, target: bytes) -> ServiceLive | None:
        index = self.router.find(host, target)
        return None if index < 0 else self.services[index]


class Live:
    def __init__(
        self,
        words: memoryview,
        board: memoryview,
        now: Callable[[], float] = time.monotonic,
        *,
        worker: int = 0,
        workers: int = 1,
    ) -> None:
        self._desk = Desk(words, board, worker, workers)
        self._board = board
        self._now = now
        self._seen = -1
        self._pools: dict[tuple[str, str], PoolLive] = {}
        self._services: dict[str, ServiceLive] = {}

    def apply(self, snapshot: Snapshot) -> Table:
        """The table of `snapshot`; pools and endpoints it still lists keep all they have."""
        before, self._pools = self._pools, {}
        services = {}
        for spec in snapshot.services:
            pools = [self._adopt(pool, spec, before) for pool in spec.pools]
            services[spec.name] = ServiceLive(
                spec, pools, self._desk, self._services.get(spec.name)
            )
        for pool in before.values():
            for endpoint in pool.endpoints.values():
                endpoint.gone = True
                endpoint.close_idle()
        self._services = services
        self._seen = -1
        self.look()
        ordered = list(services.values())
        router = Router(
            (route, index) for index, s in enumerate(ordered) for route in s.spec.routes
        )
        return Table(snapshot.revision, router, ordered)

    def look(self) -> None:
        """Look at the board, if it has changed, and go on with the slow starts."""
        version, now = self._board[stats.B_VERSION], self._now()
        if version != self._seen:
            self._seen = version
            for pool in self._pools.values():
                pool.look(self._board, now)
        else:
            for pool in self._pools.values():
                if pool.ramping:
                    pool.ramp(now)

    def _adopt(
        self, spec: Pool, service: Service, before: dict[tuple[str, str], PoolLive]
    ) -> PoolLive:
        key = (service.name, spec.name)
        pool = before.pop(key, None)
        if pool is None:
            pool = PoolLive(spec, service.name, self._desk)
        pool.adopt(spec, service)
        self._pools[key] = pool
        return pool

    def pool(self, service: str, pool: str) -> PoolLive | None:
        return self._pools.get((service, pool))

    def endpoints(self) -> list[EndpointLive]:
        return [e for pool in self._pools.values() for e in pool.endpoints.values()]


def is_new(drain: Drain | None, before: Drain | None) -> bool:
    """Whether a drain has begun; its times may differ a little from snapshot to snapshot."""
    return drain is not None and (before is None or drain.since_s - before.since_s > 0.1)


def split_address(address: str) -> tuple[str, str, int]:
    """`unix:/path` -> (path, "", 0); `host:port` and `[v6]:port` -> ("", host, port)."""
    if address.startswith("unix:"):
        return address[5:], "", 0
    host, _, port = address.rpartition(":")
    return "", host.strip("[]"), int(port)
