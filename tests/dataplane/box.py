"""A data plane in the test's own loop, between raw clients and scripted endpoints."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from proxy import stats
from proxy.clock import Clock
from proxy.dataplane.live import EndpointLive, PoolLive
from proxy.dataplane.plane import Plane
from proxy.dataplane.resolve import Resolve, system_resolve
from proxy.model import WHOLE, AccessLog, Endpoint, Listener, Pool, Route, Service, Snapshot
from proxy.stats import Board, SlotTable
from tests.e2e.wire import Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BIND = "127.0.0.1:1"
"""Only the listener's name: the socket is bound to a port of the kernel's choice."""
WORDS = 50_000
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)


async def until(condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    """Wait for what will be so soon, unless the machine is busy."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - counters set no event
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s:g} s: {what}") from None


class Peer:
    """One connection as an endpoint sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> bytes:
        """The next request, head and body (by length)."""
        head = await self.head()
        length = _LENGTH.search(head)
        return head + (await self.reader.readexactly(int(length[1])) if length else b"")

    async def send(self, data: bytes) -> None:
        if self.writer.is_closing():  # uvloop refuses to write then
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the proxy closes the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def abort(self) -> None:
        self.writer.transport.abort()

    def hang_up(self) -> None:
        """End it at once: what comes from now on meets a closed connection."""
        descriptor = self.writer.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(descriptor)) as own:  # uvloop's has no shutdown
            own.shutdown(socket.SHUT_RDWR)


Play = Callable[[Peer], Awaitable[None]]


async def always_ok(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(OK)


class Scripted:
    """An endpoint that plays a script on every connection."""

    def __init__(self, play: Play, context: ssl.SSLContext | None = None) -> None:
        self._play = play
        self._context = context
        self._server: asyncio.Server | None = None
        self._place: socket.socket | None = None
        """Keeps the port ours while nobody listens: other tests draw theirs all the time."""
        self.peers: list[Peer] = []
        self.problems: list[BaseException] = []
        self._running: set[asyncio.Task[None] | None] = set()
        self.address = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        if host.startswith("unix:"):
            path = host.removeprefix("unix:")
            self._server = await asyncio.start_unix_server(self._connected, path, ssl=self._context)
            self.address = host
            return
        self._place = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind((host, port))
        port = self._place.getsockname()[1]
        self._server = await asyncio.start_server(self._connected, host, port, ssl=self._context)
        self.address = f"{host}:{port}"

    @property
    def connections(self) -> int:
        return len(self.peers)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        if self._server is None:  # it was on its way when we began to refuse
            peer.abort()
            return
        task = asyncio.current_task()
        self._running.add(task)
        try:
            await self._play(peer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the proxy ended it, or the test
        except Exception as problem:  # noqa: BLE001 - the test is told in its teardown
            self.problems.append(problem)
        finally:
            self._running.discard(task)
            writer.close()

    def refuse(self) -> None:
        """From now on nobody listens here, nor ever will, and what was open breaks."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for peer in self.peers:
            peer.abort()

    async def end(self) -> None:
        self.refuse()
        if self._place is not None:
            self._place.close()
        for task in [task for task in self._running if task is not None]:
            task.cancel()
        await until(lambda: not self._running, "the scripts end")
        assert not self.problems, self.problems


class Box:
    """The plane, its counters, its endpoints and its clients; `end` looks for what leaks."""

    def __init__(self, clock: Clock | None = None, resolve: Resolve = system_resolve) -> None:
        self._memory = bytearray(WORDS * 8)
        self.words = memoryview(self._memory).cast("q")
        self.slots = SlotTable()
        self.problems: list[tuple[str, object]] = []
        self.notes: list[str] = []
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(
            lambda _, context: self.problems.append((str(context.get("message")), context))
        )
        self.board = Board(memoryview(bytearray(WORDS * 8)).cast("q"), 1)
        self.plane = Plane(
            self.loop,
            self.words,
            self.board.words,
            worker=0,
            workers=1,
            report=lambda name, error: self.problems.append((name, error)),
            note=lambda _, fault, detail: self.notes.append(f"{fault.error}: {detail}"),
            tell=lambda event, facts: self.notes.append(f"{event}: {facts}"),
            clock=clock,
            resolve=resolve,
        )
        self.revision = 0
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.endpoints: list[Scripted] = []
        self.clients: list[Wire] = []
        self.lives: set[EndpointLive] = set()

    # ---- what a test says ----

    async def endpoint(
        self,
        play: Play = always_ok,
        host: str = "127.0.0.1",
        port: int = 0,
        context: ssl.SSLContext | None = None,
    ) -> Scripted:
        """An endpoint at an address, or at `unix:/path`; `context` has it speak TLS."""
        endpoint = Scripted(play, context)
        await endpoint.start(host, port)
        self.endpoints.append(endpoint)
        return endpoint

    def pool(
        self, name: str, members: Sequence[Scripted | str | Endpoint], weight: int, **more: Any
    ) -> Pool:
        return Pool(
            name=name,
            endpoints=tuple(self.member(name, each) for each in members),
            weight=weight,
            slot=self.slots.slot(("pool", name), stats.POOL_WORDS),
            **more,
        )

    def member(self, pool: str, each: Scripted | str | Endpoint, **more: Any) -> Endpoint:
        if isinstance(each, Endpoint):
            return each
        address = each if isinstance(each, str) else each.address
        words = max(stats.ENDPOINT_WORDS, stats.FIRST_LOT + stats.ENDPOINT_LOTS)
        slot = self.slots.slot(("endpoint", pool, address), words)
        return Endpoint(address=address, slot=slot, **more)

    def shop(self, *pools: Pool, **more: Any) -> Service:
        """The service `shop` with these pools, or with those of the lists given."""
        name = more.pop("name", "shop")
        return Service(
            name=name,
            routes=more.pop("routes", (Route(),)),
            pools=pools,
            active=more.pop("active", pools[0].name),
            slot=self.service_slot(name),
            **more,
        )

    def service_slot(self, name: str = "shop") -> int:
        return self.slots.slot(f"service {name}", stats.SERVICE_WORDS)

    async def serve(self, *members: Scripted | str, **service: Any) -> None:
        """Apply a service `shop` whose pool blue has all and these endpoints."""
        listener = service.pop("listener", {})
        await self.apply(self.shop(self.pool("blue", members, WHOLE), **service), **listener)

    async def apply(
        self, *services: Service, access_log: AccessLog | None = None, **listener: Any
    ) -> None:
        self.revision += 1
        spec = Listener(
            bind=BIND, slot=self.slots.slot("listener", stats.LISTENER_WORDS), **listener
        )
        snapshot = Snapshot(
            revision=self.revision,
            listeners=(spec,),
            services=services,
            access_log=access_log or AccessLog(path="off"),
        )
        await self.plane.apply(snapshot, {BIND: self.socket})
        self.lives.update(self.plane._live.endpoints())

    async def client(self, *, receive: int = 0) -> Wire:
        """A connection to the proxy; `receive` makes its buffer in the kernel small."""
        if not receive:
            wire = await Wire.to(self.port)
        else:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
            sock.setblocking(False)
            await self.loop.sock_connect(sock, ("127.0.0.1", self.port))
            wire = Wire(*await asyncio.open_connection(sock=sock, limit=receive))
        self.clients.append(wire)
        return wire

    def deal(self, slot: int, lot: int, share: int) -> None:
        """Tell the plane its share of what is limited."""
        self.board.deal(slot, lot, [share])

    # ---- what a test sees ----

    def live(self, endpoint: Scripted | str) -> EndpointLive:
        address = endpoint if isinstance(endpoint, str) else endpoint.address
        (found,) = (e for e in self.plane._live.endpoints() if e.address == address)
        return found

    def pool_live(self, name: str = "blue") -> PoolLive:
        found = self.plane.table.services[0].by_name.get(name)
        assert found is not None
        return found

    def of_pool(self, word: int, name: str = "blue") -> int:
        slot = self.slots.slot(("pool", name), stats.POOL_WORDS)
        return int(self.words[slot + word])

    def of_service(self, word: int, name: str = "shop") -> int:
        return int(self.words[self.service_slot(name) + word])

    def grant(self, retries: int) -> None:
        """Let this worker retry until it has done so this often since ever."""
        self.board.deal(self.service_slot("shop"), stats.LOT_RETRIES, [retries])

    def retries(self, outcome: str) -> int:
        return self.of_service(stats.S_RETRY_OUTCOMES + stats.RETRY_OUTCOMES.index(outcome))

    def of_listener(self, word: int) -> int:
        return int(self.words[self.slots.slot("listener", stats.LISTENER_WORDS) + word])

    def of_endpoint(self, endpoint: Scripted, word: int) -> int:
        return int(self.words[self.live(endpoint).slot + word])

    def answers(self, digit: int, name: str = "blue") -> int:
        return self.of_pool(stats.P_ANSWERS + digit, name)

    def failures(self, kind: str, name: str = "blue") -> int:
        return self.of_pool(stats.P_FAILURES + stats.FAILURE_KINDS.index(kind), name)

    def in_flight(self) -> list[int]:
        """Every gauge of exchanges in flight, of pools and endpoints."""
        gauges = []
        for key in self.slots.keys():  # noqa: SIM118 - it is a method, not a mapping
            if not isinstance(key, tuple):
                continue
            slot = self.slots.slot(key, 0)
            if key[0] == "pool":
                base = slot + stats.P_IN_FLIGHT
                gauges += list(self.words[base : base + len(stats.CLASSES)])
            else:
                gauges.append(self.words[slot + stats.E_IN_FLIGHT])
        return gauges

    # ---- the end ----

    async def end(self) -> None:
        """Everything returns to zero once the clients have gone, and nothing is left open."""
        try:
            for wire in self.clients:
                wire.close()
            await until(lambda: not self.plane.connections, "the plane forgets its clients")
            assert not any(e.busy for e in self.lives), "an endpoint is still busy"
            for live in self.plane._live.endpoints():
                live.publish()  # as the next sweep would; those that are gone have done it
            assert not any(self.in_flight()), f"still in flight: {self.in_flight()}"
            assert not any(e.room.queue for e in self.lives), "a request still waits"
            assert not self.of_service(stats.S_EXCHANGES), "an exchange still counts"
            await self.plane.stop(0)
            await until(
                lambda: not any(e.open for e in self.lives), "no connection to an endpoint leaks"
            )
            assert not any(e.idle for e in self.lives), "a closed connection is still kept"
            assert not any(e.room.connecting for e in self.lives), "room is still taken"
            assert not self.problems, self.problems
        finally:
            await self.plane.stop(0)  # again, in case of a failure: uvloop waits for its listeners
            for endpoint in self.endpoints:
                await endpoint.end()
            self.socket.close()
            await asyncio.sleep(0.01)  # transports close a round after they are told to
            self.loop.set_exception_handler(None)
