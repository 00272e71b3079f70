"""Endpoints that are names: the addresses behind them, looked up again and again in the background.

Lookups go through the loop's getaddrinfo, so that the hosts file, search domains and
nsswitch count as for every other program. It runs in threads that cannot be interrupted:
there is never more than one lookup of a name, and only a few of all names at once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from proxy import stats
from proxy.clock import Clock
from proxy.tasks import Report, spawn

AGAIN_S = 10.0
"""Names that carry traffic are looked up again after this long, and a tenth more or less."""
IDLE_AGAIN_S = 25.0
"""The others; with the jitter it stays below half a minute."""
FAILED_AGAIN_S = 3.0
"""After a lookup that failed."""
OVERDUE_S = 10.0
"""A lookup that takes longer than this is told as failing; what was known stays in use."""
LOOKUPS_AT_ONCE = 3
"""uvloop has four threads for lookups, and one of them stays free."""
MOST_ADDRESSES = 64
"""More than this one name cannot have here; nobody would get to try them all."""
PASSED_OVER_S = 1.0
"""How long an address that could not be connected to is passed over by this worker."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Looks up host and port: addresses in their order; OSError or UnicodeError when there are none."""
Tell = Callable[[str, dict[str, Any]], None]
"""An event for the log, with its facts."""


async def system_resolve(host: str, port: int) -> list[str]:
    """Look up as the system does, in its order of preference."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [_in_words(entry[4]) for entry in found]


def is_name(host: str) -> bool:
    """Whether a host has to be looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


class HostName:
    """What is known of an endpoint's name."""

    __slots__ = (
        "_changed",
        "addresses",
        "asked_at",
        "due",
        "failure",
        "host",
        "lookup",
        "passed_over",
        "port",
        "turn",
    )

    def __init__(self, host: str, port: int, changed: Callable[[frozenset[str]], None]) -> None:
        self.host = host
        self.port = port
        self._changed = changed
        """Told all the addresses whenever they are others than before."""
        self.addresses: tuple[str, ...] = ()
        self.failure: str | None = None
        """Why the last lookup gave nothing; None when it gave something."""
        self.lookup: asyncio.Task[None] | None = None
        self.asked_at = 0.0
        self.due = 0.0
        self.turn = random.randrange(MOST_ADDRESSES)
        self.passed_over: dict[str, float] = {}
        """Until when, for addresses that could not be connected to."""

    def in_turn(self, now: float) -> list[str]:
        """Every address, the next one in turn first, those passed over at the end."""
        addresses = self.addresses
        start = self.turn % len(addresses)
        self.turn += 1
        order = [*addresses[start:], *addresses[:start]]
        if self.passed_over:
            self.passed_over = {a: until for a, until in self.passed_over.items() if until > now}
            order.sort(key=self.passed_over.__contains__)
        return order

    def pass_over(self, address: str, now: float) -> None:
        self.passed_over[address] = now + PASSED_OVER_S

    def take(self, found: list[str]) -> None:
        """Take over what a lookup has found."""
        addresses = tuple(dict.fromkeys(found))[:MOST_ADDRESSES]
        self.failure = None
        if set(addresses) == set(self.addresses):
            return  # in the order that we have: servers shuffle theirs, and the turns go on
        self.addresses = addresses
        self.passed_over = {a: t for a, t in self.passed_over.items() if a in addresses}
        self._changed(frozenset(addresses))


class Resolver:
    """Looks names up for one worker; what was known of a name outlives failures."""

    def __init__(
        self, words: memoryview, clock: Clock, resolve: Resolve, report: Report, tell: Tell
    ) -> None:
        self._words = words
        self._clock = clock
        self._resolve = resolve
        self._report = report
        self._tell = tell
        self._room = asyncio.Semaphore(LOOKUPS_AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()

    def refresh(self, name: HostName, *, is_busy: bool) -> None:
        """Look a name up again if it is time to: for every name in use, at every sweep."""
        now = self._clock.monotonic()
        if name.lookup is not None:
            if now - name.asked_at > OVERDUE_S and name.failure is None:
                self._failed(name, f"no answer within {OVERDUE_S:g} s")
        elif now >= name.due + (0.0 if is_busy or not name.addresses else IDLE_AGAIN_S - AGAIN_S):
            self._begin(name, now)

    async def addresses(self, name: HostName) -> list[str]:
        """Addresses to try, in turn; waits for the first lookup only. OSError without any.

        The caller bounds the waiting; a lookup that nobody waits for any more goes on.
        """
        if not name.addresses:
            lookup = name.lookup or self._begin(name, self._clock.monotonic())
            await asyncio.wait({lookup})
            if not name.addresses:
                raise socket.gaierror(socket.EAI_NONAME, name.failure or "the lookup was given up")
        return name.in_turn(self._clock.monotonic())

    def close(self) -> None:
        """Wait for no lookup any more."""
        for lookup in self._running:
            lookup.cancel()

    def _begin(self, name: HostName, now: float) -> asyncio.Task[None]:
        name.asked_at = now
        name.due = now + AGAIN_S
        lookup = spawn(self._look_up(name), name=f"lookup {name.host}", report=self._report)
        name.lookup = lookup
        self._running.add(lookup)
        lookup.add_done_callback(self._running.discard)
        return lookup

    async def _look_up(self, name: HostName) -> None:
        try:
            async with self._room:  # until the thread is free again, however long that takes
                found = await self._resolve(name.host, name.port)
        except (OSError, UnicodeError) as error:
            self._failed(name, getattr(error, "strerror", None) or str(error))
        else:
            if found:
                self._found(name, found)
            else:
                self._failed(name, "no address")
        finally:
            name.lookup = None

    def _found(self, name: HostName, found: list[str]) -> None:
        self._words[stats.W_LOOKUPS] += 1
        if name.failure is not None:
            self._tell("name resolved again", {"name": name.host, "addresses": found})
        name.take(found)
        name.due = self._clock.monotonic() + AGAIN_S * random.uniform(0.9, 1.1)

    def _failed(self, name: HostName, why: str) -> None:
        self._words[stats.W_LOOKUPS_FAILED] += 1
        if name.failure is None:  # once, not every few seconds while it goes on
            kept = list(name.addresses)
            self._tell("name not resolved", {"name": name.host, "error": why, "kept": kept})
        name.failure = why
        name.due = self._clock.monotonic() + FAILED_AGAIN_S * random.uniform(0.9, 1.1)


def _in_words(address: Any) -> str:
    """The host of a socket address; a link-local one is nothing without its scope."""
    host, scope = str(address[0]), address[3] if len(address) > 2 else 0
    return f"{host}%{scope}" if scope and "%" not in host else host
