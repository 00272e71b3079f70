"""Makes changes durable and true: store, swap, apply, in this order, and remembers them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from proxy.clock import Clock
from proxy.control import snapshot as snapshots
from proxy.control.drain_view import subjects
from proxy.control.fleet import Fleet
from proxy.control.gauges import FleetGauges
from proxy.control.refusal import Refused
from proxy.control.setup import Setup, Step
from proxy.control.slots import SlotBook
from proxy.control.snapshot import Moment
from proxy.control.state import ServiceState
from proxy.control.store import KEPT_DECISIONS, Record, Store, Stored, Write
from proxy.control.tickets import TicketSecret
from proxy.model import Snapshot

APPLY_S = 60.0
"""The fleet bounds itself; this is for the day it does not."""

log = structlog.get_logger("turnout.control")


class BindProblems(Exception):  # noqa: N818  (a refusal of the system, not of ours)
    """Listening sockets that cannot be opened; nothing has changed."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("; ".join(sentences))
        self.sentences = sentences


class Ledger:
    """What is in force, and the only way to change it. Its user makes one change at a time."""

    def __init__(
        self, setup: Setup, store: Store, fleet: Fleet, book: SlotBook, clock: Clock
    ) -> None:
        # Fixed.
        self.fleet = fleet
        self.book = book
        self.store = store
        self.gauges = FleetGauges(fleet.totals, book)
        self._clock = clock
        self._tickets = TicketSecret()
        self._start = Moment(monotonic=clock.monotonic(), wall=clock.wall())
        self.before_apply: list[Callable[[Setup], None]] = []
        """Told of what will be in force, when nothing can go wrong any more but before any
        worker hears of it."""
        # Changes with every commit.
        self.setup = setup
        self.snapshot = Snapshot(revision=0)
        self.decisions: deque[Record] = deque(maxlen=KEPT_DECISIONS)
        self.apply_problem: str | None = "nothing has been applied yet"

    def now(self) -> Moment:
        """This moment; its wall clock runs on steadily whatever happens to the machine's."""
        monotonic = self._clock.monotonic()
        elapsed = monotonic - self._start.monotonic
        return Moment(monotonic=monotonic, wall=self._start.wall + elapsed)

    async def open(self) -> Stored:
        """Open the store and take over its decisions; what else it has is the caller's to use."""
        stored = await self.store.open()
        if self.store.problem:
            log.error("state_store_damaged", problem=self.store.problem)
        self.decisions.extend(stored.decisions)
        return stored

    async def commit(
        self,
        step: Step,
        *,
        secret: str | None = None,
        check_binds: bool = False,
        first: Callable[[], Awaitable[None]] | None = None,
    ) -> list[Record]:
        """Make a step true for good and everywhere; raises before anything has changed, or never.

        `first` is waited for before it is applied.
        Raises Unavailable when the store does not take it, BindProblems when a socket cannot
        be opened, Refused when there are too many endpoints to count for.
        """
        before, after = self.setup, _numbered(self.setup, step)
        snapshot = self._build(after)  # before the store is asked: it may still fail
        if check_binds and (sentences := self.fleet.check_binds(snapshot)):
            raise BindProblems(sentences)
        at = self._clock.wall()
        write = Write(
            revision=after.revision,
            states=_differing(before.states, after.states),
            rings=_differing(before.rings, after.rings),
            secret=secret,
            decisions=[
                each.record(at=at, revision=after.revision, config=after.loaded.sha256)
                for each in step.decisions
            ],
        )
        try:
            records = await self.store.write(write)
        except BaseException:
            self.fleet.keep_binds(self.snapshot)  # nobody will accept on what was just opened
            raise
        self._watch_drains(after.states)
        self.setup, self.snapshot = after, snapshot
        self.decisions.extend(records)
        for record in records:
            log.info("decision", **record)
        for told in self.before_apply:
            told(after)
        if first is not None:
            await first()
        await self.apply()
        return records

    @property
    def until_new_tickets_s(self) -> float | None:
        """Seconds until the secret of session tickets is due to change; None where nobody uses it."""
        if not any(listener.tls for listener in self.snapshot.listeners):
            return None
        return self._tickets.left_s(self._clock.monotonic())

    async def change_tickets(self) -> None:
        """Give the workers the secret that is due."""
        self.snapshot = self._build(self.setup)
        await self.apply()

    async def apply(self) -> None:
        """Have every worker apply the snapshot in force; what goes wrong stays visible."""
        try:
            async with asyncio.timeout(APPLY_S):
                await self.fleet.apply(self.snapshot)
        except Exception as error:
            detail = str(error) or type(error).__name__
            self.apply_problem = f"revision {self.snapshot.revision} is not applied: {detail}"
            log.exception("apply_failed", revision=self.snapshot.revision)
        else:
            self.apply_problem = None

    def note_loaded(self, step: Step) -> None:
        """Take over a file that says the same in other words: nothing to store or apply."""
        self.setup = replace(step.setup, revision=self.setup.revision)

    def _build(self, setup: Setup) -> Snapshot:
        try:
            return snapshots.build(
                setup.loaded.config,
                setup.services,
                setup.states,
                setup.rings,
                self.book,
                files=setup.loaded.files,
                ticket_secret=self._tickets.current(self._clock.monotonic()),
                revision=setup.revision,
                now=self.now(),
            )
        except MemoryError as error:
            raise Refused(str(error)) from None

    def _watch_drains(self, states: Mapping[str, ServiceState]) -> None:
        running = {
            (name, each.pool, each.drain.since)
            for name, state in states.items()
            for each in subjects(state)
            if each.drain.is_running
        }
        for key in running:
            self.gauges.watch(*key)
        self.gauges.forget(running)


def _numbered(before: Setup, step: Step) -> Setup:
    """Count the revision up, for the whole and for the services that changed."""
    revision = before.revision + 1
    if step.is_housekeeping:
        return replace(step.setup, revision=revision)
    states = {
        name: replace(state, revision=revision)
        if name in step.touched or state != before.states.get(name)
        else state
        for name, state in step.setup.states.items()
    }
    return replace(step.setup, states=states, revision=revision)


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is new or other, and None for what is gone."""
    gone = dict.fromkeys(name for name in before if name not in after)
    return {name: value for name, value in after.items() if value != before.get(name)} | gone
