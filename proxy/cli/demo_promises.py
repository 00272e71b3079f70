"""What the demo promises, each held against what its client and its watcher saw (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from proxy.cli import words
from proxy.cli.demo_load import Record
from proxy.cli.demo_report import Act, Promise, Trouble, of_release
from proxy.cli.exits import ExitCode

DEGRADED: Final = "baseline degraded"
"""What the judge calls an outage that hurts the active pool too."""


@dataclass(slots=True)
class Seen:
    """What the watcher saw of one rollout, in views a quarter of a second apart."""

    rollout: int | None = None
    turned_back_s: float | None = None
    lockout: str | None = None
    held_from_s: float | None = None
    held_to_s: float | None = None

    def take(self, view: dict[str, Any], now_s: float) -> None:
        rollout, guard = view.get("rollout"), view.get("guard") or {}
        if rollout is None or rollout["id"] == self.rollout:
            return
        if rollout["phase"] == "rolled_back" and self.turned_back_s is None:
            self.turned_back_s = now_s
            self.lockout = (view.get("lockout") or {}).get("release")
        if guard.get("verdict") == "HOLD" and guard.get("reason") == DEGRADED:
            self.held_from_s = self.held_from_s or now_s
            self.held_to_s = now_s

    @property
    def held_s(self) -> float:
        if self.held_from_s is None or self.held_to_s is None:
            return 0.0
        return self.held_to_s - self.held_from_s


def went_through(
    records: Sequence[Record], failed: int, act: Act, release: str, code: int
) -> Promise:
    """A good release: everything is there, and nobody noticed; `failed` got no whole answer."""
    found = [record for record in records if act.has(record)]
    bad = failed + sum(record.is_bad for record in found)
    said = (
        f"{release} was rolled out in {words.duration(act.to_s - act.from_s)}:"
        f" {bad} of {words.count(len(found) + failed, 'request')} failed"
    )
    return Promise(said, code == ExitCode.DONE and not bad and bool(found))


def turned_back(records: Sequence[Record], act: Act, release: str, code: int) -> Promise:
    """A bad release: gone by itself, soon, and few have met it."""
    found = of_release(records, release)
    if not found:
        return Promise(f"{release} was never seen", is_kept=False)
    first_s, last_s = found[0].sent_s, found[-1].sent_s
    asked = sum(first_s <= record.sent_s <= last_s for record in records if act.has(record))
    bad = sum(record.is_bad for record in found)
    said = (
        f"{release} was turned back {last_s - first_s:.1f} s after its first request:"
        f" {words.count(bad, 'bad answer')} among the {words.number(asked)} of that time"
    )
    return Promise(said, code == ExitCode.ROLLED_BACK and bad > 0)


def stays_away(
    records: Sequence[Record], release: str, seen: Seen, told_s: float, again: int
) -> Promise:
    """Nothing reaches it once the command has said so, and it cannot come back by accident."""
    if seen.turned_back_s is None:
        return Promise(f"{release} was never turned back", is_kept=False)
    late = sum(record.sent_s >= told_s for record in of_release(records, release))
    is_locked = seen.lockout == release and again == ExitCode.REFUSED
    locked = "it is locked out" if is_locked else "it is NOT locked out"
    said = f"{words.count(late, 'request')} reached {release} after that; {locked}"
    return Promise(said, not late and is_locked)


def was_held(records: Sequence[Record], outage: Trouble, seen: Seen) -> Promise:
    """An outage of everything: no reason to go on, none to turn back."""
    bad = sum(record.is_bad and outage.explains(record) for record in records)
    turned = "was turned back" if seen.turned_back_s is not None else "not turned back"
    said = (
        f"an outage of {outage.to_s - outage.from_s:.0f} s under both releases"
        f" ({words.count(bad, 'bad answer')}): held for {seen.held_s:.0f} s, {turned}"
    )
    return Promise(said, seen.held_s > 0 and bad > 0 and seen.turned_back_s is None)


def went_on(release: str, code: int) -> Promise:
    """When the outage is over the rollout goes on as if nothing had been."""
    is_kept = code == ExitCode.DONE
    said = f"{release} went on by itself" if is_kept else f"{release} did not go on by itself"
    return Promise(f"{said} when it was over{', and has everything' if is_kept else ''}", is_kept)
