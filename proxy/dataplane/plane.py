"""One worker's data plane: the table in force, the listeners, the connections, the sweep."""

from __future__ import annotations

import asyncio
import math
import resource
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from proxy import stats
from proxy.clock import Clock, SystemClock
from proxy.dataplane import judged, opening, patience
from proxy.dataplane.access_log import AccessLogWriter
from proxy.dataplane.deadlines import CoarseClock, Sweeper
from proxy.dataplane.downstream import Downstream
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.forwarding import RequestIds
from proxy.dataplane.hold import Holds
from proxy.dataplane.listener import ListenerLive
from proxy.dataplane.live import Live, Table
from proxy.dataplane.resolve import Resolve, Resolver, Tell, system_resolve
from proxy.door import Door, size
from proxy.errors import Fault
from proxy.model import AccessLog, Snapshot
from proxy.policy.routing import Router
from proxy.tasks import Report

MAX_ITEMS = 1000
FOR_CLIENTS = 0.75
"""Of the descriptors: who fills all of these must not keep the others from being served."""


class Plane:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        words: memoryview,
        board: memoryview,
        *,
        worker: int,
        workers: int,
        report: Report,
        note: Callable[[Exchange, Fault, str], None] | None = None,
        tell: Tell = lambda _, __: None,
        door: Door | None = None,
        clock: Clock | None = None,
        resolve: Resolve = system_resolve,
    ) -> None:
        self.words = words
        self.board = board
        self.worker = worker
        self.workers = workers
        self.door = door or Door(memoryview(bytearray(size(1))).cast("Q"), 0, 1)
        self.report = report
        self.note = note
        clock = clock or SystemClock()
        self.clock = CoarseClock(clock)
        self.resolver = Resolver(words, clock, resolve, report, tell)
        self._descriptors = 0
        self.is_ending = False
        self.ids = RequestIds(secrets.randbits(128))
        self.table = Table(0, Router(()), [])
        self.connections: set[Downstream] = set()
        self.access_log: AccessLogWriter | None = None
        self.farewell_s = math.inf
        """When tunnels and event streams are told to end because the worker ends."""
        self.farewell_spread_s = 0.0
        self._live = Live(words, board, lambda: self.clock.now, worker=worker, workers=workers)
        self._holds = Holds(loop, self)
        self._listeners: dict[str, ListenerLive] = {}
        self._leaving: list[ListenerLive] = []
        self._log_spec = AccessLog(path="off")
        self._sweeper = Sweeper(loop, self.clock, self._sweep)
        self._emptied: asyncio.Event = asyncio.Event()

    def is_short(self, sock: socket.socket | None) -> bool:
        """Whether a client's new socket shows that the rest must be kept for the endpoints."""
        # The lowest free number is given out: a high one means that all below are taken.
        return sock is not None and sock.fileno() >= self._descriptors

    # ---- changes ----

    async def apply(self, snapshot: Snapshot, sockets: Mapping[str, socket.socket]) -> None:
        """Obey a snapshot; `sockets` are the listening sockets by the listener's address."""
        if snapshot.revision < self.table.revision:
            return
        self.clock.tick()
        self._apply_log(snapshot.access_log)
        self._descriptors = int(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * FOR_CLIENTS)
        self.table = self._live.apply(snapshot)
        self._holds.adopt(self.table.services)
        self._refresh_names()
        self.words[stats.W_REVISION] = snapshot.revision
        wanted = {spec.bind for spec in snapshot.listeners}
        for bind in [b for b in self._listeners if b not in wanted]:
            await self._close_listener(bind)
        for spec in snapshot.listeners:
            known = self._listeners.get(spec.bind)
            if known is not None:
                known.adopt(spec)
                await known.listen_anew()
            elif spec.bind in sockets:
                listener = ListenerLive(self, spec, self.words)
                self._listeners[spec.bind] = listener
                await listener.listen(sockets[spec.bind])
        self._sweeper.stop()
        self._sweeper.start()

    async def warm(self, service: str, pool: str, timeout_s: float) -> int:
        """Open connections ahead of traffic; returns how many."""
        found = self._live.pool(service, pool)
        spec = next((s.spec for s in self.table.services if s.spec.name == service), None)
        if found is None or spec is None or self.is_ending:
            return 0
        timeout_s = min(timeout_s, spec.timeouts.connect_s)
        return await opening.warm(self, found, spec.warm_connections, timeout_s)

    async def _close_listener(self, bind: str) -> None:
        listener = self._listeners.pop(bind)
        listener.is_leaving = True
        listener.stop_listening()
        await asyncio.sleep(0)
        await listener.accept_rest()
        await asyncio.sleep(0)  # what they have sent already is read before they may rest
        self._leaving.append(listener)
        for connection in list(self.connections):
            if connection.listener is listener:
                connection.rest()

    def _apply_log(self, spec: AccessLog) -> None:
        if spec == self._log_spec:
            return
        before, self.access_log = self.access_log, None
        if before is not None:
            before.close()
        if spec.path != "off":
            try:
                self.access_log = AccessLogWriter(spec, self.words)
            except OSError as error:  # traffic matters more than its log
                self.report("access log", error)
        self._log_spec = spec

    # ---- the end ----

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, let what is in flight finish for `grace_s`, then cut.

        In the second half of that time tunnels and event streams are ended gently.
        """
        self.farewell_spread_s = grace_s / 2
        self.farewell_s = self.clock.now + grace_s / 2
        self._holds.open(self.table.services)
        self.is_ending = True
        for bind in list(self._listeners):
            await self._close_listener(bind)
        for connection in list(self.connections):
            connection.rest()
        if self.connections or self._entering():
            self._emptied.clear()
            try:
                async with asyncio.timeout(grace_s):
                    await self._emptied.wait()
            except TimeoutError:
                pass
        self.abort()

    def abort(self) -> None:
        """Cut everything that is left."""
        self.is_ending = True
        self.resolver.close()
        self._sweeper.stop()
        self._holds.close()
        for listener in (*self._listeners.values(), *self._leaving):
            listener.close()
        for connection in list(self.connections):
            if connection.current is not None:
                patience.cut(connection.current)
            connection.abort()
        for endpoint in self._live.endpoints():
            endpoint.close_idle()
            endpoint.publish()  # no sweep will do it
        if self.access_log is not None:
            self.access_log.close()
            self.access_log = None

    # ---- connections ----

    def forget(self, connection: Downstream) -> None:
        if connection in self.connections:
            self.connections.discard(connection)
            connection.listener.left(connection)
            self.look_whether_empty()

    def look_whether_empty(self) -> None:
        if not self.connections and not self._entering():
            self._emptied.set()

    def _entering(self) -> int:
        """Connections on their way in through a gate."""
        return sum(each.entering for each in (*self._listeners.values(), *self._leaving))

    def in_flight(self, service: str, pool: str | None) -> list[dict[str, Any]]:
        """What is in flight on a service, oldest first."""
        now = time.monotonic()
        found = [
            exchange
            for connection in self.connections
            if (exchange := connection.current) is not None
            and exchange.pool is not None
            and exchange.endpoint is not None
            and exchange.pool.service == service
            and (pool is None or exchange.pool.name == pool)
        ]
        found.sort(key=lambda exchange: exchange.started)
        return [_item(exchange, now) for exchange in found[:MAX_ITEMS]]

    def samples(self, service: str, pool: str) -> list[dict[str, Any]]:
        """The last failed first attempts of a pool, newest first."""
        found = self._live.pool(service, pool)
        return [] if found is None else judged.samples(found)

    def _sweep(self, now: float) -> None:
        self._sweep_clients(now)
        self._leaving = [each for each in self._leaving if each.open or each.turned_away]
        self._live.look()
        self._holds.sweep(now)
        self._refresh_names()
        self._sweep_upstreams(now)
        if self.access_log is not None:
            self.access_log.flush()
        self.words[stats.W_HEARTBEAT_MS] = int(now * 1000)

    def _sweep_clients(self, now: float) -> None:
        active: Counter[ListenerLive] = Counter()
        idle: Counter[ListenerLive] = Counter()
        tunnels: Counter[ListenerLive] = Counter()
        for connection in list(self.connections):
            if connection.calm_until <= now or connection.current is not None:
                try:  # ten thousand at rest must not cost ten thousand looks
                    connection.sweep(now)
                except Exception as error:  # noqa: BLE001 - one connection must not keep the rest from theirs
                    self.report("sweep", error)
                    connection.abort()
            if not connection.is_admitted:
                continue  # it is only being told why
            current = connection.current
            if current is None:
                idle[connection.listener] += 1
            elif current.kind == stats.TUNNEL:
                tunnels[connection.listener] += 1
            else:
                active[connection.listener] += 1
        for each in (*self._listeners.values(), *self._leaving):
            each.gauge(active[each], idle[each], tunnels[each])

    def _refresh_names(self) -> None:
        for endpoint in self._live.endpoints():
            if endpoint.name is not None and endpoint.drain is None:
                is_busy = endpoint.pool.is_open or bool(endpoint.open)
                self.resolver.refresh(endpoint.name, is_busy=is_busy)

    def _sweep_upstreams(self, now: float) -> None:
        for service in self.table.services:
            idle_s = service.spec.timeouts.upstream_idle_s
            for pool in service.pools:
                for endpoint in pool.endpoints.values():
                    for connection in list(endpoint.idle):
                        connection.sweep(now, idle_s)
                    endpoint.room.sweep()
                    endpoint.publish()
                for endpoint in list(pool.suspects):
                    endpoint.settle(now)


def _item(exchange: Exchange, now: float) -> dict[str, Any]:
    pool, endpoint, head = exchange.pool, exchange.endpoint, exchange.head
    path = head.target.partition(b"?")[0][:200].decode("latin-1")
    return {
        "kind": stats.CLASSES[exchange.kind],
        "age_s": round(now - exchange.started, 3),
        "pool": pool.name if pool is not None else "",
        "endpoint": endpoint.address if endpoint is not None else "",
        "route": f"{head.method.decode('latin-1')} {path}",
        "request_id": exchange.request_id.decode("latin-1"),
    }
