"""The health of every endpoint that is checked: its verdict, its last check, its marks on the board."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import structlog

from proxy.clock import Clock
from proxy.control.decision import iso_utc
from proxy.control.prober import CheckSettings, Result
from proxy.control.slots import SlotBook
from proxy.policy.health import Health, Verdict, checked
from proxy.stats import ASKS_TO_DRAIN, DOWN, UNCHECKED, Board

Key = tuple[str, str, str]
"""Service, pool and address: the same address in two pools is checked for each."""

Plain = Mapping[str, Any]

log = structlog.get_logger("turnout.control")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is known of one endpoint; times are wall seconds."""

    health: Health
    words: str | None = None
    """Of the last check; None before the first one."""
    at: float | None = None
    """When that was."""
    since: float
    """How long the verdict has held."""

    @property
    def last_check_at(self) -> str | None:
        return None if self.at is None else iso_utc(self.at)


Stored = Mapping[str, Mapping[Key, Checked]]
"""By service, for the state store."""


class HealthBook:
    """Follows what is listed, takes results in, and tells the workers by the board."""

    def __init__(self, board: Board, slots: SlotBook, clock: Clock) -> None:
        # Fixed.
        self._board = board
        self._slots = slots
        self._clock = clock
        # Changes.
        self.is_starting = True
        """Until the first snapshot is applied: what is up then has been up all along."""
        self.counts: dict[tuple[str, str], list[int]] = {}
        """Checks passed and failed by service and pool, since the start."""
        self._settings: dict[Key, CheckSettings | None] = {}
        self._known: dict[Key, Checked] = {}
        self._stored: dict[Key, Checked] = {}
        self._unsaved: set[str] = set()

    def __getitem__(self, key: Key) -> Checked:
        return self._known[key]

    def get(self, key: Key) -> Checked | None:
        return self._known.get(key)

    def settings(self, key: Key) -> CheckSettings | None:
        """How the endpoint is checked now; None when it is not, or not listed any more."""
        return self._settings.get(key)

    def remember(self, stored: Stored) -> None:
        """Take over what was known when the proxy last ran."""
        self._stored = {key: each for known in stored.values() for key, each in known.items()}
        self._unsaved = set(stored)  # what is no longer listed must go from the store

    def follow(self, listed: Mapping[Key, CheckSettings | None]) -> None:
        """Take over what is listed now, before any worker hears of it."""
        for key in [key for key in self._known if listed.get(key) is None]:
            self._drop(key)
        for key, settings in listed.items():
            if settings is not None and key not in self._known:
                self._begin(key)
            elif settings is None and key not in self._settings:
                self._set_since(key)
        for key, settings in listed.items():
            if settings is not None and settings != self._settings.get(key, settings):
                # Other questions: answers to the old ones are no longer in a row with theirs.
                known = self._known[key]
                self._known[key] = replace(known, health=replace(known.health, against=0))
        self._settings = dict(listed)
        self._stored = {}
        self._board.publish()

    def note(self, key: Key, result: Result) -> None:
        """Take in the result of one check."""
        settings = self._settings.get(key)
        if settings is None:
            return  # it has left meanwhile
        self.counts.setdefault(key[:2], [0, 0])[0 if result.outcome.is_pass else 1] += 1
        now, before = self._clock.wall(), self._known[key]
        health = checked(before.health, result.outcome, settings.limits)
        since = before.since if health.verdict == before.health.verdict else now
        self._known[key] = Checked(health=health, words=result.words, at=now, since=since)
        if _told(health) != _told(before.health):
            self._mark(key, health)
            if not _bits(health):
                self._set_since(key)
            self._board.publish()
            self._unsaved.add(key[0])
        _log(key, before, self._known[key])

    def take_unsaved(self) -> dict[str, dict[Key, Checked] | None]:
        """What the store must learn, service by service; None for one without any checks."""
        services, self._unsaved = self._unsaved, set()
        return {service: dict(self._of(service)) or None for service in services}

    def not_saved(self, services: Iterator[str]) -> None:
        """The store did not take it: once more, later."""
        self._unsaved.update(services)

    @property
    def has_unsaved(self) -> bool:
        return bool(self._unsaved)

    def _of(self, service: str) -> Iterator[tuple[Key, Checked]]:
        return ((key, known) for key, known in self._known.items() if key[0] == service)

    def _begin(self, key: Key) -> None:
        """Start with what is stored; who has served without checks is up until proven down."""
        known = self._stored.get(key)
        if known is None:
            verdict: Verdict = "up" if key in self._settings else "unchecked"
            known = Checked(health=Health(verdict=verdict), since=self._clock.wall())
        self._known[key] = known
        self._mark(key, known.health)
        self._unsaved.add(key[0])

    def _drop(self, key: Key) -> None:
        del self._known[key]
        self._board.mark(self._slot(key), UNCHECKED | DOWN | ASKS_TO_DRAIN, on=False)
        self._unsaved.add(key[0])

    def _mark(self, key: Key, health: Health) -> None:
        slot, bits = self._slot(key), _bits(health)
        for bit in (UNCHECKED, DOWN, ASKS_TO_DRAIN):
            self._board.mark(slot, bit, on=bool(bits & bit))

    def _set_since(self, key: Key) -> None:
        if not self.is_starting:
            self._board.set_since(self._slot(key), self._clock.monotonic())

    def _slot(self, key: Key) -> int:
        return self._slots.endpoint(*key)


def to_plain(known: Mapping[Key, Checked]) -> list[dict[str, Any]]:
    """Return one service's endpoints as JSON values."""
    return [
        {
            "pool": pool,
            "address": address,
            "verdict": each.health.verdict,
            "asks_to_drain": each.health.asks_to_drain,
            "words": each.words,
            "at": each.at,
            "since": each.since,
        }
        for (_, pool, address), each in known.items()
    ]


def from_plain(service: str, plain: Sequence[Plain]) -> dict[Key, Checked]:
    """Read what `to_plain` gave; KeyError, TypeError or ValueError if it did not."""
    return {(service, str(each["pool"]), str(each["address"])): _checked(each) for each in plain}


def _checked(plain: Plain) -> Checked:
    if plain["verdict"] not in get_args(Verdict):
        raise ValueError(f"a verdict {plain['verdict']!r}")
    return Checked(
        health=Health(verdict=plain["verdict"], asks_to_drain=bool(plain["asks_to_drain"])),
        words=None if plain["words"] is None else str(plain["words"]),
        at=None if plain["at"] is None else float(plain["at"]),
        since=float(plain["since"]),
    )


def _told(health: Health) -> tuple[Verdict, bool]:
    return health.verdict, health.asks_to_drain


def _bits(health: Health) -> int:
    bits = {"unchecked": UNCHECKED, "up": 0, "down": DOWN}[health.verdict]
    return bits | (ASKS_TO_DRAIN if health.asks_to_drain else 0)


def _log(key: Key, before: Checked, after: Checked) -> None:
    service, pool, address = key
    said = {"service": service, "pool": pool, "endpoint": address, "last_check": after.words}
    was, now = before.health, after.health
    if now.verdict != was.verdict:
        write = log.info if now.verdict == "up" else log.warning
        write(f"endpoint_{now.verdict}", **said)
    elif now.verdict == "unchecked" and before.words is None:
        log.warning("endpoint_not_up_yet", **said)
    if now.asks_to_drain != was.asks_to_drain:
        log.info("endpoint_asks_to_drain" if now.asks_to_drain else "endpoint_is_back", **said)
