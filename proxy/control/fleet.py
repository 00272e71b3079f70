"""What the control plane asks of the workers; the process layer answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from proxy.model import Snapshot
from proxy.stats import Board, Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """One exchange in flight, as a worker reports it."""

    kind: str
    """One of proxy.stats.CLASSES."""
    age_s: float
    pool: str
    endpoint: str
    route: str
    """Method and path of the request, shortened, without its query."""
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One first attempt on a pool that failed or was refused, as a worker remembers it."""

    request_id: str
    status: int | None
    """Of the endpoint's answer; None when there was none."""
    failure: str | None
    """One of proxy.stats.FAILURE_KINDS; None for an answer of class 5xx or 4xx."""
    endpoint: str
    at: float
    """Monotonic seconds, which all processes of a machine share: ages, each as of its own
    worker's answer, could not be put in one order."""

    @property
    def is_refusal(self) -> bool:
        """Whether it is an answer of class 4xx, which is no failure."""
        return self.failure is None and self.status is not None and self.status < 500


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    slot: int
    pid: int
    revision: int
    up: bool
    started_at: float
    """Wall seconds."""
    restarts: int


class Fleet(Protocol):
    """The workers, seen from the control plane."""

    @property
    def totals(self) -> Totals:
        """Sums of the counters over all workers."""
        ...

    @property
    def board(self) -> Board:
        """What the workers are told in passing."""
        ...

    def check_binds(self, snapshot: Snapshot) -> list[str]:
        """Open the listening sockets that `snapshot` needs and that are not open yet.

        Returns a sentence for each that cannot be opened; nothing is kept open then.
        """
        ...

    def keep_binds(self, snapshot: Snapshot) -> None:
        """Close the listening sockets that `snapshot` does not need: a change was given up."""
        ...

    async def warm(self, service: str, pool: str) -> None:
        """Have every worker open some connections to a pool that is about to get more traffic.

        Returns within a second, whatever becomes of them.
        """
        ...

    async def apply(self, snapshot: Snapshot) -> None:
        """Send the snapshot to every worker; return when every living one has applied it.

        A worker that does not confirm in time is replaced, and its replacement starts
        with this snapshot: when this returns, no worker serves an older one.
        """
        ...

    async def in_flight(self, service: str, pool: str | None, limit: int) -> list[InFlight]:
        """Up to `limit` exchanges in flight, oldest first; workers that do not answer are left out."""
        ...

    async def samples(self, service: str, pool: str, limit: int) -> list[Sample]:
        """Up to `limit` of a pool's last failures, newest first, within a second."""
        ...

    def workers(self) -> list[WorkerState]: ...
