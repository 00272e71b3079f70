"""The demo's client: a steady, bounded load over kept connections that forgives nothing."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from proxy.tasks import spawn

RATE: Final = 200.0
"""Requests a second: enough for shares to be seen, little enough for any laptop."""
SLOW_EVERY: Final = 30
"""One request in so many takes seconds, so that a switch finds some in flight."""
MOST_IN_FLIGHT: Final = 120
ANSWER_S: Final = 15.0
"""A request without an answer for so long has failed."""


class BadAnswerError(Exception):
    """Anything but a whole answer of one of the demo's services."""


@dataclass(frozen=True, slots=True)
class Record:
    """One answered request: when it was sent (monotonic seconds), and which release answered."""

    sent_s: float
    release: str
    is_bad: bool = False
    """A 500 that the service was told to answer; whether it was meant to, the report says."""


class Connection:
    """One kept connection with at most one request on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def is_closed(self) -> bool:
        return self._reader.at_eof() or self._writer.is_closing()

    async def ask(self, path: str) -> tuple[str, bool]:
        """Send one request; return the release that answered, and whether with a 500 of its own."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: shop.example.com\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, length = _parse(head)
        body = await self._reader.readexactly(length)
        release = _release(body) if status in {200, 500} else None
        if release is None:
            raise BadAnswerError(
                f"{path}: status {status}: {body[:200].decode('utf-8', 'replace')}"
            )
        return release, status == 500

    def close(self) -> None:
        self._writer.close()


class Load:
    """Sends `rate` requests a second until stopped; knows every answer and every failure."""

    def __init__(self, host: str, port: int, rate: float = RATE) -> None:
        self._address = (host, port)
        self._rate = rate
        self._idle: list[Connection] = []
        self._sent = 0
        self._pacer: asyncio.Task[None] | None = None
        self.in_flight = 0
        self.records: list[Record] = []
        self.bad = 0
        self.failures: list[str] = []

    @property
    def requests(self) -> int:
        return len(self.records) + len(self.failures)

    def start(self) -> None:
        self._pacer = spawn(self._pace(), name="demo-load", report=self._crashed)

    async def stop(self) -> None:
        """Send nothing more, and wait for the answers that are due."""
        if self._pacer is not None:
            self._pacer.cancel()
            await asyncio.wait({self._pacer})
        for _ in range(int(ANSWER_S / 0.02) + 50):
            if not self.in_flight:
                break
            await asyncio.sleep(0.02)
        self.close()

    def close(self) -> None:
        """Send nothing more, and wait for nothing."""
        if self._pacer is not None:
            self._pacer.cancel()
        while self._idle:
            self._idle.pop().close()

    async def _pace(self) -> None:
        next_s = time.monotonic()
        while True:
            now = time.monotonic()
            # After a stall the missed requests are not sent in one burst.
            next_s = max(next_s + 1 / self._rate, now - 0.1)
            await asyncio.sleep(max(0.0, next_s - now))
            if self.in_flight < MOST_IN_FLIGHT:
                self._send()

    def _send(self) -> None:
        self._sent += 1
        path = f"/slow/{self._sent}" if self._sent % SLOW_EVERY == 0 else f"/item/{self._sent}"
        self.in_flight += 1
        spawn(self._request(path), name=path, report=self._crashed)

    async def _request(self, path: str) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._exchange(path)
        except TimeoutError:
            self.failures.append(f"{path}: no answer within {ANSWER_S:g} s")
        except BadAnswerError as error:
            self.failures.append(str(error))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            self.failures.append(f"{path}: the connection broke ({error!r})")
        finally:
            self.in_flight -= 1

    async def _exchange(self, path: str) -> None:
        connection = await self._lease()
        is_whole = False
        try:
            sent_s = time.monotonic()
            release, is_bad = await connection.ask(path)
            self.records.append(Record(sent_s, release, is_bad))
            self.bad += is_bad
            is_whole = True
        finally:
            if is_whole:
                self._idle.append(connection)
            else:
                connection.close()

    async def _lease(self) -> Connection:
        if not self._idle:
            return Connection(*await asyncio.open_connection(*self._address))
        connection = self._idle.pop()
        if connection.is_closed:
            connection.close()
            raise BadAnswerError("a kept connection was closed by the proxy")
        return connection

    def _crashed(self, name: str, error: BaseException) -> None:
        self.failures.append(f"{name}: {error!r}")


def _release(body: bytes) -> str | None:
    """Who answered; None where it was none of the demo's services."""
    with suppress(ValueError):
        said = json.loads(body)
        if isinstance(said, dict) and isinstance(said.get("release"), str):
            return str(said["release"])
    return None


def _parse(head: bytes) -> tuple[int, int]:
    lines = head.split(b"\r\n")
    parts = lines[0].split(b" ", 2)
    if len(parts) < 2 or parts[0] != b"HTTP/1.1":
        raise BadAnswerError(f"not an answer: {lines[0][:80]!r}")
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            with suppress(ValueError):
                return int(parts[1]), int(value)
    raise BadAnswerError("an answer without a length")
