"""Clients that people have, through a real proxy with two pools at 50 % each and a sticky cookie."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import io
import json
import os
import resource
import shutil
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import websockets

from tests.e2e.stage import Stage, Turnout
from tests.e2e.wire import Wire

MIB = 1024 * 1024
BODY = os.urandom(3 * MIB)
DIGEST = hashlib.sha256(BODY).hexdigest()
GREW_MOST_KIB = 16 * 1024
"""What the worker may grow by while bodies of any size pass."""

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def turnout(module_stage: Stage) -> Iterator[Turnout]:
    both = module_stage.origin("blue"), module_stage.origin("green")
    started = module_stage.turnout(
        *both, workers=1, weights={"blue": 50, "green": 50}, sticky={"by": "cookie"}
    )
    yield started
    for origin in both:
        assert origin.malformed() == []


def url(turnout: Turnout, path: str) -> str:
    return f"http://127.0.0.1:{turnout.port}{path}"


# ---- curl ----


def curl(*arguments: str | Path, given: bytes | None = None) -> str:
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "20", *map(str, arguments)],
        input=given,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@needs_curl
@pytest.mark.parametrize(
    "how",
    [
        ["-T", "-", "-H", "Transfer-Encoding: chunked"],
        ["--data-binary", "@-"],
        ["--data-binary", "@-", "-H", "Expect: 100-continue"],
        ["--data-binary", "@-", "--http1.0"],
    ],
    ids=["chunked", "length", "expect", "http/1.0"],
)
def test_curl_uploads(turnout: Turnout, how: list[str]) -> None:
    answer = json.loads(curl(*how, url(turnout, "/continue"), given=BODY))
    assert (answer["length"], answer["sha256"]) == (len(BODY), DIGEST)


@needs_curl
def test_curl_gets_by_both_versions_through_us_as_a_proxy_and_heads(
    turnout: Turnout, tmp_path: Path
) -> None:
    into = tmp_path / "big"
    for version in ("--http1.0", "--http1.1"):
        curl(version, "-o", into, url(turnout, "/big?bytes=5000000"))
        assert into.stat().st_size == 5_000_000
        assert curl(version, url(turnout, "/chunked")) == "hello, world"
    seen = json.loads(curl("-x", url(turnout, ""), "http://shop.example.com/headers"))
    assert ["Host", "shop.example.com"] in seen["headers"]
    assert seen["line"] == "GET /headers"
    assert curl("-I", url(turnout, "/who")).startswith("HTTP/1.1 200 ")


@needs_curl
def test_curl_keeps_its_pool_with_a_cookie_jar(turnout: Turnout, tmp_path: Path) -> None:
    jar = tmp_path / "jar"
    pools = {json.loads(curl("-b", jar, "-c", jar, url(turnout, "/who")))["pool"] for _ in range(8)}
    assert len(pools) == 1


@needs_curl
def test_curl_gets_many_at_once(turnout: Turnout) -> None:
    target = url(turnout, "/big?bytes=100000&n=[1-100]")
    told = curl(
        "--parallel", "--parallel-max", "25", "--no-progress-meter",
        "-w", "%{http_code} %{size_download}\n", "-o", "/dev/null", target,
    )  # fmt: skip
    assert told.splitlines() == ["200 100000"] * 100


@needs_curl
def test_curl_hears_a_refusal_of_its_upload(turnout: Turnout) -> None:
    told = curl("-T", "-", "-w", " %{http_code}", url(turnout, "/early"), given=BODY * 5)
    assert told == "too much 413"


# ---- Python ----


def test_http_client_and_urllib_keep_their_connection_and_their_bodies(turnout: Turnout) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", turnout.port, timeout=20)
    for body in (BODY, iter([BODY[:MIB], BODY[MIB:]])):
        connection.request("POST", "/echo", body)
        assert json.load(connection.getresponse())["sha256"] == DIGEST
    connection.request("HEAD", "/who")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    connection.request("GET", "/close")
    assert connection.getresponse().read() == b"to the end of the connection"
    connection.close()
    request = urllib.request.Request(url(turnout, "/echo"), data=BODY)
    with urllib.request.urlopen(request, timeout=20) as reply:
        assert json.load(reply)["sha256"] == DIGEST


async def test_aiohttp_does_many_things_at_once(turnout: Turnout) -> None:
    async def piecewise() -> AsyncIterator[bytes]:
        for at in range(0, len(BODY), 5000):
            yield BODY[at : at + 5000]

    async with aiohttp.ClientSession(url(turnout, "")) as session:

        async def get(size: int) -> int:
            async with session.get(f"/big?bytes={size}") as answer:
                return len(await answer.read())

        sizes = range(10_000, 10_200)
        assert await asyncio.gather(*map(get, sizes)) == list(sizes)
        for body in (io.BytesIO(BODY), piecewise()):
            async with session.post("/continue", data=body, expect100=True) as answer:
                assert (await answer.json())["sha256"] == DIGEST
        async with session.get("/stream?s=0.3") as answer:
            events = [line async for line in answer.content if line.startswith(b"data:")]
        assert len(events) >= 3


async def test_a_websocket_goes_through(turnout: Turnout) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{turnout.port}/ws") as socket:
        assert json.loads(await socket.recv())["pool"] in {"blue", "green"}
        await socket.send(b"x" * 60_000)
        assert await socket.recv() == b"x" * 60_000
        await (await socket.ping(b"there?"))


# ---- much, and many ----


@needs_curl
@pytest.mark.parametrize("way", ["up", "down"])
def test_bodies_of_any_size_pass_in_bounded_memory(
    turnout: Turnout, tmp_path: Path, way: str
) -> None:
    size = 256 * MIB
    before = turnout.rss_kib()
    if way == "up":
        sparse = tmp_path / "sparse"
        with sparse.open("wb") as file:
            file.truncate(size)
        told = json.loads(curl("-T", sparse, url(turnout, "/echo")))
        assert told["length"] == size
        with sparse.open("rb") as file:
            assert told["sha256"] == hashlib.file_digest(file, "sha256").hexdigest()
    else:
        target = url(turnout, f"/big?bytes={size}")
        assert curl("-o", "/dev/null", "-w", "%{size_download}", target) == str(size)
    assert turnout.rss_kib() - before < GREW_MOST_KIB


async def two_hundred_requests(turnout: Turnout) -> float:
    """Send them over a connection of their own; the seconds it took."""
    async with await Wire.to(turnout.port) as wire:
        began_s = time.monotonic()
        for _ in range(200):
            assert (await wire.request("/who")).status == 200
        return time.monotonic() - began_s


async def test_two_thousand_connections_at_rest_cost_little_and_the_others_are_served(
    turnout: Turnout,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wires = []
    try:
        usual_s = await two_hundred_requests(turnout)
        before = turnout.rss_kib()
        for _ in range(2000):
            wire = await Wire.to(turnout.port)
            wires.append(wire)
            assert (await wire.request("/who")).status == 200
        assert (turnout.rss_kib() - before) / 2000 < 5
        assert await two_hundred_requests(turnout) < 5 * usual_s + 3
        assert (await wires[-1].request("/who")).status == 200
    finally:
        for wire in wires:
            wire.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
