"""Hold and paced release: new requests of a service wait in their order, and are let go one by one.

Whatever is let go begins anew, by the table in force at that moment: its pool, even its
service, may be another one by then. What ends in between (the client left, its body was
malformed) is noticed when the queue is next looked at, so an exchange knows nothing of it.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from proxy import stats
from proxy.dataplane import faults
from proxy.model import Hold, Service
from proxy.policy import pace

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.live import ServiceLive
    from proxy.dataplane.plane import Plane

STEP_S = 0.02
"""Between two looks at the pace of a release."""
MOST_AT_ONCE = 64
"""Let go in one turn of the loop; then the others get theirs."""
EARLY = 16 * 1024
"""Bytes of a held request's body after which no more of it is read."""


class _Place:
    """A held request's place in the queue: since when, and how much of its body is kept."""

    __slots__ = ("since", "size")

    def __init__(self, since: float) -> None:
        self.since = since
        self.size = 0


class HoldQueue:
    """The held requests of one service in this worker, first come first."""

    __slots__ = (
        "_bytes",
        "_gone",
        "_health",
        "_hold",
        "_loop",
        "_plane",
        "_pruned",
        "_share",
        "_slot",
        "_timer",
        "_waited",
        "_waiting",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, plane: Plane) -> None:
        # fixed
        self._loop = loop
        self._plane = plane
        # per snapshot
        self._hold: Hold | None = None
        self._slot = 0
        self._share = 0
        self._health = b""
        # those who wait
        self._waiting: OrderedDict[Exchange, _Place] = OrderedDict()
        self._bytes = 0
        self._pruned = 0.0
        # the release under way
        self._timer: asyncio.Handle | None = None
        self._waited = 0
        """How many waited when it began."""
        self._gone = 0

    # ---- what the snapshot says ----

    def adopt(self, spec: Service) -> None:
        plane = self._plane
        self._slot = spec.slot
        self._share = stats.share_index(spec.slot, stats.LOT_HELD, plane.workers, plane.worker)
        self._health = spec.health_path.encode()
        self._obey(spec.hold)

    def open(self) -> None:
        """Let everybody go at once, and hold nobody any more."""
        self._obey(None)

    def _obey(self, hold: Hold | None) -> None:
        before, self._hold = self._hold, hold
        if self.is_holding:
            self.close()
            return
        if hold is not None and _is_new_release(hold, before):
            self._waited = len(self._waiting)
            self._gone = 0
        self._wake()

    @property
    def is_holding(self) -> bool:
        return self._hold is not None and self._hold.released_s is None

    @property
    def is_over(self) -> bool:
        return self._hold is None and not self._waiting

    # ---- waiting ----

    def takes(self, exchange: Exchange) -> bool:
        """Have the request wait, or refuse it when too many do; False when it may go on."""
        head = exchange.head
        if (
            self._health
            and head.method in {b"GET", b"HEAD"}
            and head.target.partition(b"?")[0] == self._health
        ):
            return False
        words, gauge = self._plane.words, self._slot + stats.S_HELD
        words[gauge] = len(self._waiting) + 1  # first counted, then compared: see policy/shares.py
        if not self._has_room():
            words[gauge] = len(self._waiting)
            self._count(stats.HELD_REFUSED)
            exchange.refuse(faults.HELD_FULL)
            return True
        self._waiting[exchange] = _Place(self._plane.clock.now)
        words[gauge] = len(self._waiting)
        self.grew(exchange, exchange.bytes_in)
        return True

    def _has_room(self) -> bool:
        share = self._plane.board[self._share]
        if len(self._waiting) < share:
            return True
        now = self._plane.clock.now
        if self._pruned != now:  # once a sweep: whoever is refused must not cost a look at all
            self._pruned = now
            self._prune()
        return len(self._waiting) < share

    def grew(self, exchange: Exchange, size: int) -> None:
        """Count so much more of a held request's body, and bound what is kept."""
        place = self._waiting.get(exchange)
        if place is None or not size:
            return
        place.size += size
        self._bytes += size
        self._plane.words[self._slot + stats.S_HELD_BYTES] = self._bytes
        hold = self._hold
        if hold is not None and self._bytes > hold.most_bytes:
            self._take_out(exchange, stats.HELD_REFUSED)
            exchange.refuse(faults.HELD_FULL, close=not exchange.request_done)
        elif exchange.bytes_in > EARLY:
            exchange.client.pause_body()

    def sweep(self, now: float) -> None:
        """Drop those who left; refuse those who have waited too long, unless they are let go."""
        self._prune()
        self._listen()
        hold = self._hold
        if hold is None or not self.is_holding:
            return
        while self._waiting:
            exchange, place = next(iter(self._waiting.items()))
            if now - place.since < hold.timeout_s:
                return
            self._take_out(exchange, stats.HELD_TIMED_OUT)
            exchange.refuse(faults.HELD_TOO_LONG)

    def _prune(self) -> None:
        for exchange in [each for each in self._waiting if each.is_done]:
            self._drop(exchange)
        for exchange in _left_unread(self._waiting):
            self._drop(exchange)

    def _listen(self) -> None:
        """Read on from TLS clients whose requests are whole.

        A close_notify is bytes like others to the kernel, and many clients do not close before
        ours has come: only who reads it knows that they left. The next request stops that again.
        """
        for exchange in self._waiting:
            if exchange.request_done and exchange.client.is_secure:
                exchange.client.resume_body()

    def _drop(self, exchange: Exchange) -> None:
        is_refused = exchange.is_done and exchange.is_started  # by an answer of our own
        self._take_out(exchange, stats.HELD_REFUSED if is_refused else stats.HELD_CLIENT_GONE)
        if not exchange.is_done:
            exchange.client.abort()

    def _take_out(self, exchange: Exchange, end: int) -> None:
        self._bytes -= self._waiting.pop(exchange).size
        words = self._plane.words
        words[self._slot + stats.S_HELD] = len(self._waiting)
        words[self._slot + stats.S_HELD_BYTES] = self._bytes
        self._count(end)

    def _count(self, end: int) -> None:
        self._plane.words[self._slot + stats.S_HELD_ENDS + end] += 1

    # ---- letting go ----

    def _wake(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = self._loop.call_soon(self._step)

    def close(self) -> None:
        """Let nobody go for now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _step(self) -> None:
        self._timer = None
        for _ in range(min(MOST_AT_ONCE, self._due())):
            self._let_one_go()
        if self._waiting:
            pause_s = 0.0 if self._due() else STEP_S
            self._timer = self._loop.call_later(pause_s, self._step)

    def _due(self) -> int:
        """How many of those that wait should have gone by now."""
        hold, left = self._hold, len(self._waiting)
        if hold is None or hold.released_s is None:
            return left
        elapsed_s = time.monotonic() - hold.released_s
        return min(left, pace.due(self._waited, elapsed_s, hold.over_s) - self._gone)

    def _let_one_go(self) -> None:
        self._gone += 1
        exchange = next(iter(self._waiting))
        if exchange.is_done or _left_unread((exchange,)):
            self._drop(exchange)
            return
        self._take_out(exchange, stats.HELD_RELEASED)
        try:
            exchange.start()
            exchange.flush_request()
            if exchange.request_done and not exchange.is_done:
                exchange.client.resume_body()  # nothing more is kept: its leaving shall be heard
        except Exception as error:  # noqa: BLE001 - one of them must not keep the rest from theirs
            self._plane.report("hold", error)
            exchange.client.abort()


class Holds:
    """The queues of this worker by their service's name; they outlive snapshots."""

    def __init__(self, loop: asyncio.AbstractEventLoop, plane: Plane) -> None:
        self._loop = loop
        self._plane = plane
        self._queues: dict[str, HoldQueue] = {}
        self._is_open = False

    def adopt(self, services: Iterable[ServiceLive]) -> None:
        """Follow a new table; what was held for a service that is gone is let go at once."""
        gone = dict(self._queues)
        for service in services:
            name = service.spec.name
            gone.pop(name, None)
            self._adopt(name, service)
        for queue in gone.values():
            queue.open()

    def _adopt(self, name: str, service: ServiceLive) -> None:
        queue = self._queues.get(name)
        if queue is None:
            if service.spec.hold is None:
                return
            queue = self._queues[name] = HoldQueue(self._loop, self._plane)
        if self._is_open:
            queue.open()
            return
        queue.adopt(service.spec)
        if queue.is_holding:
            service.hold = queue

    def sweep(self, now: float) -> None:
        for name, queue in list(self._queues.items()):
            queue.sweep(now)
            if queue.is_over:
                del self._queues[name]

    def open(self, services: Iterable[ServiceLive]) -> None:
        """Let everybody go and hold nobody any more: this worker is to end."""
        self._is_open = True
        for service in services:
            service.hold = None
        for queue in self._queues.values():
            queue.open()

    def close(self) -> None:
        for queue in self._queues.values():
            queue.close()


def _is_new_release(hold: Hold, before: Hold | None) -> bool:
    """Whether this is not the release under way; its time may differ a little by snapshot."""
    if before is None or before.released_s is None or hold.released_s is None:
        return True
    return abs(hold.released_s - before.released_s) > 0.1 or hold.over_s != before.over_s


def _left_unread(exchanges: Iterable[Exchange]) -> list[Exchange]:
    """Those whose client has closed while we read nothing from it, and so were not told."""
    asked = select.poll()
    by_fd: dict[int, Exchange] = {}
    left: list[Exchange] = []
    for exchange in exchanges:
        transport = exchange.client.transport
        if transport.is_closing():
            left.append(exchange)
        elif exchange.client.is_unread:
            fd = transport.get_extra_info("socket").fileno()
            asked.register(fd, select.POLLRDHUP)
            by_fd[fd] = exchange
    if by_fd:
        left += [by_fd[fd] for fd, _ in asked.poll(0)]
    return left
