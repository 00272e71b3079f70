"""Each fault is what it says, seen at a raw socket."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import closing

import pytest

from tests.chaos.fault_proxy import PASS, Fault, FaultProxy
from tests.ports import free_port

REQUEST, ANSWER = b"question", b"the whole answer"
TIMEOUT_S = 10.0
QUIET_S = 0.2
"""Long enough for loopback: what has not come by then was not sent."""


async def _application(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request; hang up when the client does."""
    try:
        while await reader.readexactly(len(REQUEST)):
            writer.write(ANSWER)
    except (asyncio.IncompleteReadError, OSError):
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    server = await asyncio.start_server(_application, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    proxy = FaultProxy((host, port))
    await proxy.listen()
    yield proxy
    await proxy.close()
    server.close()


class Client:
    """A raw socket; every wait has an end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.setblocking(False)

    @classmethod
    async def of(cls, proxy: FaultProxy) -> Client:
        client = cls(socket.socket())
        async with asyncio.timeout(TIMEOUT_S):
            loop = asyncio.get_running_loop()
            try:
                await loop.sock_connect(client._connection, proxy.address)
            except OSError:
                client.close()
                raise
        return client

    async def send(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self._connection, REQUEST)

    async def read(self, timeout_s: float = TIMEOUT_S) -> bytes:
        async with asyncio.timeout(timeout_s):
            return await asyncio.get_running_loop().sock_recv(self._connection, 65536)

    async def read_whole(self) -> bytes:
        got = b""
        while len(got) < len(ANSWER) and (piece := await self.read()):
            got += piece
        return got

    async def is_silent(self) -> bool:
        try:
            await self.read(QUIET_S)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self._connection.close()


async def test_pass_carries_request_and_answer_and_the_end(proxy: FaultProxy) -> None:
    with closing(await Client.of(proxy)) as client:
        for _ in range(3):
            await client.send()
            assert await client.read_whole() == ANSWER
        assert await client.is_silent()


async def test_delay_brings_the_answer_late(proxy: FaultProxy) -> None:
    await proxy.turn_to(Fault("delay", seconds=0.3))
    with closing(await Client.of(proxy)) as client:
        began_s = time.monotonic()
        await client.send()
        assert await client.read_whole() == ANSWER
        assert time.monotonic() - began_s >= 0.3


async def test_drip_brings_it_in_drops(proxy: FaultProxy) -> None:
    await proxy.turn_to(Fault("drip", seconds=0.03, size=4))
    with closing(await Client.of(proxy)) as client:
        await client.send()
        assert [await client.read() for _ in range(4)] == [b"the ", b"whol", b"e an", b"swer"]


async def test_the_rest_of_a_drip_comes_at_once_when_it_is_over(proxy: FaultProxy) -> None:
    await proxy.turn_to(Fault("drip", seconds=0.5, size=1))
    with closing(await Client.of(proxy)) as client:
        await client.send()
        assert await client.read() == b"t"
        await proxy.turn_to(PASS)
        assert await client.read() == b"he whole answer"


async def test_cut_is_half_an_answer_and_fin(proxy: FaultProxy) -> None:
    await proxy.turn_to(Fault("cut"))
    with closing(await Client.of(proxy)) as client:
        await client.send()
        assert await client.read() == b"the whol"
        assert await client.read() == b""


async def test_half_close_is_fin_without_an_answer_on_a_connection_that_still_takes_bytes(
    proxy: FaultProxy,
) -> None:
    await proxy.turn_to(Fault("half_close"))
    with closing(await Client.of(proxy)) as client:
        await client.send()
        assert await client.read() == b""
        for _ in range(3):  # a closed socket would answer the first by RST, and refuse the next
            await client.send()
            await asyncio.sleep(0.02)


async def test_reset_at_connect_is_rst_before_a_byte(proxy: FaultProxy) -> None:
    await proxy.turn_to(Fault("reset_at_connect"))
    client = await Client.of(proxy)
    with closing(client), pytest.raises(ConnectionResetError):
        await client.read()


async def test_reset_before_is_rst_for_the_request(proxy: FaultProxy) -> None:
    await proxy.turn_to(Fault("reset_before"))
    with closing(await Client.of(proxy)) as client:
        assert await client.is_silent()
        await client.send()
        with pytest.raises(ConnectionResetError):
            await client.read()


async def test_reset_within_is_half_an_answer_and_rst(proxy: FaultProxy) -> None:
    await proxy.turn_to(Fault("reset_within"))
    with closing(await Client.of(proxy)) as client:
        await client.send()
        assert await client.read() == b"the whol"
        with pytest.raises(ConnectionResetError):
            await client.read()


async def test_refuse_refuses_connections_resets_open_ones_and_can_be_taken_back(
    proxy: FaultProxy,
) -> None:
    with closing(await Client.of(proxy)) as client:
        await client.send()
        await client.read_whole()
        await proxy.turn_to(Fault("refuse"))
        with pytest.raises(ConnectionRefusedError):
            await Client.of(proxy)
        await client.send()
        with pytest.raises(ConnectionResetError):
            await client.read()
    await proxy.turn_to(PASS)
    with closing(await Client.of(proxy)) as client:
        await client.send()
        assert await client.read_whole() == ANSWER


async def test_black_hole_accepts_and_says_nothing(proxy: FaultProxy) -> None:
    await proxy.turn_to(Fault("black_hole"))
    with closing(await Client.of(proxy)) as client:
        await client.send()
        assert await client.is_silent()


async def test_a_fault_meets_connections_that_are_open_already(proxy: FaultProxy) -> None:
    with closing(await Client.of(proxy)) as client:
        await client.send()
        assert await client.read_whole() == ANSWER
        await proxy.turn_to(Fault("cut"))
        await client.send()
        assert await client.read() == b"the whol"


async def test_a_target_that_is_gone_is_a_reset() -> None:
    proxy = FaultProxy(("127.0.0.1", free_port()))
    await proxy.listen()
    client = await Client.of(proxy)
    with closing(client), pytest.raises(ConnectionResetError):
        await client.read()
    await proxy.close()
