"""A whole data plane between a client and endpoints of memory: real connections, no sockets.

Everything from the client's protocol to the endpoint's is what runs in a worker; only the loop's
way of opening connections gives transports that keep what is written to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from proxy import stats
from proxy.dataplane.downstream import Downstream
from proxy.dataplane.listener import ListenerLive
from proxy.dataplane.plane import Plane
from proxy.model import WHOLE, AccessLog, Endpoint, Listener, Pool, Route, Service, Snapshot
from proxy.stats import Board, SlotTable

CLIENT = "192.0.2.7"
_WORDS = 2000
_ROUNDS = 200
"""Turns of the loop until an exchange in memory must have come to rest."""


class Pipe(asyncio.Transport):
    """A transport whose other side is the test: what was written is `sent`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: Any, peer: str) -> None:
        super().__init__({"peername": (peer, 4321), "sockname": ("192.0.2.1", 80)})
        self._loop = loop
        self._protocol = protocol
        self._coming: list[bytes] = []
        self._is_closing = False
        self._is_paused = False
        self.sent = bytearray()
        self.is_ended = False
        """Closed, or closed for sending: whatever was sent is all there is."""
        self.is_cut = False
        """Aborted: whoever reads it must not take it for whole."""
        protocol.connection_made(self)

    # ---- what the proxy does ----

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._is_closing:
            raise RuntimeError("written to after it was closed")
        assert not self.is_ended, f"{bytes(data)!r} is written behind the end"
        self.sent += data

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = self.is_ended = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        if not self._is_closing:
            self.is_cut = True
        self.close()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_ended = True

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return] # whoever was set

    # ---- what the other side does ----

    def give(self, data: bytes) -> None:
        """Send to the proxy; an empty piece is the end."""
        self._coming.append(data)

    def take_back(self) -> None:
        """Send nothing more of what was not read yet."""
        self._coming.clear()

    def deliver(self) -> bool:
        """Have the proxy read the next piece; False when there is none, or it does not read."""
        if self._is_closing or self._is_paused or not self._coming:
            return False
        data = self._coming.pop(0)
        if data:
            self._protocol.data_received(data)
        elif not self._protocol.eof_received():
            self.close()
        return True


class Loop(asyncio.SelectorEventLoop):
    """Opens pipes instead of connections to endpoints, and has somebody answer them."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[Pipe] = []

    async def create_connection(
        self, protocol_factory: Callable[[], Any], *_: Any, **__: Any
    ) -> tuple[Pipe, Any]:
        protocol = protocol_factory()
        pipe = Pipe(self, protocol, "192.0.2.99")
        self.opened.append(pipe)
        return pipe, protocol


Answer = Callable[[int, Pipe], None]
"""Looks at what the n-th connection to the endpoint has got, and gives it answers."""


class Door:
    """One plane for all runs; each one has a client's connection of its own."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.problems: list[BaseException] = []
        words = memoryview(bytearray(_WORDS * 8)).cast("q")
        board = Board(memoryview(bytearray(_WORDS * 8)).cast("q"), 1)
        self.plane = Plane(
            self.loop,
            words,
            board.words,
            worker=0,
            workers=1,
            report=lambda _, error: self.problems.append(error),
        )
        slot = SlotTable().slot
        slots = slot("listener", stats.LISTENER_WORDS), slot("service", stats.SERVICE_WORDS)
        spec = Listener(bind="127.0.0.1:1", slot=slots[0], max_header=4096, max_headers=50)
        endpoint = Endpoint(address="127.0.0.1:2", slot=slot("endpoint", stats.ENDPOINT_WORDS))
        pool = Pool(
            name="blue",
            endpoints=(endpoint,),
            weight=WHOLE,
            slot=slot("pool", stats.POOL_WORDS),
        )
        service = Service(
            name="shop", routes=(Route(),), pools=(pool,), active="blue", slot=slots[1]
        )
        snapshot = Snapshot(
            revision=1,
            listeners=(spec,),
            services=(service,),
            access_log=AccessLog(path="off"),
        )
        self.loop.run_until_complete(self.plane.apply(snapshot, {}))
        self.listener = ListenerLive(self.plane, spec, words)
        self.endpoint = next(iter(self.plane.table.services[0].pools[0].endpoints.values()))

    def pass_through(self, pieces: list[bytes], answer: Answer) -> tuple[Pipe, list[Pipe]]:
        """Have a client send these pieces: what it and the endpoint got, in the end."""
        return self.loop.run_until_complete(self._passed(pieces, answer))

    async def _passed(self, pieces: list[bytes], answer: Answer) -> tuple[Pipe, list[Pipe]]:
        self.problems.clear()
        self.plane.clock.tick()
        self.endpoint.unreachable_until = 0.0
        opened = self.loop.opened = []
        client = Pipe(self.loop, Downstream(self.plane, self.listener), CLIENT)
        for piece in pieces:
            client.give(piece)
        for _ in range(_ROUNDS + len(pieces)):
            await asyncio.sleep(0)
            for number, pipe in enumerate(opened):
                answer(number, pipe)
            moved = [pipe.deliver() for pipe in (client, *opened)]
            if not any(moved) and await self._is_at_rest():
                break
        else:
            raise AssertionError("it does not come to rest")
        self._end(client, opened)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not self.problems, self.problems
        assert not self.plane.connections, "a connection is not forgotten"
        assert not self.endpoint.open, "a connection to the endpoint leaks"
        assert not self.endpoint.busy, "the endpoint counts an exchange that is over"
        return client, opened

    async def _is_at_rest(self) -> bool:
        """Nothing is on its way inside either: opening a connection takes a few turns."""
        before = len(self.loop.opened)
        for _ in range(4):
            await asyncio.sleep(0)
        return len(self.loop.opened) == before and not self.loop._ready  # type: ignore[attr-defined]

    @staticmethod
    def _end(client: Pipe, opened: list[Pipe]) -> None:
        was_cut = [pipe.is_cut for pipe in (client, *opened)]
        is_ended = client.is_ended
        client.abort()
        for pipe in opened:
            pipe.abort()
        for pipe, cut in zip((client, *opened), was_cut, strict=True):
            pipe.is_cut = cut
        client.is_ended = is_ended
