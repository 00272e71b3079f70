"""Until when certificates are valid: for the status, the metrics, and warnings in good time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import structlog

from proxy.clock import Clock
from proxy.control.config.files import CertificateFacts
from proxy.control.config.load import Loaded
from proxy.control.decision import iso_utc

EARLY_S = 14 * 86400.0
"""Before the end a warning is logged, once a day."""
LOOK_S = 3600.0
DAY_S = 86400.0
EVENTS = {
    "expiring": "certificate_expires_soon",
    "expired": "certificate_expired",
    "not_yet_valid": "certificate_not_yet_valid",
}

log = structlog.get_logger("turnout.control")


class Shown(NamedTuple):
    """A certificate that a listener shows; `file` is as the configuration has it."""

    listener: str
    file: str
    facts: CertificateFacts


def shown(loaded: Loaded) -> Iterator[Shown]:
    """Every certificate of every listener."""
    known = loaded.files.certificates
    for listener in loaded.config.listeners:
        for pair in listener.tls.certificates if listener.tls else ():
            if pair.cert in known:
                yield Shown(listener.bind, pair.cert, known[pair.cert])


def state(facts: CertificateFacts, now: float) -> str:
    """`valid`, `expiring`, `expired` or `not_yet_valid`; `now` is wall-clock time."""
    if facts.not_after <= now:
        return "expired"
    if facts.not_before > now:
        return "not_yet_valid"
    return "expiring" if facts.not_after - EARLY_S <= now else "valid"


def view(loaded: Loaded, now: float) -> list[dict[str, Any]]:
    """For the status."""
    return [
        {
            "listener": each.listener,
            "certificate": each.file,
            "names": list(each.facts.names),
            "not_before": iso_utc(each.facts.not_before),
            "not_after": iso_utc(each.facts.not_after),
            "sha256": each.facts.fingerprint,
            "state": state(each.facts, now),
        }
        for each in shown(loaded)
    ]


class ExpiryWatch:
    """Warns of what is about to end, has ended or has not begun, once a day for each."""

    def __init__(self, loaded: Callable[[], Loaded], clock: Clock) -> None:
        self._loaded = loaded
        self._clock = clock
        self._told: dict[tuple[str, str, str], float] = {}

    async def run(self) -> None:
        """Look for ever; ends by being cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        now = self._clock.wall()
        self._told = {key: at for key, at in self._told.items() if now - at < DAY_S}
        for each in shown(self._loaded()):
            found = state(each.facts, now)
            key = each.listener, each.facts.fingerprint, found
            if found == "valid" or key in self._told:
                continue
            self._told[key] = now
            log.warning(
                EVENTS[found],
                listener=each.listener,
                certificate=each.file,
                names=list(each.facts.names),
                not_before=iso_utc(each.facts.not_before),
                not_after=iso_utc(each.facts.not_after),
            )
