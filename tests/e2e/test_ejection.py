"""Endpoints that fail are left out by all workers, come back, and never leave a pool empty."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import pytest

from tests.e2e.stage import Stage, Turnout
from tests.e2e.wire import Wire
from tests.ports import free_port

RULES = {"consecutive_failures": 5, "base_time": "4s", "max_time": "7s"}


class Fickle:
    """An endpoint in the test's own loop, whose answers the test chooses."""

    def __init__(self) -> None:
        self.mode = "ok"
        """`ok`, `500`, or `reset`."""
        self.requests = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = ""

    async def start(self) -> None:
        port = free_port()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.address = f"127.0.0.1:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                if self.mode == "reset":
                    writer.transport.abort()
                    return
                status = b"200 OK" if self.mode == "ok" else b"500 Not Well"
                writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass  # the proxy has closed the connection, which is its right
        finally:
            self._writers.discard(writer)
            writer.close()

    async def end(self) -> None:
        """Nobody listens here any more, and what is open is closed."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Fickle, Fickle]]:
    made = Fickle(), Fickle()
    for each in made:
        await each.start()
    yield made
    for each in made:
        await each.end()


async def start(stage: Stage, *endpoints: Fickle, **service: Any) -> Turnout:
    addresses = [each.address for each in endpoints]
    return await asyncio.to_thread(
        lambda: stage.turnout(addresses, [], **{"ejection": RULES, **service})
    )


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> float:
    """Wait for a condition that may ask the admin API; the seconds it took."""
    began = time.monotonic()
    while not await asyncio.to_thread(condition):
        assert time.monotonic() - began < timeout_s, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.03)
    return time.monotonic() - began


def endpoint(turnout: Turnout, fickle: Fickle) -> Any:
    listed = turnout.service()["pools"]["blue"]["endpoints"]
    return next(each for each in listed if each["address"] == fickle.address)


class Clients:
    """Requests over many connections, so over all workers, until the block ends."""

    def __init__(self, turnout: Turnout, method: str = "POST") -> None:
        self._port = turnout.port
        self._method = method
        self._tasks: list[asyncio.Task[None]] = []
        self.statuses: list[int] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._client()) for _ in range(8)]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _client(self) -> None:
        while True:
            async with await Wire.to(self._port) as wire:
                for _ in range(20):
                    answer = await wire.request("/", method=self._method)
                    self.statuses.append(answer.status)
                    await asyncio.sleep(0.01)
                    if answer.closes:
                        break

    async def until_left_alone(self, endpoint: Fickle) -> int:
        """Wait until no worker sends anything there any more; what it has seen until then."""
        before = -1
        while before != endpoint.requests:
            before = endpoint.requests
            await self.more(50)
        return before

    async def more(self, count: int) -> list[int]:
        """Wait for so many more answers; their statuses."""
        seen = len(self.statuses)
        await until(lambda: len(self.statuses) >= seen + count, f"{count} more answers")
        return self.statuses[seen:]


@pytest.mark.parametrize("mode", ["500", "reset"])
async def test_one_of_two_that_always_fails_is_ejected_again_and_again_for_longer(
    stage: Stage, pair: tuple[Fickle, Fickle], mode: str
) -> None:
    well, ill = pair
    turnout = await start(stage, well, ill)
    async with Clients(turnout) as clients:
        await clients.more(50)
        ill.mode = mode
        await until(lambda: endpoint(turnout, ill)["ejected"], "it is ejected")
        shown = endpoint(turnout, ill)
        assert not shown["available"]
        assert shown["ejected_why"]
        assert shown["ejected_until"] is not None
        before = await clients.until_left_alone(ill)
        assert set(await clients.more(100)) == {200}
        assert ill.requests == before, "no worker sends anything there"
        first = await until(
            lambda: turnout.metric("turnout_ejections_total", pool="blue") >= 2, "again"
        )
        second = await until(
            lambda: turnout.metric("turnout_ejections_total", pool="blue") >= 3, "a third time"
        )
        assert second > first, "for longer: seven seconds, not four"
        assert not endpoint(turnout, well)["ejected"]
        ill.mode = "ok"
        await until(lambda: endpoint(turnout, ill)["available"], "it is readmitted")
        before = ill.requests
        assert set(await clients.more(300)) == {200}
        assert ill.requests > before
    assert "endpoint_ejected" in turnout.log()
    assert "endpoint_readmitted" in turnout.log()


async def test_an_endpoint_alone_is_never_ejected(
    stage: Stage, pair: tuple[Fickle, Fickle]
) -> None:
    alone, _ = pair
    alone.mode = "500"
    turnout = await start(stage, alone)
    async with Clients(turnout) as clients:
        assert set(await clients.more(300)) == {500}, "its failures stay visible"
        alone.mode = "ok"
        await clients.more(20)
        assert set(await clients.more(50)) == {200}
    assert turnout.metric("turnout_ejections_total") == 0


async def test_where_both_fail_half_of_the_pool_goes_on_failing_visibly(
    stage: Stage, pair: tuple[Fickle, Fickle]
) -> None:
    for each in pair:
        each.mode = "500"
    turnout = await start(stage, *pair)
    async with Clients(turnout) as clients:
        assert set(await clients.more(300)) == {500}
        ejected = [endpoint(turnout, each)["ejected"] for each in pair]
        assert ejected.count(True) <= 1
    assert turnout.metric("turnout_requests_total", pool="blue", code_class="5xx") >= 300
    assert turnout.metric("turnout_ejections_total", pool="blue") >= 1


async def test_an_ejection_outlives_a_reload_and_ends_when_it_is_turned_off(
    stage: Stage, pair: tuple[Fickle, Fickle]
) -> None:
    well, ill = pair
    turnout = await start(
        stage, well, ill, ejection={**RULES, "base_time": "25s", "max_time": "30s"}
    )
    async with Clients(turnout) as clients:
        ill.mode = "500"
        await until(lambda: endpoint(turnout, ill)["ejected"], "it is ejected")
        before = await clients.until_left_alone(ill)
        config = turnout.config
        config["services"]["shop"]["slow_start"] = "1s"
        turnout.write(config)
        assert (await asyncio.to_thread(turnout.reload)).status == 200
        assert endpoint(turnout, ill)["ejected"]
        assert set(await clients.more(100)) == {200}
        assert ill.requests == before
        config["services"]["shop"]["ejection"] = "off"
        turnout.write(config)
        assert (await asyncio.to_thread(turnout.reload)).status == 200
        await until(lambda: not endpoint(turnout, ill)["ejected"], "it is back")
        await until(lambda: ill.requests > before + 5, "it is given requests, whatever it answers")


async def test_when_the_last_one_dies_in_panic_the_ejected_one_is_tried_and_nothing_fails(
    stage: Stage, pair: tuple[Fickle, Fickle]
) -> None:
    well, ill = pair
    turnout = await start(
        stage, well, ill, ejection={**RULES, "base_time": "25s", "max_time": "30s"}
    )
    async with Clients(turnout) as clients:
        ill.mode = "500"
        await until(lambda: endpoint(turnout, ill)["ejected"], "it is ejected")
        await clients.until_left_alone(ill)
    ill.mode = "ok"
    async with await Wire.to(turnout.port) as wire:
        for number in range(100):
            if number == 20:
                await well.end()
            assert (await wire.request("/")).status == 200
    assert turnout.metric("turnout_panic_requests_total", pool="blue") >= 1
    async with Clients(turnout, "GET") as clients:  # until every worker has met the dead one
        await until(lambda: endpoint(turnout, ill)["available"], "it is back before its time")
        await clients.more(50)
        assert set(clients.statuses) == {200}
    assert "nothing else of its pool is available" in turnout.log()
