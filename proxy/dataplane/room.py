"""Room at an endpoint: this worker's share of its connections, and the requests that wait for one."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from proxy import stats
from proxy.model import Limits

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.live import Desk, EndpointLive
    from proxy.dataplane.upstream import Upstream


class Room:
    """One endpoint's. Only an endpoint that has no room, or had none lately, is `is_tight`."""

    __slots__ = ("_board", "_bound", "_endpoint", "_share", "connecting", "is_tight", "queue")

    def __init__(self, endpoint: EndpointLive, board: memoryview) -> None:
        self._endpoint = endpoint
        self._board = board
        self._share = 0
        """Where on the board our share of the connections is; 0 = there is no limit."""
        self._bound = 0
        """How many requests may wait; 0 = there is no limit."""
        self.connecting = 0
        self.queue: deque[Exchange] = deque()
        self.is_tight = False
        """A connection that is given back is not simply kept."""

    def adopt(self, limits: Limits, desk: Desk) -> None:
        share = desk.share(self._endpoint.slot, stats.LOT_CONNECTIONS)
        self._share = share if limits.connections else 0
        self._bound = max(1, limits.pending // desk.workers) if limits.pending else 0

    # ---- taking ----

    def reserve(self) -> bool:
        """Take room for a connection that is about to be opened; `settle` follows.

        The dealer of the shares must be able to rely on what it reads: so a connection is
        counted first, and only then is the share looked at.
        """
        self.connecting += 1
        if not self._share:
            return True
        count = self.publish()
        left = self._board[self._share] - count
        if left <= 0:
            self._endpoint.pool.suspects.add(self._endpoint)
        if left >= 0:
            return True
        self.connecting -= 1
        self.publish()
        return False

    def settle(self) -> None:
        """End what `reserve` began: the connection is open, or could not be opened.

        After a failure nobody else is sent there at once: the sweep has those who wait decided
        again.
        """
        self.connecting -= 1
        if self._share:
            self.publish()

    def lost(self) -> None:
        """Note that a connection is closed."""
        if self._share:
            self.publish()
        if self.is_tight:
            self.fill()

    def publish(self) -> int:
        """Count the open connections where everybody sees it."""
        endpoint = self._endpoint
        count = len(endpoint.open) + self.connecting
        endpoint.words[endpoint.slot + stats.E_OPEN] = count
        return count

    # ---- looking ----

    @property
    def is_used_up(self) -> bool:
        """All of the share is in use, or rests."""
        count = len(self._endpoint.open) + self.connecting
        return bool(self._share) and count >= self._board[self._share]

    @property
    def has_some(self) -> bool:
        """Whether a request would get a connection at once."""
        return bool(self._endpoint.idle) or not self.is_used_up

    @property
    def is_full(self) -> bool:
        """Nothing is left, not even a place to wait."""
        return 0 < self._bound <= len(self.queue) and not self.has_some

    # ---- waiting ----

    def wait(self, exchange: Exchange, now: float) -> bool:
        """Have the exchange wait for a connection; False when too many do already."""
        if 0 < self._bound <= len(self.queue):
            return False
        exchange.pending_since = now
        self.queue.append(exchange)
        self._count_queue()
        idle = self._endpoint.idle
        if (
            idle
        ):  # it may not have one that has rested for long: one of them makes room for a new one
            idle.pop(0).close()
        return True

    def leave(self, exchange: Exchange) -> None:
        """Have it wait no longer."""
        exchange.pending_since = 0.0
        self.queue.remove(exchange)
        self._count_queue()

    def take(self, connection: Upstream) -> bool:
        """Take a connection that is given back; False when it may simply be kept."""
        if self._share and self._surplus() > 0:
            connection.close()
            return True
        if not self.queue:
            self.is_tight = False
            return False
        exchange = self._next()
        connection.is_reused = True
        exchange.attach(connection)
        exchange.flush_request()
        return True

    def fill(self) -> None:
        """Open connections for those who wait, as far as there is room."""
        while self.queue and self.reserve():
            self._next().connect()

    def sweep(self) -> None:
        """Follow the share: it may have grown or shrunk, and the queue with it."""
        if not self._share:
            if self.queue:  # the limit has been lifted
                self.fill()
            return
        idle = self._endpoint.idle
        surplus = self._surplus()
        while surplus > 0 and idle:
            idle.pop(0).close()
            surplus -= 1
        self.fill()
        self.is_tight = bool(self.queue) or surplus > 0
        if self.is_used_up:
            self._endpoint.pool.suspects.add(self._endpoint)

    # ---- inside ----

    def _surplus(self) -> int:
        """How many connections there are above the share, those not counted that are closing.

        Nor are those being opened, which for a moment are among the open ones already.
        """
        share: int = self._board[self._share]
        surplus = len(self._endpoint.open) - share
        if surplus > 0:
            surplus -= sum(not connection.is_usable() for connection in self._endpoint.open)
        return surplus

    def _next(self) -> Exchange:
        exchange = self.queue.popleft()
        exchange.pending_since = 0.0
        self._count_queue()
        return exchange

    def _count_queue(self) -> None:
        endpoint = self._endpoint
        endpoint.words[endpoint.slot + stats.E_PENDING] = len(self.queue)
        self.is_tight = self.is_tight or bool(self.queue)
