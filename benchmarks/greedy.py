"""What slow and greedy clients and endpoints cost: memory of the worker, and a good client's answers.

Every story runs for some seconds against one worker with short timeouts. Shown are what
became of its connections, the worker's memory before and at its peak (what one story has
used, the next one may find again), and what a client beside them had to wait.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.stage import Stage, Turnout
from tests.ports import free_port

KIB = 1024
MIB = 1024 * KIB
HEADER_S, IDLE_S, STALL_S = 3.0, 6.0, 3.0
GET = b"GET /%b HTTP/1.1\r\nHost: shop\r\n\r\n"
OPEN_HEAD = b"GET / HTTP/1.1\r\nHost: shop\r\n"
UPLOAD = b"POST /%b HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"
RESET = struct.pack("ii", 1, 0)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    b"interim": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    b"head": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
    b"extension": (CHUNKED + b"1;", b"x" * 100),
    b"trailers": (CHUNKED + b"1\r\na\r\n0\r\n", b"x: y\r\n"),
    b"bytes": (CHUNKED, b"1\r\na\r\n"),
}


# ---- one connection ----


class Client:
    """A raw connection; `receive` makes its buffer in the kernel small."""

    def __init__(self, port: int, receive: int = 0) -> None:
        self._port = port
        self.sock = socket.socket()
        if receive:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.sock.setblocking(False)

    async def open(self) -> None:
        await asyncio.get_running_loop().sock_connect(self.sock, ("127.0.0.1", self._port))

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def flood(self, begins: bytes, goes_on: bytes, mib: float) -> None:
        """Send so much, or as much as is taken."""
        piece = goes_on * max(1, 64 * KIB // len(goes_on))
        with suppress(OSError, TimeoutError):
            await self.send(begins)
            for _ in range(max(1, int(mib * MIB / len(piece)))):
                async with asyncio.timeout(1.0):
                    await self.send(piece)

    async def drip(self, data: bytes, every_s: float, seconds: float) -> None:
        with suppress(OSError):
            for number in range(int(seconds / every_s)):
                at = number % len(data)
                await self.send(data[at : at + 1])
                await asyncio.sleep(every_s)

    async def outcome(self) -> str:
        """Status of the answer, or how the connection ended."""
        try:
            async with asyncio.timeout(IDLE_S + STALL_S + 3):
                got = await asyncio.get_running_loop().sock_recv(self.sock, 12)
        except TimeoutError:
            return "open"
        except OSError:
            return "cut"
        return got[9:12].decode("latin-1") if got else "closed"

    def close(self, *, reset: bool = False) -> None:
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()


Act = Callable[[Client], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Story:
    name: str
    connections: int
    act: Act
    receive: int = 0
    at_once: int = 500


def flooding(begins: bytes, goes_on: bytes, mib: float) -> Act:
    """Send for ever, and look then what has been answered."""

    async def act(client: Client) -> str:
        await client.flood(begins, goes_on, mib)
        return await client.outcome()

    return act


def dripping(begins: bytes, goes_on: bytes, every_s: float = 0.5) -> Act:
    async def act(client: Client) -> str:
        await client.send(begins)
        dripping = asyncio.get_running_loop().create_task(
            client.drip(goes_on, every_s, HEADER_S + 3)
        )
        try:
            return await client.outcome()
        finally:
            dripping.cancel()
            await asyncio.wait([dripping])

    return act


def asking(request: bytes, rest_s: float = 0.0) -> Act:
    """Ask, and take no more of the answer than its status; a pause before that is a slow reader."""

    async def act(client: Client) -> str:
        await client.send(request)
        await asyncio.sleep(rest_s)
        return await client.outcome()

    return act


async def _sipping(client: Client) -> str:
    """Take one byte of a long answer now and then."""
    await client.send(GET % b"big?bytes=1000000000")
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        for _ in range(40):
            if not await loop.sock_recv(client.sock, 1):
                return "closed"
            await asyncio.sleep(0.25)
        return "open"
    return "cut"


async def _coming_and_going(client: Client) -> str:
    await client.send(GET % b"slow?s=5")
    client.close(reset=True)
    return "reset"


async def _resting(client: Client) -> str:
    """Be answered, and rest; the memory is looked at meanwhile."""
    await client.send(GET % b"who")
    status = await client.outcome()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(0.2):
            await asyncio.get_running_loop().sock_recv(client.sock, 4096)
    return status


def stories(scale: float) -> list[Story]:
    def some(count: int) -> int:
        return max(1, int(count * scale))

    return [
        Story("says nothing", some(2000), asking(b"")),
        Story("drips a head", some(1000), dripping(b"", OPEN_HEAD + b"X: " + b"x" * 99)),
        Story("drips empty lines", some(1000), dripping(b"", b"\r\n")),
        Story("drips a second head", some(500), _second_head()),
        Story("stops in a body", some(1000), asking(UPLOAD % b"echo" + b"5\r\nhe")),
        Story("head of 8 MiB", some(100), flooding(OPEN_HEAD + b"X: ", b"x", 8)),
        Story("target of 8 MiB", some(100), flooding(b"GET /", b"x", 8)),
        Story("a million headers", some(50), flooding(OPEN_HEAD, b"x: y\r\n", 6)),
        Story("a million empty lines", some(50), flooding(b"", b"\r\n", 2)),
        Story("chunk extension", some(50), flooding(UPLOAD % b"echo" + b"1;", b"x", 8)),
        Story("trailers", some(50), flooding(UPLOAD % b"echo" + b"0\r\n", b"x: y\r\n", 8)),
        Story("chunks of a byte", some(4), flooding(UPLOAD % b"echo", b"1\r\na\r\n", 8), at_once=4),
        Story(
            "pipelines, reads nothing", some(100), flooding(b"", GET % b"who", 4), receive=4 * KIB
        ),
        Story("the same, no route", some(100), flooding(b"", GET % b"nowhere", 4), receive=4 * KIB),
        Story(
            "stops in 1 GB", some(100), asking(GET % b"big?bytes=1000000000", IDLE_S + 2), 4 * KIB
        ),
        Story("reads a byte at a time", some(100), _sipping, receive=4 * KIB),
        Story(
            "upload nobody reads", some(100), flooding(UPLOAD % b"late?s=60", _CHUNK, 8), at_once=50
        ),
        Story("goes on after the answer", some(50), flooding(UPLOAD % b"early", _CHUNK, 32)),
        Story("resets at once", some(3000), _coming_and_going),
        *(
            Story(
                f"endpoint: endless {name.decode()}",
                some(20),
                asking(GET % (b"endless/" + name), 1),
            )
            for name in ENDLESS
        ),
    ]


_CHUNK = b"10000\r\n" + b"x" * 65536 + b"\r\n"


def _second_head() -> Act:
    drip = dripping(b"", OPEN_HEAD + b"X: " + b"x" * 99)

    async def act(client: Client) -> str:
        await client.send(GET % b"who")
        await asyncio.get_running_loop().sock_recv(client.sock, 65536)
        return await drip(client)

    return act


# ---- an endpoint without end ----


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send what the path says, until the proxy has had enough."""
    with suppress(OSError, asyncio.IncompleteReadError):
        target = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        begins, goes_on = ENDLESS[target.rpartition(b"/")[2]]
        writer.write(begins)
        while True:
            writer.write(goes_on * (64 * KIB // len(goes_on)))
            await writer.drain()
    writer.close()


# ---- the proxy, and the table ----


class Run:
    def __init__(self, turnout: Turnout) -> None:
        self._turnout = turnout
        (self._pid,) = turnout.worker_pids()

    async def show(self, story: Story) -> None:
        before = self._kib("VmRSS")
        began = time.monotonic()
        beside = await asyncio.to_thread(self._begin)
        gate = asyncio.Semaphore(story.at_once)
        outcomes = Counter(
            await asyncio.gather(*(self._one(story, gate) for _ in range(story.connections)))
        )
        seen: dict[str, Any] = json.loads(await asyncio.to_thread(lambda: beside.communicate()[0]))
        peak = self._kib("VmHWM")
        print(
            f"{story.name:28}{story.connections:>6}{time.monotonic() - began:>7.1f}"
            f"{before / KIB:>8.1f}{(peak - before) / KIB:>8.1f}"
            f"{seen['median_ms']:>8.1f}{seen['late_ms']:>8.1f}{seen['worst_ms']:>8.1f}"
            f"{seen['failures']:>6}  {_words(outcomes)}",
            flush=True,
        )

    def _begin(self) -> subprocess.Popen[bytes]:
        """Measure the peak anew, and start the neighbour."""
        Path(f"/proc/{self._pid}/clear_refs").write_text("5", encoding="ascii")
        beside = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "neighbour.py"), str(self._turnout.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert beside.stdout is not None, "it was asked for"
        beside.stdout.readline()
        return beside

    async def _one(self, story: Story, gate: asyncio.Semaphore) -> str:
        async with gate:
            client = Client(self._turnout.port, story.receive)
            try:
                await client.open()
                return await story.act(client)
            except OSError:
                return "cut"
            finally:
                client.close()

    async def rest(self, connections: int) -> None:
        """Have many connections rest, each after its first answer; a hundred before warm it up."""
        await self._rest(100)
        before = self._kib("VmRSS")
        clients = await self._rest(connections)
        await asyncio.sleep(3)
        each = (self._kib("VmRSS") - before) / connections
        began = self._cpu_s()
        await asyncio.sleep(2)
        busy = (self._cpu_s() - began) / 2
        print(f"{connections} connections at rest: {each:.2f} KiB each, {busy:.1%} of a core")
        for client in clients:
            client.close()

    async def _rest(self, connections: int) -> list[Client]:
        clients = []
        for _ in range(connections):
            client = Client(self._turnout.port)
            await client.open()
            await _resting(client)
            clients.append(client)
        return clients

    def _kib(self, key: str) -> int:
        status = Path(f"/proc/{self._pid}/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(key))

    def _cpu_s(self) -> float:
        fields = (
            Path(f"/proc/{self._pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / 100


def _words(outcomes: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in outcomes.most_common())


def _started(stage: Stage, endless: str) -> Turnout:
    """One worker; the path /nowhere has no route, and /endless is an endpoint without end."""
    listener = {
        "bind": f"127.0.0.1:{free_port()}",
        "timeouts": {"header": f"{HEADER_S:g}s", "idle": f"{IDLE_S:g}s"},
    }
    stalls = {"client_body": f"{STALL_S:g}s", "response": f"{STALL_S:g}s"}
    shop = {
        "pools": {"blue": {"endpoints": stage.origin("blue").addresses}},
        "active": "blue",
        "timeouts": stalls,
        "limits": {"per_endpoint_connections": 0, "per_endpoint_pending": 0},
        "ejection": "off",
    }
    paths = ("who", "echo", "slow", "big", "late", "early")
    own = {**shop, "routes": [{"path": f"/{path}"} for path in paths]}
    endless_pool = {"pools": {"blue": {"endpoints": [endless]}}, "routes": [{"path": "/endless"}]}
    services = {"shop": own, "endless": {**shop, **endless_pool}}
    return stage.turnout([], [], workers=1, top={"listeners": [listener], "services": services})


async def _run(scale: float, connections: int, only: str) -> None:
    with tempfile.TemporaryDirectory(prefix="greedy-") as directory:
        stage = Stage(Path(directory))
        server = await asyncio.start_server(_endless, "127.0.0.1", 0)
        try:
            endless = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            run = Run(await asyncio.to_thread(_started, stage, endless))
            columns = (
                f"{'conns':>6}{'s':>7}{'MiB':>8}{'+ MiB':>8}{'median':>8}{'99 %':>8}{'worst':>8}"
            )
            if connections:
                await run.rest(connections)
            print(f"\n{'':28}{columns}{'fails':>6}  what became of them")
            for story in stories(scale):
                if only in story.name:
                    await run.show(story)
        finally:
            server.close()
            await asyncio.to_thread(stage.end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the connections (1)")
    parser.add_argument("--rest", type=int, default=10_000, help="connections at rest (10000)")
    parser.add_argument("--only", default="", help="stories whose name has this in it")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_run(options.scale, options.rest, options.only))


if __name__ == "__main__":
    main()
