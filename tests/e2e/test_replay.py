"""A rollout that is turned back tells its hooks, keeps samples, and can be judged again."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.stage import Stage, Turnout, wait_until
from tests.e2e.wire import Wire


class Server:
    """Answers every request with one status, and keeps the bodies it was sent."""

    def __init__(self, status: int) -> None:
        self._status = status
        self._writers: set[asyncio.StreamWriter] = set()
        self.bodies: list[dict[str, Any]] = []
        self.server: asyncio.Server
        self.address = ""

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = head.partition("content-length: ")[2].partition("\r\n")[0]
                if length:
                    self.bodies.append(json.loads(await reader.readexactly(int(length))))
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % self._status)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass  # whoever called has closed the connection, which is their right
        finally:
            self._writers.discard(writer)
            writer.close()

    async def end(self) -> None:
        self.server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0)


@pytest.fixture
async def servers() -> AsyncIterator[tuple[Server, Server, Server]]:
    """Good ones, bad ones, and somebody who wants to know."""
    made = (Server(200), Server(500), Server(204))
    for each in made:
        await each.start()
    yield made
    for each in made:
        await each.end()


def replay(turnout: Turnout, *options: str) -> Any:
    store = turnout.directory / "state" / "turnout.db"
    command = (sys.executable, "-m", "proxy.cli.main", "replay", "--service", "shop")
    ran = subprocess.run(
        [*command, "--output", "json", *options, str(store)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    return json.loads(ran.stdout) if ran.returncode == 0 else None


async def test_a_bad_release_is_turned_back_with_everything_one_needs_to_look_into_it(
    servers: tuple[Server, Server, Server], tmp_path_factory: pytest.TempPathFactory
) -> None:
    good, bad, told = servers
    stage = Stage(tmp_path_factory.mktemp("replay"))
    try:
        turnout = await asyncio.to_thread(
            stage.turnout,
            [good.address],
            [bad.address],
            ejection="off",
            retry={"attempts": 0},
            rollout={
                "steps": [{"weight": 50, "bake": "5m"}, {"weight": 100, "bake": "5m"}],
                "hooks": [{"on": ["started", "rolled_back"], "url": f"http://{told.address}/"}],
            },
        )
        await asyncio.to_thread(
            turnout.change, "POST", "/v1/services/shop/rollout", {"to": "green"}
        )
        await _until_rolled_back(turnout)
        await asyncio.to_thread(wait_until, lambda: len(told.bodies) == 2, "the hook was told")
        assert [body["moment"] for body in told.bodies] == ["started", "rolled_back"]
        record = told.bodies[-1]
        _check_samples(record["numbers"]["samples"], bad.address)
        found = await asyncio.to_thread(wait_until, lambda: _replayed(turnout), "it is recorded")
        assert found["would"] == found["really"], "the same knobs say the same"
        assert found["release"] == "v42"
        assert found["decisions"][-1]["to"]["phase"] == "rolled_back"
        lenient = await asyncio.to_thread(
            replay, turnout, "--tolerance-abs", "100%", "--hard-rate", "100%"
        )
        assert lenient["really"] == found["really"]
    finally:
        await asyncio.to_thread(stage.end)


async def _until_rolled_back(turnout: Turnout) -> None:
    async with asyncio.timeout(60), await Wire.to(turnout.port) as wire:
        while True:
            for _ in range(20):
                await wire.request("/")
            view = await asyncio.to_thread(turnout.service)
            if view["rollout"]["phase"] == "rolled_back":
                return


def _check_samples(samples: list[dict[str, Any]], address: str) -> None:
    assert samples
    for sample in samples:
        assert (sample["endpoint"], sample["status"], sample["failure"]) == (address, 500, None)
        assert len(sample["request_id"]) == 32
        assert sample["age_s"] < 120


def _replayed(turnout: Turnout) -> Any:
    found = replay(turnout)
    return found if found and found["really"] else None
