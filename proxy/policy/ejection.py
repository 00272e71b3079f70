"""Which endpoints of a pool are ejected for their outcomes, for how long, and when they come back.

Pure: it is told what every endpoint has done since the last look, and says what follows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import ceil
from typing import NamedTuple

from proxy.model import WHOLE

BUCKETS = 10
"""The window of the failure share moves in so many steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EjectionRules:
    """What the file says; durations in seconds, shares in hundredths of a percent."""

    consecutive_failures: int = 5
    """So many failures without a success between; 0 = this rule is off."""
    failure_share: int = WHOLE // 2
    """So many of the window's requests; 0 = this rule is off."""
    min_requests: int = 20
    """A smaller sample proves nothing."""
    window_s: float = 10.0
    base_time_s: float = 10.0
    max_time_s: float = 300.0
    max_percent: int = 50
    """Of the pool's endpoints at once; rounded down, but one of two or more may always go."""


class Standing(Enum):
    """What is known of an endpoint beside its outcomes."""

    AVAILABLE = "available"
    UNREACHABLE = "unreachable"
    """No worker can connect to it at the moment."""
    OUT = "out"
    """It gets nothing: down, not checked yet, or it asks to be drained."""
    LEAVING = "leaving"
    """On a drain: it is no part of the pool any more."""


class Seen(NamedTuple):
    """One endpoint since the last look, all workers together."""

    good: int = 0
    bad: int = 0
    trips: int = 0
    """How often one worker had `consecutive_failures` in a row."""
    standing: Standing = Standing.AVAILABLE


class Ejected(NamedTuple):
    address: str
    until: float
    time_s: float
    times: int
    """How often it was ejected lately, this time included."""
    why: str


class Readmitted(NamedTuple):
    address: str
    why: str


Event = Ejected | Readmitted


@dataclass(slots=True)
class _Record:
    """What is remembered of one endpoint."""

    run: int = 0
    """Failures without a success between, over all workers."""
    until: float | None = None
    """End of the ejection; None when it is not ejected."""
    times: int = 0
    calm_since: float = 0.0
    is_on_trial: bool = False
    """Readmitted, and no success since."""
    window: deque[list[float]] = field(default_factory=deque)
    """Beginning, good and bad outcomes of each step of the window."""


class PoolEjection:
    """The ejections of one pool. Its user looks some times a second, and obeys.

    A run over all workers is put together from what two looks see. While nobody reports a
    success every failure lengthens the run, whoever saw it. A look that sees both does not know
    their order between workers, so it ends the run, unless one worker alone reports a whole run
    (a trip): the order inside a worker is certain. So an endpoint that always fails is
    ejected after `consecutive_failures` over all workers, and one that fails now and then
    only if one worker has seen the run whole.
    """

    def __init__(self, rules: EjectionRules) -> None:
        self.rules = rules
        self._records: dict[str, _Record] = {}

    @property
    def ejected(self) -> list[str]:
        return [each for each, record in self._records.items() if record.until is not None]

    def observe(self, now: float, seen: Mapping[str, Seen]) -> list[Event]:
        """Take in what every endpoint of the pool has done; what follows, in its order."""
        self._records = {each: self._records.get(each) or _Record() for each in seen}
        events: list[Event] = list(self._over(now))
        for address, each in seen.items():
            self._take(now, self._records[address], each)
        worst_first = sorted(seen, key=lambda address: -self._records[address].run)
        for address in worst_first:  # one after the other: each makes room less for the next
            why = self._reason(address, seen)
            if why and self._may_go(address, seen):
                events += [self._eject(now, address, why)]
        if (spared := self._last_hope(seen)) is not None:
            events.append(self._readmit(now, spared, "nothing else of its pool is available"))
        return events

    def readmit_all(self, now: float, why: str) -> list[Readmitted]:
        """End every ejection."""
        return [self._readmit(now, address, why) for address in self.ejected]

    # ---- taking in ----

    def _take(self, now: float, record: _Record, seen: Seen) -> None:
        if record.until is not None:
            return  # what was in flight, or sent in panic: it has its sentence
        if seen.trips:
            record.run = max(record.run, self.rules.consecutive_failures)
        elif seen.good:
            record.run = 0
        else:
            record.run += seen.bad
        if seen.good:
            record.is_on_trial = False
        self._widen(now, record, seen)
        if record.times and now - record.calm_since >= self.rules.base_time_s:
            record.times -= 1
            record.calm_since = now

    def _widen(self, now: float, record: _Record, seen: Seen) -> None:
        window, length_s = record.window, self.rules.window_s
        while window and now - window[0][0] >= length_s:
            window.popleft()
        if not (seen.good or seen.bad):
            return
        if not window or now - window[-1][0] >= length_s / BUCKETS:
            window.append([now, 0, 0])
        window[-1][1] += seen.good
        window[-1][2] += seen.bad

    # ---- judging ----

    def _reason(self, address: str, seen: Mapping[str, Seen]) -> str:
        """Why the endpoint must go, in words; empty when it may stay. Only a new failure is one."""
        record, rules = self._records[address], self.rules
        if not seen[address].bad or record.until is not None:
            return ""
        if record.is_on_trial and rules.consecutive_failures:
            return "failed again at once after its return"
        if 0 < rules.consecutive_failures <= record.run:
            return f"{record.run} failures in a row"
        return self._share_reason(address)

    def _share_reason(self, address: str) -> str:
        """An endpoint that fails often, and much more often than the others of its pool.

        When all of them fail alike it is the release that is bad: to eject some would only
        put their load on the others.
        """
        rules = self.rules
        total, bad = _sums([self._records[address]])
        if not rules.failure_share or total < rules.min_requests:
            return ""
        if bad * WHOLE < rules.failure_share * total:
            return ""
        others = [
            record
            for other, record in self._records.items()
            if other != address and record.until is None
        ]
        others_total, others_bad = _sums(others)
        if others_bad * total * 2 > bad * others_total:
            return ""
        return f"{bad} of {total} requests failed within {rules.window_s:g} s"

    def _may_go(self, address: str, seen: Mapping[str, Seen]) -> bool:
        if seen[address].standing in {Standing.OUT, Standing.LEAVING}:
            return False  # it gets nothing anyway
        members = [each for each in seen if seen[each].standing is not Standing.LEAVING]
        out = sum(1 for each in members if self._records[each].until is not None)
        most = len(members) * self.rules.max_percent // 100
        if self.rules.max_percent:
            most = max(most, 1)
        return out < most and any(
            other != address
            and seen[other].standing is Standing.AVAILABLE
            and self._records[other].until is None
            for other in members
        )

    def _last_hope(self, seen: Mapping[str, Seen]) -> str | None:
        """The ejected endpoint to take back, when all the others have become unavailable."""
        waiting = {}
        for address, each in seen.items():
            if each.standing is not Standing.AVAILABLE:
                continue
            until = self._records[address].until
            if until is None:
                return None
            waiting[address] = until
        return min(waiting, key=waiting.__getitem__, default=None)

    # ---- acting ----

    def _over(self, now: float) -> Iterable[Readmitted]:
        for address, record in self._records.items():
            if record.until is not None and now >= record.until:
                yield self._readmit(now, address, "its time is over")

    def _eject(self, now: float, address: str, why: str) -> Ejected:
        record, rules = self._records[address], self.rules
        record.times += 1
        time_s = min(rules.base_time_s * record.times, rules.max_time_s)
        if time_s >= rules.max_time_s:  # longer it cannot get, so do not remember more
            record.times = ceil(rules.max_time_s / rules.base_time_s)
        record.until = now + time_s
        record.run = 0
        record.window.clear()
        return Ejected(address, record.until, time_s, record.times, why)

    def _readmit(self, now: float, address: str, why: str) -> Readmitted:
        record = self._records[address]
        record.until = None
        record.calm_since = now
        record.is_on_trial = True
        return Readmitted(address, why)


def _sums(records: Iterable[_Record]) -> tuple[int, int]:
    """All outcomes in the windows, and the bad ones of them."""
    good = bad = 0
    for record in records:
        for _, step_good, step_bad in record.window:
            good += int(step_good)
            bad += int(step_bad)
    return good + bad, bad
