"""The one door for change: validates, has it stored, has it applied, and answers.

Every change goes through one lock. It is finished even when its caller goes away, and it
is answered only after every worker has applied it.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import structlog

from proxy import __version__
from proxy.clock import Clock, SystemClock
from proxy.control import drains, expiry, given, hold, verbs, views
from proxy.control.checkup import Checkup
from proxy.control.config import files
from proxy.control.config.load import Loaded, load_file, load_text
from proxy.control.config.problem import ConfigInvalid
from proxy.control.config.schema import Config
from proxy.control.decision import Author, Decision, iso_utc
from proxy.control.drain_view import Subject, find, subjects, undone
from proxy.control.ejections import Ejections
from proxy.control.fleet import Fleet
from proxy.control.health import HealthBook
from proxy.control.hold_shares import HoldShares
from proxy.control.ledger import BindProblems, Ledger
from proxy.control.lookout import Lookout
from proxy.control.percent import hundredths
from proxy.control.probe import Probe, probe_all, probe_connect
from proxy.control.prober import NetworkProber, Prober
from proxy.control.pulse import Pulse
from proxy.control.refusal import Invalid, NotFound, Refusal, Refused, Stale
from proxy.control.reload import (
    Circumstances,
    adopt,
    fixed_keys_changed,
    refilled,
    resume,
    rollout_conflicts,
)
from proxy.control.retry_budgets import RetryBudgets
from proxy.control.rollout.change import (
    check_lockout,
    check_not_back,
    locked_by_hand,
    running_in_words,
)
from proxy.control.rollout.machine import Phase
from proxy.control.rollouts import Rollouts, Steps
from proxy.control.setup import Setup, Step
from proxy.control.shares import Shares
from proxy.control.slots import SlotBook
from proxy.control.state import Change, ServiceState
from proxy.control.store import Store
from proxy.control.upkeep import Upkeep
from proxy.control.watch import ConfigWatch
from proxy.model import WHOLE, Pool, Snapshot
from proxy.stats import SlotTable
from proxy.tasks import spawn

T = TypeVar("T")
View = dict[str, Any]

DRAIN_POLL_S = 0.03

log = structlog.get_logger("turnout.control")


class Controller:
    """What operators, the file and time itself may change; see the brief of each method."""

    def __init__(
        self,
        loaded: Loaded,
        fleet: Fleet,
        slots: SlotTable,
        *,
        environ: Mapping[str, str],
        clock: Clock | None = None,
        rng: random.Random | None = None,
        probe: Probe = probe_connect,
        prober: Prober | None = None,
        watch_file: bool = True,
    ) -> None:
        # Fixed.
        self._environ = environ
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._probe = probe
        self._watch_file = watch_file
        self._fleet = fleet
        self._lock = asyncio.Lock()
        # Changes.
        store = Store(Path(loaded.config.state))
        self._ledger = Ledger(Setup(loaded=loaded), store, fleet, SlotBook(slots), self._clock)
        self.health = HealthBook(fleet.board, self._ledger.book, self._clock)
        self.checkup = Checkup(self.health, prober or NetworkProber(), store, self._rng)
        self._ledger.before_apply.append(self.checkup.follow)
        self.ejections = Ejections(self._ledger, fleet.totals, fleet.board)
        self._lookout = Lookout(self._ledger, fleet, self.health, self.ejections)
        self.rollouts = Rollouts(self._ledger, self._lookout, fleet, self)
        self._lookout.seen = self.rollouts.seen
        self._upkeep = Upkeep(self._ledger, self._lock, self._draw_offset)
        self._pulse = Pulse(fleet.board, self._clock)
        hold_shares = HoldShares(fleet.board, fleet.totals, self._ledger.book)
        self._ledger.before_apply.append(hold_shares.follow)
        self._pulse.add(hold_shares.beat)
        self._pulse.add(self.ejections.beat)
        self._pulse.add(RetryBudgets(fleet.totals, fleet.board, lambda: self.snapshot).beat)
        self._shares = Shares(fleet.totals, fleet.board)
        self._ledger.before_apply.append(lambda _: self._shares.prepare(self._ledger.snapshot))
        self._pulse.add(self._shares.beat)
        self._background: list[asyncio.Task[Any]] = []
        self._secret = ""
        self._started_at = self._clock.wall()
        self._started = self._clock.monotonic()
        self._loaded_at = self._started_at
        self._load_errors: list[str] = []
        self._files = tuple(files.named(self.config))  # watched: those in force, and those meant
        self._expiry = expiry.ExpiryWatch(lambda: self._loaded, self._clock)
        self._is_stopping = False

    # ---- life ----

    async def start(self) -> None:
        """Take up what the store remembers, apply it, and begin to watch file, drains and times.

        Raises Unavailable when the store's directory cannot be used, BindProblems when a
        listener cannot be opened.
        """
        async with self._lock:
            await self._restore()
        self._background.append(spawn(self._upkeep.run(), name="control upkeep", report=_report))
        self._background.append(spawn(self._pulse.run(), name="control pulse", report=_report))
        expiring = self._expiry.run()
        self._background.append(spawn(expiring, name="control expiry", report=_report))
        guard = self.rollouts.clerk.run()
        self._background.append(spawn(guard, name="control guard", report=_report))
        if self._watch_file:
            watch = ConfigWatch(
                Path(self._loaded.path),
                self._loaded.fingerprint,
                lambda: files.fingerprint(self._loaded.path, self._files),
                self._file_changed,
            )
            self._background.append(spawn(watch.run(), name="config watch", report=_report))

    async def stop(self) -> None:
        """Finish the change under way, then let go of the store."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._background.clear()
        async with self._lock:
            await self.checkup.stop()
            await self.rollouts.hooks.close()
            await self._ledger.store.close()

    def begin_shutdown(self) -> None:
        self._is_stopping = True

    # ---- looking ----

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot in force."""
        return self._ledger.snapshot

    def concurrency_limit(self, pool: Pool) -> int | None:
        """What the pool can take, where that is being found."""
        return self._shares.concurrency_limit(pool)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._loaded.config

    def status(self) -> View:
        now = self._ledger.now()
        store = self._ledger.store
        return {
            "version": __version__,
            "started_at": iso_utc(self._started_at),
            "uptime_s": round(now.monotonic - self._started, 3),
            "revision": self._ledger.setup.revision,
            "applied": self._ledger.apply_problem is None,
            "problem": self._ledger.apply_problem,
            "workers": [views.worker_view(each) for each in self._fleet.workers()],
            "config": {
                "path": self._loaded.path,
                "hash": self._loaded.sha256,
                "loaded_at": iso_utc(self._loaded_at),
                "last_error": self._load_errors[0] if self._load_errors else None,
                "last_errors": list(self._load_errors),
            },
            "certificates": expiry.view(self._loaded, now.wall),
            "state": {"path": str(store.path), "problem": store.problem},
            "services": self.services(),
        }

    def certificates(self) -> list[expiry.Shown]:
        """What the listeners show."""
        return list(expiry.shown(self._loaded))

    def config_view(self) -> View:
        return self.config.view()

    def check_text(self, text: str) -> list[str]:
        try:
            load_text(text, "body", self._environ, base=self._loaded.files.base)
        except ConfigInvalid as invalid:
            return [str(problem) for problem in invalid.problems]
        return []

    def services(self) -> list[View]:
        return [self.service(name) for name in self._ledger.setup.states]

    def service(self, name: str) -> View:
        return self._lookout.service(name)

    def etag(self, name: str) -> str:
        return self._lookout.etag(name)

    def decisions(self, service: str | None, since: int, limit: int) -> list[View]:
        """Decisions with an id above `since`, oldest first; without `since` the newest ones."""
        return self._lookout.decisions(service, since, limit)

    def ready(self) -> tuple[bool, list[str]]:
        """Whether traffic may come, and a sentence for each reason why not."""
        reasons = ["shutting down"] if self._is_stopping else []
        reasons += self._lookout.not_ready()
        return not reasons, reasons

    # ---- changing ----

    async def set_weights(
        self,
        name: str,
        weights: Mapping[str, Decimal],
        *,
        who: str,
        reason: str = "",
        ttl_s: float | None = None,
        if_match: str | None = None,
    ) -> View:
        ttl_s = given.ttl_s(ttl_s)
        shares = {pool: hundredths(pool, percent) for pool, percent in weights.items()}

        async def work() -> View:
            state = self._state(name, if_match)
            author = self._author(who, reason)
            until = None if ttl_s is None else author.at + ttl_s
            if state.rolling is not None and state.rolling.phase is not Phase.PROMOTED:
                if until is not None:
                    raise Refused(f"{running_in_words(state.rolling)}; weights for a time only")
                verbs.check_shares(state, shares)
                await self.rollouts.weights(state, shares, author)
                return self.service(name)
            verbs.check_shares(state, shares)
            for pool, share in shares.items():
                if share > state.shares.get(pool, 0):
                    check_lockout(state, pool, author.at)
            change = verbs.set_weights(state, shares, author, until=until)
            change = self.rollouts.weighted(state, change, author)
            await self.warm(state, change)
            await self.commit(name, change)
            return self.service(name)

        return await self.in_turn(work)

    async def switch(
        self,
        name: str,
        to: str,
        *,
        force: bool = False,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View:
        async def work() -> View:
            state = self._state(name, if_match)
            author = self._author(who, reason)
            verbs.check_switch(state, to)
            if state.rolling is not None and state.rolling.phase is not Phase.PROMOTED:
                raise Refused(running_in_words(state.rolling))
            if not force:
                check_lockout(state, to, author.at)
                await self._check_ready(state, to, beside=_other_in_charge(state, to))
            change = verbs.switch(state, to, author, force=force)
            change = self.rollouts.switched(state, change, to, author)
            await self.warm(state, change)
            await self.commit(name, change)
            return self.service(name)

        return await self.in_turn(work)

    async def rollback(
        self,
        name: str,
        *,
        reason: str = "",
        force: bool = False,
        lock: bool = False,
        who: str,
        if_match: str | None = None,
    ) -> View:
        async def work() -> View:
            state = self._state(name, if_match)
            if state.rolling is not None:
                if not force and state.rolling.phase is not Phase.WARMING:
                    await self._check_ready(state, state.rolling.old, beside=None)
                author = self._author(who, reason)
                await self.rollouts.roll_back(state, author, lock=lock, force=force)
                return self.service(name)
            check_not_back(state)
            target = verbs.rollback_target(state)
            if not force:
                await self._check_ready(state, target, beside=None)
            author = self._author(who, reason)
            change = verbs.rollback(state, author, force=force)
            if lock:
                change = locked_by_hand(state, change, author)
            await self.warm(state, change)
            await self.commit(name, change)
            return self.service(name)

        return await self.in_turn(work)

    async def set_pool(
        self,
        name: str,
        pool: str,
        *,
        endpoints: list[tuple[str, int]],
        release: str | None,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View:
        filling = given.filling(endpoints, release)

        async def work() -> View:
            state = self._state(name, if_match)
            author = self._author(who, reason)
            change = verbs.set_pool(state, pool, filling, author)
            change = self.rollouts.filled(state, change, pool, filling, author)
            await self.commit(name, change)
            self.rollouts.clerk.disturbed(name)
            return self.service(name)

        return await self.in_turn(work)

    async def deploy(
        self,
        name: str,
        *,
        endpoints: list[tuple[str, int]],
        release: str | None,
        pool: str | None = None,
        steps: Steps | None = None,
        now: bool = False,
        ready_timeout_s: float = 60.0,
        min_ready: int | None = None,
        force: bool = False,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View:
        """Fill the idle pool with a release, and begin its rollout; the view shows how it goes on."""
        filling = given.filling(endpoints, release)
        limit_s = given.ready_timeout_s(ready_timeout_s)

        async def work() -> View:
            state = self._state(name, if_match)
            plan = self.rollouts.planned(state, steps, now=now, ready_timeout_s=limit_s)
            plan = replace(plan, min_ready=min_ready)
            author = self._author(who, reason)
            await self.rollouts.deploy(state, pool, filling, author, plan, force=force)
            return self.service(name)

        return await self.in_turn(work)

    async def start_rollout(
        self,
        name: str,
        to: str,
        *,
        steps: Steps | None = None,
        ready_timeout_s: float = 60.0,
        force: bool = False,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View:
        limit_s = given.ready_timeout_s(ready_timeout_s)

        async def work() -> View:
            state = self._state(name, if_match)
            plan = self.rollouts.planned(state, steps, now=False, ready_timeout_s=limit_s)
            author = self._author(who, reason)
            await self.rollouts.start(state, to, author, plan, force=force)
            return self.service(name)

        return await self.in_turn(work)

    async def move_rollout(
        self,
        name: str,
        verb: str,
        *,
        force: bool = False,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View:
        """Pause, resume, promote, abort or rejudge what is under way.

        `force` aborts also when the old pool has nothing available.
        """

        async def work() -> View:
            state = self._state(name, if_match)
            await self.rollouts.move(state, verb, self._author(who, reason), force=force)
            return self.service(name)

        return await self.in_turn(work)

    async def unlock(
        self, name: str, *, who: str, reason: str = "", if_match: str | None = None
    ) -> View:
        async def work() -> View:
            state = self._state(name, if_match)
            await self.rollouts.unlock(state, self._author(who, reason))
            return self.service(name)

        return await self.in_turn(work)

    async def drain(
        self,
        name: str,
        pool: str | None,
        endpoint: str | None,
        *,
        undo: bool = False,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View:
        """Drain by hand, or undo it; returns the drain object of what was named."""
        if endpoint is not None and pool is None:
            raise Invalid("pool: name the pool of the endpoint")
        address = None if endpoint is None else given.address("endpoint", endpoint)

        async def work() -> View:
            state = self._state(name, if_match)
            author = self._author(who, reason)
            named = drains.named(state, pool, address)
            if undo:
                await self.commit(name, drains.undo(state, named, address, author))
                return undone(named, address)
            change = drains.drain(state, named, address, self._lookout.rules(name), author)
            if change.decisions:
                await self.commit(name, change)
            state = self._lookout.state(name)
            subject = find(state, named, address)
            assert subject is not None, "it has just been begun, or runs already"
            return await self._lookout.drain_view(state, subject)

        return await self.in_turn(work)

    async def hold(
        self,
        name: str,
        *,
        timeout_s: float,
        most: int,
        ttl_s: float | None = None,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View:
        """Have new requests of the service wait, until `release` or for `ttl_s`."""
        given.hold_limits(timeout_s, most)
        ttl_s = given.ttl_s(ttl_s)

        async def work() -> View:
            state = self._state(name, if_match)
            author = self._author(who, reason)
            until = None if ttl_s is None else author.at + ttl_s
            change = hold.hold(state, author, timeout_s=timeout_s, most=most, until=until)
            await self.commit(name, change)
            return self.service(name)

        return await self.in_turn(work)

    async def release(
        self,
        name: str,
        *,
        over_s: float,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View:
        """Let new requests through at once, and those that wait over `over_s`."""
        over_s = given.over_s(over_s)

        async def work() -> View:
            state = self._state(name, if_match)
            held = self._ledger.gauges.held(name)
            author = self._author(who, reason)
            await self.commit(name, hold.release(state, author, held=held, over_s=over_s))
            return self.service(name)

        return await self.in_turn(work)

    async def drain_status(self, name: str, wait_s: float) -> View | None:
        """The drain object, when all drains are done or `wait_s` are over; None without a drain."""
        state = self._lookout.state(name)
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        last: Subject | None = None
        while True:
            found = subjects(state)
            last = found[0] if found else last
            is_done = all(self._lookout.drain_done(state, each) for each in found)
            if is_done or loop.time() >= until:
                break
            await asyncio.sleep(min(DRAIN_POLL_S, max(0.0, until - loop.time())))
            state = self._ledger.setup.states.get(name, state)
        if is_done and last:
            with suppress(Refusal):  # the record of its end will then be written later
                await self._upkeep.tick()
            state = self._ledger.setup.states.get(name, state)
            last = next(iter(subjects(state)), last)
        return await self._lookout.drain_view(state, last) if last else None

    async def reload(self, *, who: str) -> View:
        """Put the file as it is now in force; an invalid one changes nothing and stays visible.

        Raises Unavailable when the state store does not take it.
        """
        return await self.in_turn(lambda: self._reload(who))

    # ---- how a change is made ----

    async def in_turn(self, work: Callable[[], Awaitable[T]]) -> T:
        """Make one change after the other; a caller who goes away leaves it to be finished."""

        async def alone() -> T:
            async with self._lock:
                return await work()

        task = spawn(alone(), name="control change", report=_report)
        result: T = await asyncio.shield(task)
        return result

    async def commit(self, name: str, change: Change) -> list[View]:
        """Settle a change of one service, and have it stored and applied; gives its records."""
        setup = self._ledger.setup
        after = drains.settle(
            setup.states[name],
            change.state,
            self._lookout.rules(name),
            now=self._ledger.now().wall,
            offset=self._draw_offset(),
        )
        states = {**setup.states, name: after}
        step = Step(setup=replace(setup, states=states), decisions=change.decisions)
        records = await self._ledger.commit(step)
        self._upkeep.wake()
        return records

    async def warm(self, before: ServiceState, change: Change) -> None:
        """Have connections opened to pools that get more; what fails there fails no change."""
        shares = before.shares
        for pool, share in change.state.shares.items():
            if share > shares.get(pool, 0):
                try:
                    await self._fleet.warm(before.name, pool)
                except Exception:
                    log.exception("warm_failed", service=before.name, pool=pool)

    async def problems(self, state: ServiceState, pool: str) -> Mapping[str, str | None]:
        """Why each endpoint of a pool cannot take traffic, asked now; None where it can."""
        if self._ledger.setup.services[state.name].health is not None:
            return self._lookout.problems(state, pool)
        usable = state.usable(pool)
        return await probe_all(self._probe, usable, enough=len(usable), report=_report)

    async def _check_ready(self, state: ServiceState, to: str, *, beside: str | None) -> None:
        """Refuse a pool that cannot take over, by its checks where it has some."""
        if self._ledger.setup.services[state.name].health is not None:
            await self.checkup.ask_again(state.name, to)
            problems = self._lookout.problems(state, to)
            has = None if beside is None else self._lookout.problems(state, beside)
            wanted = None if has is None else sum(each is None for each in has.values())
            verbs.check_ready(state, to, problems, beside=beside, available=wanted)
            return
        problems = await probe_all(
            self._probe,
            state.usable(to),
            enough=verbs.enough_ready(state, beside),
            report=_report,
        )
        verbs.check_ready(state, to, problems, beside=beside)

    async def _restore(self) -> None:
        """Take up the stored layer, the times that ran out meanwhile, and the file as it is now."""
        stored = await self._ledger.open()
        self.health.remember(stored.health)
        self._secret = stored.secret or secrets.token_hex(32)
        around = self._around()
        self._ledger.setup = replace(
            self._ledger.setup,
            states=stored.states,
            rings=stored.rings,
            revision=stored.revision,
        )
        self.rollouts.clerk.remember(stored.guard, stored.states)
        step = resume(self._ledger.setup, around, stored.guard)
        started = Decision(
            what="started",
            who="proxy",
            after={"services": len(step.setup.states), "config": self._loaded.sha256},
            why=self._ledger.store.problem or "started",
        )
        step = replace(step, decisions=(started, *step.decisions))
        await self._ledger.commit(
            step, secret=self._secret, check_binds=True, first=self.checkup.first_round
        )

    async def _reload(self, who: str) -> View:
        try:
            return await self._read_again(who)
        except Refusal:
            raise
        except Exception as error:
            kind = type(error).__name__
            self._not_reloaded(
                who, [f"{self._loaded.path}: could not be applied, a fault of Turnout ({kind})"]
            )
            raise

    async def _read_again(self, who: str) -> View:
        try:
            loaded = await asyncio.to_thread(load_file, self._loaded.path, self._environ)
        except ConfigInvalid as invalid:
            self._files = (*invalid.names, *files.named(self.config))
            return self._not_reloaded(who, [str(problem) for problem in invalid.problems])
        if fixed := fixed_keys_changed(self.config, loaded.config):
            return self._not_reloaded(who, [f"{loaded.path}: {each}" for each in fixed])
        setup = self._ledger.setup
        if conflicts := rollout_conflicts(setup.states, loaded.config):
            return self._not_reloaded(who, [f"{loaded.path}: {each}" for each in conflicts])
        step = adopt(setup, loaded, self._around())
        records: list[View] = []
        if step.decisions or (step.setup.states, step.setup.rings) != (setup.states, setup.rings):
            try:
                records = await self._ledger.commit(step, check_binds=True)
            except BindProblems as problems:
                return self._not_reloaded(who, problems.sentences)
            except Refusal as refusal:
                self._not_reloaded(who, [refusal.detail])
                raise
        else:
            self._ledger.note_loaded(step)
        for name in refilled(setup.states, step.setup.states):
            self.rollouts.clerk.disturbed(name)
        self._files = tuple(files.named(loaded.config))
        self._loaded_at = self._clock.wall()
        self._load_errors = []
        self._upkeep.wake()
        self._expiry.look()
        log.info("reloaded", who=who, hash=loaded.sha256, changes=len(records))
        return self._reload_view(applied=True, changes=views.changes_in_words(records))

    def _not_reloaded(self, who: str, errors: list[str]) -> View:
        self._load_errors = errors
        log.error("reload_failed", who=who, errors=errors)
        return self._reload_view(applied=False, errors=errors)

    def _reload_view(
        self, *, applied: bool, errors: list[str] | None = None, changes: list[str] | None = None
    ) -> View:
        return {
            "applied": applied,
            "revision": self._ledger.setup.revision,
            "hash": self._loaded.sha256,
            "errors": errors or [],
            "changes": changes or [],
        }

    async def _file_changed(self, found: str) -> str | None:
        try:
            view = await self.reload(who="file")
        except Refusal:
            return None  # it is logged and visible; the watch asks again later
        except Exception:  # noqa: BLE001 - logged and visible as well; the watch must not end of it
            return found
        return self._loaded.fingerprint if view["applied"] else found

    # ---- small questions ----

    @property
    def _loaded(self) -> Loaded:
        return self._ledger.setup.loaded

    def _state(self, name: str, if_match: str | None) -> ServiceState:
        """Return the state of a service that may be changed."""
        state = self._lookout.state(name)
        if state.is_removed:
            raise NotFound(f"{name} was removed from the file and is leaving")
        if if_match is not None and not _matches(if_match, self.etag(name)):
            raise Stale(f"{name} has changed meanwhile; it is at {self.etag(name)} now")
        return state

    def _author(self, who: str, reason: str) -> Author:
        return Author(who=who, reason=reason, at=self._ledger.now().wall)

    def _around(self) -> Circumstances:
        return Circumstances(
            now=self._ledger.now().wall, draw_offset=self._draw_offset, secret=self._secret
        )

    def _draw_offset(self) -> int:
        return self._rng.randrange(WHOLE)


def _report(name: str, error: BaseException) -> None:
    if not isinstance(error, Refusal):
        log.error("task_failed", task=name, exc_info=error)


def _other_in_charge(state: ServiceState, to: str) -> str | None:
    return state.in_charge if state.in_charge != to else None


def _matches(if_match: str, etag: str) -> bool:
    given = [each.strip() for each in if_match.split(",")]
    return "*" in given or etag in given
