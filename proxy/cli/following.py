"""Following a rollout to its end: what its views come to, and the exit code that says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from proxy.cli import rollout_words, words
from proxy.cli.exits import ExitCode
from proxy.cli.polling import POLL_S, Poll

if TYPE_CHECKING:
    from proxy.cli.session import Session

GRACE_S: Final = 30.0
"""How long after its deadline a drain may still be cutting (the spread of its tunnels)."""

View = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ending:
    code: ExitCode
    sentence: str
    details: tuple[str, ...] = ()


class Teller(Protocol):
    """Who tells of it while it goes on."""

    def update(self, view: View, trouble: str) -> None:
        """Take the service as it is now; `trouble` says why it is not shown anew."""
        ...

    def close(self, view: View) -> None:
        """End the telling; the last view is this one."""
        ...


class Following:
    """Watches one rollout until its pool has everything and the old one is empty, or it failed."""

    def __init__(
        self,
        session: Session,
        view: View,
        *,
        limit_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # fixed
        self._poll = Poll(session.client, clock)
        self._name = str(view["name"])
        self._id = (view.get("rollout") or {}).get("id")
        self._clock = clock
        self._began_at = clock()
        self._limit_at = None if limit_s is None else clock() + limit_s
        # as it goes
        self.view = view
        self._story = Story()
        self._overdue_since: float | None = None

    def until_over(self, teller: Teller) -> Ending:
        from proxy.cli.client import service_path  # noqa: PLC0415 - http.client

        path = service_path(self._name)
        while True:
            teller.update(self.view, self._poll.trouble)
            ending = self._ending() if not self._poll.trouble else None
            ending = ending or self._out_of_time()
            if ending is not None:
                return ending
            time.sleep(POLL_S)
            answer = self._poll.ask(path)
            if answer is not None:
                self.view = answer.value

    def _ending(self) -> Ending | None:
        rollout = self.view.get("rollout")
        if rollout is None or rollout["id"] != self._id:
            return Ending(ExitCode.REFUSED, self._lost(rollout))
        self._story.add(self.view)
        if rollout_words.is_finished(self.view):
            return self._emptied(rollout)
        self._overdue_since = None
        if rollout["phase"] in rollout_words.ENDED:
            return self._failed(rollout)
        return None

    def _lost(self, rollout: View | None) -> str:
        now = f"{rollout_words.title(rollout)} is there now" if rollout else "there is none now"
        return (
            f"{self._name}: rollout {self._id} was not seen to its end, and {now};"
            f" 'turnout decisions {self._name}' tells what became of it"
        )

    # ---- the end of it ----

    def _emptied(self, rollout: View) -> Ending | None:
        """Done when nothing is left in the old pool; given up when its drain does not end."""
        old, drain = rollout["old"], old_drain(self.view)
        if is_empty(drain):
            took = words.duration(self._clock() - self._began_at)
            cut = words.remaining(drain.get("cut") or {})
            release = f" ({rollout['release']})" if rollout.get("release") else ""
            return Ending(
                ExitCode.DONE,
                f"{self._name}: {rollout['candidate']}{release} has everything after {took};"
                f" {old} is empty{f' ({cut} cut at the deadline)' if cut else ''}"
                " and may be stopped.",
            )
        if not self._is_overdue(drain):
            return None
        return Ending(
            ExitCode.TIMED_OUT,
            f"{self._name}: {rollout['candidate']} has everything, but {old} is not empty long"
            f" after its deadline: {words.remaining(drain['remaining'])} left; the drain goes on",
        )

    def _is_overdue(self, drain: View) -> bool:
        now = self._clock()
        if float(drain.get("deadline_s") or 0) > 0:
            self._overdue_since = None
        elif self._overdue_since is None:
            self._overdue_since = now
        return self._overdue_since is not None and now - self._overdue_since >= GRACE_S

    def _failed(self, rollout: View) -> Ending:
        reason = str(rollout.get("reason") or "")
        end = rollout.get("end")
        if end == "not_ready":
            said = f"{self._name}: {rollout['candidate']} was {reason}; nothing has changed"
            return Ending(ExitCode.NOT_READY, said)
        if rollout["phase"] == "rolled_back":
            became = "rolled back"
        else:
            became = "ended" if end == "superseded" else "aborted"
        why = f": {reason}" if reason else ""
        now = words.traffic(self.view["weights"]["in_force"])
        said = f"{self._name}: {became}{self._story.so_far(rollout)}{why}; {now}"
        return Ending(ExitCode.ROLLED_BACK, said, tuple(filter(None, [self._locked()])))

    def _locked(self) -> str:
        locked = self.view.get("lockout")
        if not locked:
            return ""
        return (
            f"{locked['release']} is locked out: deploy another release,"
            f" or say 'turnout unlock {self._name}' first"
        )

    def _out_of_time(self) -> Ending | None:
        if self._limit_at is None or self._clock() < self._limit_at:
            return None
        took = words.duration(self._clock() - self._began_at)
        where = rollout_words.sentence(self.view) if self.view.get("rollout") else "not known"
        return Ending(
            ExitCode.TIMED_OUT,
            f"{self._name}: not done within {took}: {where}; {goes_on(self._name)}",
        )


class Story:
    """What has been seen of a rollout that its last view does not say any more."""

    def __init__(self) -> None:
        self._last = ""

    def add(self, view: View) -> None:
        if view["rollout"]["phase"] in {*rollout_words.ENDED, "warming"}:
            return
        self._last = words.percent(rollout_words.weight(view))

    def so_far(self, rollout: View) -> str:
        """` after 14s at 10 %`: since when, and what the candidate had last."""
        began, ended = (
            words.moment(rollout[key]) if rollout.get(key) else None
            for key in ("began_at", "phase_at")
        )
        took = (
            f" after {words.duration((ended - began).total_seconds())}" if began and ended else ""
        )
        return took + (f" at {self._last}" if self._last else "")


def goes_on(service: str) -> str:
    return f"the rollout goes on ('turnout rollout abort {service}' stops it)"


def old_drain(view: View) -> View:
    """The drain of the pool that was left; counted from the pool where another one is shown."""
    old = view["rollout"]["old"]
    drain = view.get("drain")
    if drain and drain.get("pool") == old and drain.get("endpoint") is None:
        found: View = drain
        return found
    pool = view["pools"].get(old) or {}
    left = {kind: int(count) for kind, count in (pool.get("in_flight") or {}).items()}
    # Its deadline is not shown here; nothing is overdue before the proxy has cut what is left.
    return {"pool": old, "endpoint": None, "remaining": left, "deadline_s": 1.0, "done": True}


def is_empty(drain: View) -> bool:
    """Empty for good: under `on_zero: finish` bound clients may still come until its deadline."""
    return words.is_empty(drain) and bool(drain.get("done", True))
