from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy.control import probe as probes
from proxy.control.probe import probe_all, probe_connect


def never(name: str, error: BaseException) -> None:
    pytest.fail(f"{name} failed: {error!r}")


async def test_an_endpoint_that_listens_is_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert await probe_connect(f"127.0.0.1:{port}") is None


async def test_an_endpoint_of_the_newer_internet_is_ready() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        port = listening.getsockname()[1]
        assert await probe_connect(f"[::1]:{port}") is None


async def test_an_endpoint_on_a_unix_socket_is_ready(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.sock"))
        listening.listen()
        assert await probe_connect(f"unix:{tmp_path}/s.sock") is None


async def test_why_an_endpoint_is_not_ready_reads_like_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        assert await probe_connect(f"127.0.0.1:{port}") == "connection refused"
    assert await probe_connect(f"unix:{tmp_path}/none") == "no such file or directory"


async def test_an_endpoint_that_takes_no_connection_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probes, "PROBE_S", 0.1)
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):  # more than its queue holds
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        reason = await probe_connect(f"127.0.0.1:{full.getsockname()[1]}")
    assert reason == "no connection within 0.1 s"


async def test_enough_answers_end_the_asking() -> None:
    async def ask(address: str) -> str | None:
        if address == "slow":
            await asyncio.Event().wait()
        return None

    async with asyncio.timeout(10):
        found = await probe_all(ask, ["slow", "fast"], enough=1, report=never)
    assert found["fast"] is None
    assert found["slow"]


async def test_all_are_asked_at_once_and_the_time_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probes, "PROBE_S", -0.4)  # the bound is half a second later

    async def hang(address: str) -> str | None:
        assert address
        await asyncio.Event().wait()
        return None

    async with asyncio.timeout(10):
        found = await probe_all(hang, ["a", "b", "c"], enough=3, report=never)
    assert all(found.values())


async def test_nothing_to_ask_is_answered_at_once() -> None:
    assert await probe_all(probe_connect, [], enough=1, report=never) == {}


async def test_a_probe_that_fails_itself_counts_as_not_ready() -> None:
    async def broken(address: str) -> str | None:
        raise ValueError(f"What is {address}?")

    reported = []
    found = await probe_all(broken, ["a"], enough=1, report=lambda name, _: reported.append(name))
    assert found == {"a": "what is a?"}
