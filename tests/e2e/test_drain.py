"""A drain: nothing new, what is in flight finishes until its deadline, and then it is cut."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.e2e.load import Load
from tests.e2e.stage import Stage, Turnout, wait_until
from tests.e2e.wire import Answer, Wire, WireError

EMPTY = {"request": 0, "stream": 0, "tunnel": 0}


class Exchange:
    """One request in flight, and what became of it."""

    def __init__(self, turnout: Turnout, path: str) -> None:
        self.answer: Answer | None = None
        self.error: str | None = None
        self.ended_s = 0.0
        self.bytes = b""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(turnout.port, path))

    async def _run(self, port: int, path: str) -> None:
        try:
            async with await Wire.to(port) as wire:
                self.answer = await wire.request(path)
        except WireError as error:
            self.error = str(error)
        self.ended_s = time.monotonic()

    async def end(self) -> None:
        await self._task

    @property
    def is_whole(self) -> bool:
        return self.answer is not None and self.answer.status == 200


def _start(turnout: Turnout, path: str, count: int) -> list[Exchange]:
    return [Exchange(turnout, path) for _ in range(count)]


async def _in_flight(turnout: Turnout, kind: str, count: int) -> None:
    await asyncio.to_thread(
        wait_until,
        lambda: turnout.metric("turnout_in_flight", pool="blue", **{"class": kind}) == count,
        f"{count} of class {kind} are in flight",
    )


def _drain(turnout: Turnout, wait: str) -> Any:
    body = turnout.get(f"/v1/services/shop/drain?wait={wait}")
    # The drain object, or null when there is none.
    return body.get("drain", body) if body is not None else None


async def test_sixty_requests_and_ten_streams_run_to_their_end_through_a_switch(
    stage: Stage,
) -> None:
    blue = stage.origin("blue", "v41", 2)
    turnout = stage.turnout(
        blue,
        stage.origin("green", "v42", 2),
        drain={"requests": "20s", "streams": "20s", "spread": "1s"},
    )
    slow = _start(turnout, "/slow?s=6", 60)
    streams = _start(turnout, "/stream?s=7", 10)
    await _in_flight(turnout, "request", 60)
    await _in_flight(turnout, "stream", 10)
    async with Load(turnout.port, clients=4) as load:
        began_s = time.monotonic()
        await asyncio.to_thread(turnout.switch, "green")
        assert time.monotonic() - began_s < 5, "the switch waited for what is in flight"
        view = turnout.service()["drain"]
        assert view["pool"] == "blue"
        left = view["remaining"]
        assert 60 <= left["request"] <= 64, "the slow ones, and what the load had just asked for"
        assert (left["stream"], left["tunnel"]) == (10, 0)
        assert 15 < view["deadline_s"] <= 20
        early = await asyncio.to_thread(_drain, turnout, "100ms")
        assert sum(early["remaining"].values()) > 0
        kinds = {(item["class"], item["endpoint"]) for item in early["items"]}
        assert {kind for kind, _ in kinds} <= {"request", "stream"}
        assert {endpoint for _, endpoint in kinds} <= set(blue.addresses)
        assert turnout.metric("turnout_drain_remaining", pool="blue") > 0
        last = await asyncio.to_thread(_drain, turnout, "25s")
        emptied_s = time.monotonic()
        assert last is None or last["remaining"] == EMPTY
        await load.more(20)
    for exchange in slow + streams:
        await exchange.end()
    assert [one.error for one in slow + streams if not one.is_whole] == []
    assert emptied_s - max(one.ended_s for one in slow + streams) < 3, "told late"
    assert load.failures == []
    assert sum(one["finished"] for one in blue.stats()) >= 70
    assert turnout.metric("turnout_in_flight", pool="blue") == 0


async def test_at_their_deadlines_requests_are_cut_and_streams_end_and_not_before(
    stage: Stage,
) -> None:
    turnout = stage.turnout(
        stage.origin("blue"),
        stage.origin("green"),
        drain={"requests": "1s", "streams": "6s", "spread": "0s"},
    )
    slow = _start(turnout, "/slow?s=18", 10)
    streams = _start(turnout, "/stream?s=18", 10)
    short = _start(turnout, "/stream?s=4", 5)
    await _in_flight(turnout, "request", 10)
    await _in_flight(turnout, "stream", 15)
    began_s = time.monotonic()
    await asyncio.to_thread(turnout.switch, "green")
    answered_s = time.monotonic()
    await asyncio.to_thread(_drain, turnout, "20s")
    empty_s = time.monotonic()
    for exchange in slow + streams + short:
        await exchange.end()
    for exchange in slow:
        assert exchange.answer is None or exchange.answer.status >= 500
        assert began_s + 0.95 <= exchange.ended_s <= answered_s + 5
    for exchange in streams:
        assert exchange.answer is not None, exchange.error
        *events, retry, rest = exchange.answer.body.decode().split("\n\n")
        assert [json.loads(event.removeprefix("data: "))["n"] for event in events] == [
            *range(len(events))
        ]
        assert re.fullmatch(r"retry: \d+", retry)
        assert rest == ""
        assert began_s + 5.95 <= exchange.ended_s <= answered_s + 10
    assert all(exchange.is_whole for exchange in short)
    assert empty_s <= answered_s + 11
    cut = turnout.service()["counts"]["blue"]["cut"]
    assert cut == {"request": 10, "stream": 0, "tunnel": 0}
    closed = turnout.metric("turnout_drain_closed_total", pool="blue", **{"class": "stream"})
    assert closed == 10
    assert turnout.metric("turnout_in_flight", pool="blue") == 0


async def _listen(socket: ClientConnection) -> tuple[int | None, float, int]:
    """Read until the end; the close code, when it came, and how many whole messages before."""
    messages = 0
    try:
        while True:
            await socket.recv()
            messages += 1
    except ConnectionClosed as closed:
        return (closed.rcvd.code if closed.rcvd else None), time.monotonic(), messages


async def test_a_websocket_runs_on_until_its_deadline_and_is_told_to_close_then(
    stage: Stage,
) -> None:
    turnout = stage.turnout(
        stage.origin("blue"),
        stage.origin("green"),
        drain={"requests": "1s", "streams": "2s", "spread": "1s"},
    )
    url = f"ws://127.0.0.1:{turnout.port}/ws?push=0.02"
    sockets = [await connect(url, proxy=None) for _ in range(10)]
    listeners = [asyncio.get_running_loop().create_task(_listen(socket)) for socket in sockets]
    await _in_flight(turnout, "tunnel", 10)
    began_s = time.monotonic()
    await asyncio.to_thread(turnout.switch, "green")
    answered_s = time.monotonic()
    view = turnout.service()["drain"]
    assert view["remaining"]["tunnel"] == 10
    results = await asyncio.gather(*listeners)
    for code, ended_s, messages in results:
        assert code == 1012
        assert began_s + 1.95 <= ended_s <= answered_s + 9
        assert messages > 20
    last = await asyncio.to_thread(_drain, turnout, "10s")
    assert last is None or last["remaining"] == EMPTY
    assert turnout.service()["counts"]["blue"]["cut"]["tunnel"] == 0


async def test_one_endpoint_is_drained_by_command_and_comes_back(stage: Stage) -> None:
    blue = stage.origin("blue", "v41", 2)
    turnout = stage.turnout(blue, stage.origin("green"))
    async with Load(turnout.port) as load:
        await load.more(50)
        body = {"pool": "blue", "endpoint": blue.addresses[0]}
        reply = await asyncio.to_thread(turnout.ask, "POST", "/v1/services/shop/drain", body)
        assert reply.status == 202
        before = blue.stats()[0]["requests"]
        await load.more(100)
        assert blue.stats()[0]["requests"] == before + 1, "one more is the question itself"
        endpoints = turnout.service()["pools"]["blue"]["endpoints"]
        assert [one["draining"] for one in endpoints] == [True, False]
        await asyncio.to_thread(
            turnout.change, "POST", "/v1/services/shop/drain", {**body, "undo": True}
        )
        before = blue.stats()[0]["requests"]
        await load.more(100)
        assert blue.stats()[0]["requests"] > before + 10
    assert load.failures == []


def test_there_is_no_drain_when_nothing_drains(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"))
    assert turnout.service()["drain"] is None
    assert _drain(turnout, "5s") is None


async def test_keep_alive_connections_outlive_a_drain(stage: Stage) -> None:
    turnout = stage.turnout(
        stage.origin("blue"),
        stage.origin("green"),
        drain={"requests": "500ms", "streams": "500ms", "spread": "0s"},
    )
    async with await Wire.to(turnout.port) as wire:
        assert (await wire.request("/who")).pool == "blue"
        turnout.switch("green")
        assert await wire.stays_open(1.5)
        # Reading a byte that never came was given up; the connection is as it was.
        assert (await wire.request("/who")).pool == "green"


@pytest.mark.parametrize("path", ["/slow?s=5", "/stream?s=5"])
async def test_a_switch_back_ends_the_drain_and_cuts_nothing(stage: Stage, path: str) -> None:
    turnout = stage.turnout(
        stage.origin("blue"),
        stage.origin("green"),
        drain={"requests": "3s", "streams": "3s", "spread": "0s"},
    )
    exchanges = _start(turnout, path, 5)
    await _in_flight(turnout, "stream" if "stream" in path else "request", 5)
    turnout.switch("green")
    turnout.switch("blue")
    for exchange in exchanges:
        await exchange.end()
    assert all(exchange.is_whole for exchange in exchanges)
