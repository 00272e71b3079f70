"""The gentle end, seen by libraries of others: WebSockets on both sides, event streams by aiohttp."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close

from tests.e2e.stage import Stage, Turnout, wait_until

CLIENTS = 100
DRAIN = {"requests": "1s", "streams": "1s", "spread": "3s"}


class Chat:
    """A WebSocket service: silent, talking in whole messages, or in fragments."""

    def __init__(self) -> None:
        self.closes: list[tuple[Close | None, Close | None]] = []
        """What each handler was told in the end, and what it answered."""
        self.surprises: list[BaseException] = []
        self.all_are_here = asyncio.Event()
        """Nobody talks before: a hundred who do leave little time for a handshake."""

    async def handle(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        path = socket.request.path
        try:
            if path == "/silent":
                await socket.wait_closed()
                raise_closed = await _closed(socket)
            else:
                await self.all_are_here.wait()
                raise_closed = await _talk(socket, in_fragments=path == "/fragments")
            self.closes.append((raise_closed.rcvd, raise_closed.sent))
        except Exception as surprise:  # noqa: BLE001 - the test is told
            self.surprises.append(surprise)


async def _closed(socket: ServerConnection) -> ConnectionClosed:
    with pytest.raises(ConnectionClosed) as caught:
        await socket.recv()
    return caught.value


async def _talk(socket: ServerConnection, *, in_fragments: bool) -> ConnectionClosed:
    """Send large messages, each with its digest, until the connection is closed."""
    try:
        while True:
            body = random.randbytes(random.randrange(4_000, 20_000))
            message = hashlib.sha256(body).digest() + body
            await socket.send(_pieces(message) if in_fragments else message)
            await asyncio.sleep(random.uniform(0.2, 0.6))
    except ConnectionClosed as closed:
        return closed


async def _pieces(message: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(message), 3_000):
        yield message[start : start + 3_000]
        await asyncio.sleep(0.01)


async def _listen(socket: ClientConnection) -> tuple[ConnectionClosed, float, int]:
    """Read whole messages until the end; how it ended, when, and how many came before."""
    count = 0
    try:
        while True:
            message = await socket.recv()
            assert isinstance(message, bytes)
            assert hashlib.sha256(message[32:]).digest() == message[:32]
            count += 1
    except ConnectionClosed as closed:
        return closed, time.monotonic(), count


def _port(server: Server) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_a_hundred_websockets_all_see_a_close_and_none_a_cut_frame(
    stage: Stage, compression: str | None
) -> None:
    chat = Chat()
    async with serve(chat.handle, "127.0.0.1", 0, compression=compression) as server:
        turnout = await asyncio.to_thread(
            stage.turnout, [f"127.0.0.1:{_port(server)}"], stage.origin("green"), drain=DRAIN
        )
        paths = ["/silent", "/messages", "/silent", "/fragments"] * (CLIENTS // 4)
        sockets = [
            await connect(
                f"ws://127.0.0.1:{turnout.port}{path}",
                proxy=None,
                compression=compression,
                open_timeout=60,
            )
            for path in paths
        ]
        listening = [asyncio.get_running_loop().create_task(_listen(each)) for each in sockets]
        await _in_flight(turnout, "tunnel", CLIENTS)
        chat.all_are_here.set()
        await asyncio.to_thread(turnout.switch, "green")
        switched_s = time.monotonic()
        results = await asyncio.gather(*listening)
        async with asyncio.timeout(30):
            while len(chat.closes) + len(chat.surprises) < CLIENTS:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)
    assert chat.surprises == []
    assert {closed.rcvd.code if closed.rcvd else None for closed, _, _ in results} == {1012}
    assert all(closed.rcvd_then_sent for closed, _, _ in results)
    assert {rcvd.code if rcvd else None for rcvd, _ in chat.closes} == {1012}
    assert {sent.code if sent else None for _, sent in chat.closes} == {1012}
    moments = sorted(ended_s for _, ended_s, _ in results)
    assert moments[0] > switched_s + 0.5
    assert moments[-1] < switched_s + 1 + 3 + 6, "within the spread, and a handshake more"
    assert moments[-1] - moments[0] > 0.7, "spread"
    assert all(
        count for (_, _, count), path in zip(results, paths, strict=True) if path != "/silent"
    )
    await _in_flight(turnout, "tunnel", 0)
    assert turnout.service()["counts"]["blue"]["cut"]["tunnel"] == 0
    closed = turnout.metric("turnout_drain_closed_total", pool="blue", **{"class": "tunnel"})
    assert closed == CLIENTS


async def test_a_proxy_that_stops_says_close_to_its_websockets_in_good_time(stage: Stage) -> None:
    chat = Chat()
    async with serve(chat.handle, "127.0.0.1", 0) as server:
        turnout = await asyncio.to_thread(
            stage.turnout,
            [f"127.0.0.1:{_port(server)}"],
            stage.origin("green"),
            top={"shutdown_timeout": "4s"},
        )
        url = f"ws://127.0.0.1:{turnout.port}"
        sockets = [
            await connect(url + path, proxy=None) for path in ("/silent", "/messages", "/fragments")
        ]
        listening = [asyncio.get_running_loop().create_task(_listen(each)) for each in sockets]
        await _in_flight(turnout, "tunnel", 3)
        chat.all_are_here.set()
        began_s = time.monotonic()
        assert await asyncio.to_thread(turnout.stop) == 0
        assert 1.9 < time.monotonic() - began_s < 12
        results = await asyncio.gather(*listening)
    assert [closed.rcvd.code if closed.rcvd else None for closed, _, _ in results] == [1012] * 3
    assert chat.surprises == []


async def _in_flight(turnout: Turnout, kind: str, count: int) -> None:
    await asyncio.to_thread(
        wait_until,
        lambda: turnout.metric("turnout_in_flight", pool="blue", **{"class": kind}) == count,
        f"{count} of class {kind} are in flight",
    )


async def _events(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    number = 0
    while True:
        event = f"id: {number}\ndata: {'x' * random.randrange(5000)}\n\n".encode()
        half = random.randrange(len(event))
        await answer.write(event[:half])
        await asyncio.sleep(random.random() * 0.1)
        await answer.write(event[half:])
        number += 1


async def test_event_streams_end_with_a_whole_event_and_different_pauses(stage: Stage) -> None:
    app = web.Application()
    app.router.add_get("/events", _events)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        turnout = await asyncio.to_thread(
            stage.turnout, [address], stage.origin("green"), drain=DRAIN
        )
        async with ClientSession() as session:

            async def follow() -> str:
                url = f"http://127.0.0.1:{turnout.port}/events"
                async with session.get(url) as answer:
                    return await answer.text()

            streams = [asyncio.get_running_loop().create_task(follow()) for _ in range(20)]
            await _in_flight(turnout, "stream", 20)
            await asyncio.to_thread(turnout.switch, "green")
            texts = await asyncio.gather(*streams)
    finally:
        await runner.cleanup()
    pauses = set()
    for text in texts:
        *events, retry, rest = text.split("\n\n")
        assert rest == ""
        assert all(
            re.fullmatch(rf"id: {number}\ndata: x*", event) for number, event in enumerate(events)
        )
        assert events
        match = re.fullmatch(r"retry: (\d+)", retry)
        assert match is not None
        pauses.add(int(match[1]))
    assert len(pauses) > 15
    assert min(pauses) >= 500
    assert max(pauses) <= 4000
    assert turnout.service()["counts"]["blue"]["cut"]["stream"] == 0
