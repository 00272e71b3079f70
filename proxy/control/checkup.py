"""When endpoints are checked: one bounded task for each, jittered, at once where somebody waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any

import structlog

from proxy.control.declared import check_settings
from proxy.control.health import HealthBook, Key
from proxy.control.prober import CheckSettings, Prober
from proxy.control.refusal import Refusal
from proxy.control.setup import Setup
from proxy.control.snapshot import pool_tls
from proxy.control.store import Store
from proxy.tasks import spawn

MOST_CHECKS = 256
"""In flight at once, over all services; further ones wait for their turn."""
JITTER = 0.2
"""The part of the interval by which a check may come earlier."""
FIRST_S = 0.1
"""A first pass is waited for: a new endpoint is asked again after this, then after twice as long."""
GRACE_S = 0.5
"""Beyond the checks' own timeout, for those who wait for a result."""
MOST_WAIT_S = 10.0
"""However long that timeout: a start and a switch wait no longer for anybody."""
SAVE_S = 1.0
"""Changes are stored together, at most this often."""

log = structlog.get_logger("turnout.control")


class _Round:
    """The checks of one endpoint."""

    def __init__(self, settings: CheckSettings) -> None:
        self.settings = settings
        self.turn = asyncio.Lock()
        self.began = 0.0
        """When the last check began, by the loop's clock."""
        self.results = 0
        self.has_result = asyncio.Event()
        self.woken = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Checkup:
    """Checks what is listed, and keeps the verdicts in the store."""

    def __init__(self, book: HealthBook, prober: Prober, store: Store, rng: random.Random) -> None:
        # Fixed.
        self.book = book
        self._prober = prober
        self._store = store
        self._rng = rng
        self._slots = asyncio.Semaphore(MOST_CHECKS)
        # Changes.
        self.in_flight = 0
        self._rounds: dict[Key, _Round] = {}
        self._unsaved = asyncio.Event()
        self._saving: asyncio.Task[None] | None = None

    def follow(self, setup: Setup) -> None:
        """Take over what is listed now, before any worker hears of it."""
        listed = _listed(setup)
        self.book.follow(listed)
        for key in [key for key in self._rounds if listed.get(key) is None]:
            self._end(self._rounds.pop(key))
        for key, settings in listed.items():
            if settings is not None:
                self._check_from_now_on(key, settings)
        self._save_soon()

    async def first_round(self) -> None:
        """Wait until every endpoint without a verdict has been checked once, as long as that may take."""
        waiting = {key: each for key, each in self._rounds.items() if self._is_new(key)}
        await _bounded(waiting.values(), (each.has_result.wait() for each in waiting.values()))
        self.book.is_starting = False

    async def ask_again(self, service: str, pool: str) -> None:
        """Check at once those endpoints of the pool that are not up, unless that was just done."""
        now = asyncio.get_running_loop().time()
        asked = {
            key: each
            for key, each in self._rounds.items()
            if key[:2] == (service, pool) and self.book[key].health.verdict != "up"
        }
        await _bounded(
            asked.values(), (self._check(key, each, after=now) for key, each in asked.items())
        )

    async def stop(self) -> None:
        """End all checks, and store what is not stored yet."""
        tasks = [each.task for each in self._rounds.values() if each.task]
        tasks += [self._saving] if self._saving else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._prober.close()
        if self.book.has_unsaved:
            with suppress(Refusal):
                await self._save()

    # ---- one endpoint ----

    def _check_from_now_on(self, key: Key, settings: CheckSettings) -> None:
        known = self._rounds.get(key)
        if known is None:
            known = self._rounds[key] = _Round(settings)
            name = f"checks of {key[2]}"
            known.task = spawn(self._run(key, known), name=name, report=_report)
        elif known.settings != settings:
            known.settings = settings
            known.woken.set()

    def _end(self, round_: _Round) -> None:
        if round_.task is not None:
            round_.task.cancel()

    async def _run(self, key: Key, each: _Round) -> None:
        if not self._is_new(key):
            await _pause(each, each.settings.interval_s * self._rng.random())
        while True:
            try:
                await self._check(key, each)
            except Exception:
                log.exception("check_failed", service=key[0], pool=key[1], endpoint=key[2])
            await _pause(each, self._until_next(key, each))

    async def _check(self, key: Key, each: _Round, *, after: float | None = None) -> None:
        """Check once; not at all if a check has begun `after` that time meanwhile."""
        async with each.turn:
            if after is not None and each.began > after:
                return
            async with self._slots:
                each.began = asyncio.get_running_loop().time()
                self.in_flight += 1
                settings = each.settings
                try:
                    result = await self._prober.check(key[2], settings)
                finally:
                    self.in_flight -= 1
            if settings is each.settings and self._rounds.get(key) is each:
                self.book.note(key, result)
                each.results += 1
                each.has_result.set()
                self._save_soon()

    def _until_next(self, key: Key, each: _Round) -> float:
        interval = each.settings.interval_s
        if self._is_new(key):
            interval = min(interval, FIRST_S * 2.0 ** min(each.results - 1, 16))
        elapsed = asyncio.get_running_loop().time() - each.began
        return interval * (1.0 - JITTER * self._rng.random()) - elapsed

    def _is_new(self, key: Key) -> bool:
        return self.book[key].health.verdict == "unchecked"

    # ---- the store ----

    def _save_soon(self) -> None:
        if self.book.has_unsaved:
            self._unsaved.set()
            if self._saving is None:
                self._saving = spawn(self._keep_saving(), name="health to store", report=_report)

    async def _keep_saving(self) -> None:
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            try:
                await self._save()
            except Refusal as refusal:
                log.warning("health_not_stored", detail=refusal.detail)
                self._unsaved.set()
            await asyncio.sleep(SAVE_S)

    async def _save(self) -> None:
        unsaved = self.book.take_unsaved()
        try:
            await self._store.write_health(unsaved)
        except BaseException:
            self.book.not_saved(iter(unsaved))
            raise


def _listed(setup: Setup) -> Mapping[Key, CheckSettings | None]:
    """Every endpoint that belongs to a service now, with how it is checked."""
    listed: dict[Key, CheckSettings | None] = {}
    for name, state in setup.states.items():
        service, files = setup.services[name], setup.loaded.files
        settings = {
            pool: check_settings(service, pool_tls(service, state, pool, files))
            for pool in state.pools
        }
        for pool, address in state.listed():
            listed[name, pool, address] = settings[pool]
    return listed


async def _bounded(rounds: Iterable[_Round], waits: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Wait for all of `waits`, no longer than the checks may take."""
    longest = max((each.settings.timeout_s for each in rounds), default=0.0)
    with suppress(TimeoutError):
        async with asyncio.timeout(min(longest + GRACE_S, MOST_WAIT_S)):
            await asyncio.gather(*waits)


async def _pause(each: _Round, seconds: float) -> None:
    """Wait, unless the settings change meanwhile."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await each.woken.wait()
    each.woken.clear()


def _report(name: str, error: BaseException) -> None:
    log.error("task_failed", task=name, exc_info=error)
