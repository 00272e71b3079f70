"""Where exchanges, connections and snapshots meet: nothing is lost, executed in vain, forged or kept."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import uvloop

from proxy import stats
from proxy.dataplane.plane import Plane
from proxy.model import WHOLE, AccessLog, Drain, Endpoint, Listener, Pool, Route, Service, Snapshot

HOST = b"Host: a\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Asked = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Scene:
    """One plane with a pool blue (and a pool green) of one endpoint each."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self.heads: list[bytes] = []
        self.problems: list[Any] = []
        self.words = memoryview(bytearray(8 * 4096)).cast("q")
        self.plane: Plane
        self.service: Service
        self._servers: list[asyncio.Server] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._serving = 0
        self._revision = 0

    async def begin(self, **listener: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.problems.append(context))
        self.plane = Plane(
            loop,
            self.words,
            memoryview(bytes(8 * 4096)).cast("q"),
            worker=0,
            workers=1,
            report=lambda *problem: self.problems.append(problem),
        )
        pools = []
        for name, slot, share in (("blue", 500, WHOLE), ("green", 1000, 0)):
            server = await asyncio.start_server(self._serve(name), "127.0.0.1", 0)
            self._servers.append(server)
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            pools.append(
                Pool(
                    name=name,
                    endpoints=(Endpoint(address=address, slot=slot - 20),),
                    weight=share,
                    slot=slot,
                )
            )
        self.service = Service(name="shop", routes=(Route(),), pools=tuple(pools), active="blue")
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self._listener = Listener(bind=f"127.0.0.1:{self.port}", slot=100, **listener)
        await self.apply()

    async def apply(self, **changes: Any) -> None:
        self.service = replace(self.service, **changes)
        self._revision += 1
        snapshot = Snapshot(
            revision=self._revision,
            listeners=(self._listener,),
            services=(self.service,),
            access_log=AccessLog(path="off"),
        )
        await self.plane.apply(snapshot, {self._listener.bind: self.socket})

    async def end(self) -> None:
        self.plane.abort()
        self.socket.close()
        for server in self._servers:
            server.close()
        for writer in self._writers:
            writer.transport.abort()
        await until(lambda: not self._serving)
        await asyncio.sleep(0)

    def _serve(self, pool: str) -> Callable[..., Awaitable[None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.append(writer)
            self._serving += 1
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    self.heads.append(pool.encode() + b" " + head)
                    await self._asked(head, reader, writer)
                    await writer.drain()
            writer.close()
            self._serving -= 1

        return serve

    def targets(self) -> list[bytes]:
        return [head.split(b" ")[2] for head in self.heads]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return reader, writer


@asynccontextmanager
async def scene(asked: Asked, **listener: Any) -> AsyncIterator[Scene]:
    made = Scene(asked)
    await made.begin(**listener)
    try:
        yield made
    finally:
        await made.end()
    assert not made.problems


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what we wait for has no event
            await asyncio.sleep(0.01)


async def everything(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(20):
        return await reader.read()


async def plainly(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length or 0))
    writer.write(OK)


async def test_nothing_is_sent_to_an_endpoint_behind_an_answer_that_ends_the_connection() -> None:
    gate = asyncio.Event()

    async def asked(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await gate.wait()
        await plainly(head, reader, writer)

    async with scene(asked) as stage:
        await stage.apply(max_body=10)
        reader, writer = await stage.connect()
        writer.write(
            b"GET /first HTTP/1.1\r\n" + HOST + b"\r\n"
            b"POST /large HTTP/1.1\r\n" + HOST + b"Content-Length: 30\r\n\r\n" + b"x" * 30 + b""
            b"POST /pay HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n"
        )
        await until(lambda: stage.heads)
        gate.set()
        answers = await everything(reader)
        writer.close()
        assert b" 200 OK" in answers
        assert b" 413 " in answers
        assert stage.targets() == [b"/first"]


async def test_a_request_that_had_begun_to_arrive_is_answered_before_the_worker_stops() -> None:
    async with scene(plainly) as stage:
        reader, writer = await stage.connect()
        writer.write(b"GET /late HTTP/1.1\r\n")
        await until(lambda: any(not c.parser.is_between for c in stage.plane.connections))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        stopping = loop.create_task(stage.plane.stop(5.0))
        await asyncio.sleep(0.02)
        writer.write(HOST + b"\r\n")
        answer = await everything(reader)
        await stopping
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"Connection: close" in answer
        assert loop.time() - begun < 4.5


async def test_bytes_sent_before_the_switch_of_protocols_reach_the_tunnel() -> None:
    gate = asyncio.Event()

    async def asked(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n")
        writer.write(b"heard " + await reader.readexactly(26))

    async with scene(asked) as stage:
        reader, writer = await stage.connect()
        writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: upgrade\r\nUpgrade: foo\r\n\r\n")
        await until(lambda: stage.heads)
        writer.write(b"GET /no HTTP/1.1\r\n" + HOST[:6] + b"\r\n")
        await asyncio.sleep(0.05)
        gate.set()
        async with asyncio.timeout(20):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(32) == b"heard GET /no HTTP/1.1\r\nHost: \r\n"
        writer.close()


async def test_a_tunnel_that_is_over_leaves_nothing_behind() -> None:
    async def asked(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n")

    async with scene(asked) as stage:
        pool = stage.plane.table.services[0].by_name["blue"]
        (endpoint,) = pool.endpoints.values()
        for _ in range(3):
            reader, writer = await stage.connect()
            writer.write(
                b"GET / HTTP/1.1\r\n" + HOST + b"Connection: upgrade\r\nUpgrade: foo\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            writer.close()
        await until(lambda: not stage.plane.connections and not endpoint.open)
        assert endpoint.busy == 0
        assert stage.words[500 + stats.P_IN_FLIGHT + stats.TUNNEL] == 0


async def test_a_broken_answer_to_http_1_0_does_not_look_whole() -> None:
    async def asked(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async with scene(asked) as stage:
        reader, writer = await stage.connect()
        writer.write(b"GET / HTTP/1.0\r\n" + HOST + b"\r\n")
        with suppress(ConnectionResetError):
            answer = await everything(reader)
            raise AssertionError(f"it ended as if whole: {answer!r}")
        writer.close()


async def test_an_empty_chunked_body_is_whole_or_not_sent_again() -> None:
    counts: dict[int, int] = {}

    async def asked(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counts[id(writer)] = counts.get(id(writer), 0) + 1
        await reader.readuntil(b"0\r\n\r\n")
        if counts[id(writer)] > 1:
            writer.transport.abort()
        else:
            writer.write(OK)

    put = b"PUT / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    async with scene(asked) as stage:
        reader, writer = await stage.connect()
        for expected in (b"HTTP/1.1 200", b"HTTP/1.1 502"):
            writer.write(put)
            async with asyncio.timeout(20):
                assert (await reader.read(12)) == expected
                await reader.read(65_536)
        writer.close()


async def test_a_pool_that_drains_while_it_has_weight_gets_nothing_new() -> None:
    async with scene(plainly) as stage:
        blue, green = stage.service.pools
        now = asyncio.get_running_loop().time()
        drain = Drain(since_s=now, requests_by_s=now + 30, streams_by_s=now + 30)
        half = WHOLE // 2
        await stage.apply(
            pools=(replace(blue, weight=half), replace(green, weight=half, drain=drain))
        )
        reader, writer = await stage.connect()
        for _ in range(20):
            writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
            await reader.readuntil(b"ok")
        writer.close()
        assert {head[:5] for head in stage.heads} == {b"blue "}


async def _reset_and_see() -> None:
    async with scene(plainly, trusted_proxies=("10.9.9.9/32",)) as stage:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", stage.port)) as gone:
                gone.sendall(
                    b"GET / HTTP/1.1\r\n" + HOST + b"X-Forwarded-For: 6.6.6.6\r\n"
                    b"X-Request-ID: forged\r\n\r\n"
                )
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: stage.words[100 + stats.L_ACCEPTED] == 20)
        await until(lambda: not stage.plane.connections)
        assert not [head for head in stage.heads if b"6.6.6.6" in head or b"forged" in head]


def test_a_client_that_is_gone_before_it_was_accepted_is_not_trusted() -> None:
    # uvloop asks for the peer's name late; the standard library has it from accept().
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_reset_and_see())


async def test_an_access_log_that_cannot_be_opened_stops_nothing() -> None:
    async with scene(plainly) as stage:
        snapshot = Snapshot(
            revision=99,
            listeners=(Listener(bind=f"127.0.0.1:{stage.port}", slot=100),),
            services=(stage.service,),
            access_log=AccessLog(path="/no/such/folder/access.log"),
        )
        await stage.plane.apply(snapshot, {})
        (problem,) = stage.problems
        assert problem[0] == "access log"
        stage.problems.clear()
        reader, writer = await stage.connect()
        writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readuntil(b"ok")
        writer.close()
