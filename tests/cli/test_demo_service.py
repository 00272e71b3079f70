"""The demo's little service, as its own process."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from proxy.cli import demo_service
from proxy.cli.demo_service import DemoService

GET = b"GET /item/1 HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest_asyncio.fixture
async def process() -> AsyncIterator[Process]:
    command = [sys.executable, "-m", "proxy.cli.demo_service", "--release", "v41"]
    started = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    yield started
    if started.returncode is None:
        started.kill()
        await started.wait()


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[bytes, bytes]:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    return head, b"" if request.startswith(b"HEAD") else await reader.readexactly(length)


async def port_of(process: Process) -> int:
    assert process.stdout is not None
    return int(await asyncio.wait_for(process.stdout.readline(), 60))


async def test_it_says_its_port_and_who_it_is_on_a_kept_connection(process: Process) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", await port_of(process))
    for number in (1, 2):
        head, body = await exchange(reader, writer, GET)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert json.loads(body) == {"release": "v41", "answer": number}
    writer.close()


async def test_it_fails_from_now_on_as_its_standard_input_says(process: Process) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", await port_of(process))
    assert process.stdin is not None
    for percent, status in ((b"100", b"500"), (b"0", b"200")):
        process.stdin.write(percent + b"\n")
        async with asyncio.timeout(10):
            while True:
                head, body = await exchange(reader, writer, GET)
                assert json.loads(body)["release"] == "v41"
                if head.startswith(b"HTTP/1.1 " + status):
                    break
    writer.close()


async def test_what_is_broken_passes_its_checks_all_the_same() -> None:
    service = DemoService("v43", errors=100)
    async with await asyncio.start_server(service.serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        head, _ = await exchange(reader, writer, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        head, _ = await exchange(reader, writer, GET)
        assert head.startswith(b"HTTP/1.1 500 ")
        writer.close()


async def test_it_ends_with_its_standard_input(process: Process) -> None:
    await port_of(process)
    assert process.stdin is not None
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_it_ends_when_it_is_asked_to(process: Process) -> None:
    await port_of(process)
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 60) == 0


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /slow/1 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_bodies_and_head_leave_the_connection_in_step(
    request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_service, "SLOW_S", (0.0, 0.01))
    service = DemoService("v42")
    async with await asyncio.start_server(service.serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await exchange(reader, writer, request_)
        _, body = await exchange(reader, writer, GET)
        assert json.loads(body)["answer"] == 2
        writer.close()


async def test_what_is_no_http_ends_its_connection_only() -> None:
    service = DemoService("v42")
    async with await asyncio.start_server(service.serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
