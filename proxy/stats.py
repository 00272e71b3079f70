"""Counters in shared memory: their layout, the writer's view and the reader's sums.

Every worker process owns one block of memory (64-bit integers) and is its only
writer; the supervisor maps all of them and only reads. Counters are cumulative
and a dead worker's last values stay in the sums, so that a sum never falls.
Gauges (in flight, idle, open) die with their worker.

The supervisor deals out the slots: a slot is the index of the first integer of
an area. An area belongs to its key for good, so an endpoint that comes back goes
on counting where it left off.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Hashable, Iterable, Iterator

BLOCK_WORDS = 2_000_000
"""64-bit words of one worker's memory; it is sparse, only what is touched costs anything."""

# ---- latency histogram (8 bins an octave from 1 ms; the last bin takes the rest) ----

BINS = 128
BINS_PER_OCTAVE = 8
FIRST_EDGE_S = 0.001


def latency_bin(seconds: float) -> int:
    """Index of the bin of a latency in seconds: bin 0 is up to 1 ms, the last is open."""
    if seconds <= FIRST_EDGE_S:
        return 0
    return min(BINS - 1, 1 + int(BINS_PER_OCTAVE * math.log2(seconds * 1000.0)))


def bin_upper_edge_s(index: int) -> float:
    """Upper edge in seconds of a bin; the last bin's true edge is infinity."""
    return float(FIRST_EDGE_S * 2.0 ** (index / BINS_PER_OCTAVE))


# ---- classes of exchanges in flight ----

REQUEST, STREAM, TUNNEL = 0, 1, 2
CLASSES = ("request", "stream", "tunnel")

# ---- kinds of upstream failures: the metric's label `kind`, in the order of the words ----

FAILURE_KINDS = ("connect", "timeout", "reset", "truncated", "protocol")

# ---- a pool's area ----

P_ANSWERS = 0
"""Six words by first digit of the status, 1xx at +1 to 5xx at +5; a client that left before its
answer is a 499, and so a 4xx. +0 stays 0."""
P_FAILURES = 6
"""One word for each of FAILURE_KINDS."""
P_IN_FLIGHT = P_FAILURES + len(FAILURE_KINDS)
"""Gauges, one for each of CLASSES."""
P_CUT = P_IN_FLIGHT + len(CLASSES)
"""Exchanges cut at a drain's deadline, one for each of CLASSES."""
P_PASSED_OVER = P_CUT + len(CLASSES)
"""Endpoints passed over because they could not be connected to, with nothing sent."""
P_STALE = P_PASSED_OVER + 1
"""Requests sent again because a kept connection had died before a byte came back."""
P_BYTES_IN = P_STALE + 1
P_BYTES_OUT = P_BYTES_IN + 1
P_DURATION_US = P_BYTES_OUT + 1
"""Sum of the whole durations in microseconds."""
P_DURATION_BINS = P_DURATION_US + 1
POOL_WORDS = P_DURATION_BINS + BINS

# ---- an endpoint's area ----

E_REQUESTS = 0
E_FAILURES = 1
E_IN_FLIGHT = 2
"""Gauge."""
E_IDLE = 3
"""Gauge: kept connections waiting for work."""
E_OPEN = 4
"""Gauge: all open connections."""
E_UNREACHABLE_MS = 5
"""Monotonic milliseconds until which this worker passes the endpoint over; 0 = reachable."""
ENDPOINT_WORDS = 8

# ---- a listener's area ----

L_ACCEPTED = 0
L_REFUSED = 1
"""Closed at once because of max_connections."""
L_ACTIVE = 2
"""Gauges, set at every sweep: with an exchange, waiting for a request, tunnelling."""
L_IDLE = 3
L_TUNNEL = 4
L_BAD_REQUESTS = 5
"""Requests refused before they had a service: malformed, too large, too slow, no route."""
LISTENER_WORDS = 8

# ---- a worker's own area, at index 0 ----

W_HEARTBEAT_MS = 0
"""Monotonic milliseconds of the last sweep."""
W_REVISION = 1
W_LOG_WRITTEN = 2
W_LOG_DROPPED = 3
WORKER_WORDS = 16


class CounterBlock:
    """One worker's memory: `words[slot + P_STALE] += 1`."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, BLOCK_WORDS * 8)
        self.words: memoryview = memoryview(self._map).cast("q")

    def close(self) -> None:
        self.words.release()
        self._map.close()


class SlotTable:
    """Deals out areas by key (pure; lives in the control plane, which is the only dealer).

    Keys are any hashable values, for instance ("pool", service, pool).
    """

    def __init__(self) -> None:
        self._next = WORKER_WORDS
        self._slots: dict[Hashable, int] = {}

    def slot(self, key: Hashable, words: int) -> int:
        """Return the area of `key`, dealt now if it has none; MemoryError when all is dealt."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = self._deal(words)
        return slot

    def keys(self) -> Iterator[Hashable]:
        return iter(self._slots)

    @property
    def dealt(self) -> int:
        """Index of the first word that no area has."""
        return self._next

    def _deal(self, words: int) -> int:
        slot = self._next
        if slot + words > BLOCK_WORDS:
            raise MemoryError("too many pools and endpoints: the counters' memory is full")
        self._next = slot + words
        return slot


class Totals:
    """The reader's sums over all workers, the dead ones included."""

    def __init__(self) -> None:
        self._live: dict[Hashable, memoryview] = {}
        self._dead: dict[int, int] = {}

    def add(self, worker: Hashable, words: memoryview) -> None:
        self._live[worker] = words

    def retire(self, worker: Hashable, dealt: int = BLOCK_WORDS) -> None:
        """Keep what the worker counted below index `dealt`, and forget its memory."""
        words = self._live.pop(worker, None)
        if words is None:
            return
        step = 4096
        for start in range(0, dealt, step):
            for index, value in enumerate(words[start : start + step].tolist(), start):
                if value:
                    self._dead[index] = self._dead.get(index, 0) + value

    def counter(self, index: int) -> int:
        """Sum over all workers that ever lived."""
        dead = self._dead.get(index, 0)
        return dead + sum(int(words[index]) for words in self._live.values())

    def counters(self, index: int, count: int) -> list[int]:
        """Sums of `count` consecutive counters."""
        return [self.counter(i) for i in range(index, index + count)]

    def gauge(self, index: int) -> int:
        """Sum over the workers that live."""
        return sum(int(words[index]) for words in self._live.values())

    def gauges(self, index: int, count: int) -> list[int]:
        return [self.gauge(i) for i in range(index, index + count)]

    def each(self, index: int) -> dict[Hashable, int]:
        """Return the value of every living worker by its name."""
        return {worker: int(words[index]) for worker, words in self._live.items()}

    def workers(self) -> Iterable[Hashable]:
        return self._live.keys()
