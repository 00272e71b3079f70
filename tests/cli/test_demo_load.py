"""The demo's client counts every answer, and forgives nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from proxy.cli import demo_load, demo_service
from proxy.cli.demo_load import Load
from proxy.cli.demo_service import DemoService
from tests.ports import free_port

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Loaded = Callable[[Serve], Awaitable[Load]]


async def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.005)


@pytest_asyncio.fixture
async def loaded() -> AsyncIterator[Loaded]:
    """Put a load of 200 requests a second on a server."""
    ends: list[Callable[[], Any]] = []

    async def begin(serve: Serve) -> Load:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        load = Load(*server.sockets[0].getsockname())
        ends.extend([load.close, server.close])
        load.start()
        return load

    yield begin
    for end in ends:
        end()


def says(answer: bytes, *, then_close: bool = False) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                if then_close:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return serve


def answer(status: int, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, size, body)


async def test_a_sound_service_gives_records_and_no_failure(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_service, "SLOW_S", (0.1, 0.2))
    load = await loaded(DemoService("v41").serve)
    await until(lambda: len(load.records) >= 40)
    await load.stop()
    assert load.failures == []
    assert load.in_flight == 0
    assert {record.release for record in load.records} == {"v41"}
    assert load.requests == len(load.records)


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (says(answer(503, b"nobody")), "status 503: nobody"),
        (says(answer(200, b'{"release": "v41"}'), then_close=True), "closed by the proxy"),
        (says(answer(200, b"{", 50), then_close=True), "the connection broke"),
        (says(b"", then_close=True), "the connection broke"),
        (says(answer(200, b"no json")), "status 200: no json"),
        (says(answer(200, b'{"release": 1}')), "status 200"),
        (says(answer(502, b'{"release": "v41"}')), "status 502"),
        (says(b"HTTP/1.1 200 OK\r\n\r\n"), "without a length"),
        (says(b"220 mail.example.com\r\n\r\n"), "not an answer"),
    ],
)
async def test_anything_but_a_whole_answer_is_a_failure(
    loaded: Loaded, serve: Serve, reason: str
) -> None:
    load = await loaded(serve)
    await until(lambda: any(reason in failure for failure in load.failures))


async def test_an_error_that_a_release_was_told_to_answer_is_no_failure_but_a_bad_answer(
    loaded: Loaded,
) -> None:
    load = await loaded(DemoService("v43", errors=100).serve)
    await until(lambda: load.bad >= 20)
    await load.stop()
    assert load.failures == []
    assert all(record.is_bad and record.release == "v43" for record in load.records)
    assert load.bad == len(load.records)


async def test_nobody_listening_is_a_failure() -> None:
    load = Load("127.0.0.1", free_port())
    load.start()
    await until(lambda: bool(load.failures))
    await load.stop()
    assert not load.records


async def test_silence_is_a_failure_and_the_load_stays_bounded(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_load, "ANSWER_S", 0.3)
    monkeypatch.setattr(demo_load, "MOST_IN_FLIGHT", 5)
    load = await loaded(says(b""))
    most = 0

    def is_over() -> bool:
        nonlocal most
        most = max(most, load.in_flight)
        return len(load.failures) >= 5

    await until(is_over)
    await load.stop()
    assert most <= 5
    assert "no answer within 0.3 s" in load.failures[0]
