"""Counters in shared memory: their layout, the writer's view and the reader's sums.

Every worker process owns one block of memory (64-bit integers) and is its only
writer; the supervisor maps all of them and only reads. Counters are cumulative
and a dead worker's last values stay in the sums, so that a sum never falls.
Gauges (in flight, idle, open) die with their worker.

The supervisor deals out the slots: a slot is the index of the first integer of
an area. An area belongs to its key for good, so an endpoint that comes back goes
on counting where it left off.

The board is one more block with the same areas, the other way round: the
supervisor is its only writer and all workers read it.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Hashable, Iterator, Sequence

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
    return min(BINS - 1, 1 + int(BINS_PER_OCTAVE * math.log2(seconds / FIRST_EDGE_S)))


def bin_upper_edge_s(index: int) -> float:
    """Upper edge in seconds of a bin; the last bin's true edge is infinity."""
    return float(FIRST_EDGE_S * 2.0 ** (index / BINS_PER_OCTAVE))


# ---- classes of exchanges in flight ----

REQUEST, STREAM, TUNNEL = 0, 1, 2
CLASSES = ("request", "stream", "tunnel")

# ---- kinds of upstream failures: the metric's label `kind`, in the order of the words ----

FAILURE_KINDS = ("connect", "timeout", "reset", "truncated", "protocol", "unavailable")

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
P_CLOSED = P_CUT + len(CLASSES)
"""Event streams and tunnels that were ended gently at a drain's deadline, by CLASSES as well."""
P_PASSED_OVER = P_CLOSED + len(CLASSES)
"""Endpoints passed over because they could not be connected to, with nothing sent."""
P_STALE = P_PASSED_OVER + 1
"""Requests sent again because a kept connection had died before a byte came back."""
P_PANICKED = P_STALE + 1
"""Requests sent to endpoints that are down or ejected, because nothing else was left."""
P_WENT_ON = P_PANICKED + 1
"""Requests whose first attempt failed here and that were tried again, here or elsewhere."""
P_LATER = P_WENT_ON + 1
"""Of P_ANSWERS: those given to a request that had failed before, here or elsewhere."""
P_LATER_5XX = P_LATER + 1
"""Of these: the 5xx. So of the first attempts made in a pool there were
sum(P_ANSWERS) - P_LATER + P_WENT_ON, and P_ANSWERS[5] - P_LATER_5XX + P_WENT_ON failed."""
P_BYTES_IN = P_LATER_5XX + 1
P_BYTES_OUT = P_BYTES_IN + 1
P_DURATION_US = P_BYTES_OUT + 1
"""Sum of the whole durations in microseconds."""
P_DURATION_BINS = P_DURATION_US + 1
P_LIMITED = P_DURATION_BINS + BINS
"""Requests refused because the pool had as many in flight as it can take."""
P_JUDGED = P_LIMITED + 1
"""What the judge compares: first attempts only, in JUDGED_WORDS words (see J_REQUESTS)."""

JUDGE_BUCKETS = 32
"""Client buckets of the judge: a hash of the client's identity modulo this."""
J_REQUESTS = 0
"""By client bucket, as the next two: attempts that ended in an answer or in the endpoint's failure."""
J_ERRORS = J_REQUESTS + JUDGE_BUCKETS
J_REFUSED = J_ERRORS + JUDGE_BUCKETS
"""Answers of class 4xx."""
J_UNTIMED = J_REFUSED + JUDGE_BUCKETS
"""By client bucket: how many of its requests have no latency, less the latencies that belong to no
request. So the usual request, which has one, costs nothing here; this may fall."""
J_LOG_SUMS = J_UNTIMED + JUDGE_BUCKETS
"""By client bucket: sums of the latencies' bins, which are their logarithms in eighths of an octave,
and of the squares of these."""
J_LOG_SQUARES = J_LOG_SUMS + JUDGE_BUCKETS
J_LATENCIES = J_LOG_SQUARES + JUDGE_BUCKETS
"""Histogram of the time to the answer's head, of attempts that were no errors."""
JUDGED_WORDS = J_LATENCIES + BINS
POOL_WORDS = P_JUDGED + JUDGED_WORDS

# ---- an endpoint's area ----

E_REQUESTS = 0
E_FAILURES = 1
E_IN_FLIGHT = 2
"""Gauge."""
E_IDLE = 3
"""Gauge: kept connections waiting for work."""
E_OPEN = 4
"""Gauge: all open connections, and those being opened."""
E_UNREACHABLE_MS = 5
"""Monotonic milliseconds until which this worker passes the endpoint over; 0 = reachable."""
E_GOOD = 6
"""Outcomes that speak for the endpoint: its answers but the bad ones; brought up to date at every sweep."""
E_BAD = 7
"""Outcomes that speak against it: failures on its side, and answers that say it is not well."""
E_TRIPS = 8
"""How often this worker saw as many bad outcomes in a row as make an ejection."""
E_PENDING = 9
"""Gauge: requests that wait for a connection."""
ENDPOINT_WORDS = 16

# ---- a service's area ----

S_RETRIES = 0
"""Retries begun: what the budget counts."""
S_RETRY_OUTCOMES = 1
"""One word for each of RETRY_OUTCOMES."""
RETRIED, RESCUED, RETRY_FAILED, NO_BUDGET = 0, 1, 2, 3
RETRY_OUTCOMES = ("retried", "rescued", "failed", "no_budget")
"""The pool that had failed answered; the other pool did; the retry failed too; there was none."""

LIMITS = ("rate", "concurrency", "pending", "adaptive")
"""Which limit refused a request: the metric's label `reason`, in the order of the words."""
S_LIMITED = 8
"""Requests refused, one word for each of LIMITS."""
S_BEGUN = S_LIMITED + len(LIMITS)
"""Requests let through; counted only where the service has a rate."""
S_EXCHANGES = S_BEGUN + 1
"""Gauge: exchanges at once; only where the service limits them."""
SERVICE_WORDS = 32

S_HELD = 24
"""Gauges: requests that wait during a hold, and what is kept of their bodies."""
S_HELD_BYTES = 25
S_HELD_ENDS = 26
"""One word for each of HELD_ENDS."""
HELD_RELEASED, HELD_TIMED_OUT, HELD_REFUSED, HELD_CLIENT_GONE = 0, 1, 2, 3
HELD_ENDS = ("released", "timed_out", "refused", "client_gone")

# ---- a listener's area ----

L_ACCEPTED = 0
L_PAUSES = 1
"""How often nothing was accepted for a moment because no descriptor was left."""
L_ACTIVE = 2
"""Gauges, set at every sweep: with an exchange, waiting for a request, tunnelling."""
L_IDLE = 3
L_TUNNEL = 4
L_BAD_REQUESTS = 5
"""Requests refused before they had a service: malformed, too large, too slow, no route."""
L_ENTERING = 6
"""Gauge: connections before their first request, in a PROXY header or a TLS handshake."""
REFUSALS = ("limit", "client_limit", "proxy_protocol", "tls", "gate", "descriptors")
"""Why a connection was refused, in the order of the words: the listener has as many as it may, the
client has; its PROXY header or its handshake failed or was late; others were quicker to get in; the
process has too few descriptors left."""
L_REFUSED = 7
"""Connections refused, one word for each of REFUSALS."""
LISTENER_WORDS = 16

# ---- a worker's own area, at index 0 ----

W_HEARTBEAT_MS = 0
"""Monotonic milliseconds of the last sweep."""
W_REVISION = 1
W_LOG_WRITTEN = 2
W_LOG_DROPPED = 3
W_EVENTS_DROPPED = 4
"""Lines of events that nobody read in time."""
W_LOOKUPS = 5
W_LOOKUPS_FAILED = 6
"""Lookups of endpoints' names."""
WORKER_WORDS = 16


# ---- the board: what the supervisor tells the workers in passing ----

B_VERSION = 0
"""Grows with every change of an endpoint's state: time to look at all of them."""

B_STATE = 0
"""Of an endpoint: the bits below; 0 speaks for it."""
B_SINCE_MS = 1
"""Of an endpoint: monotonic milliseconds since when it gets traffic (again); 0 = for long."""
B_READMITTED_MS = 2
"""Of an endpoint: monotonic milliseconds of the end of its last ejection; 0 = never ejected."""

UNCHECKED = 1
"""It has checks and has not passed the first one yet."""
DOWN = 2
"""By its checks."""
EJECTED = 4
"""By its outcomes."""
ASKS_TO_DRAIN = 8
"""By the answer to its check: nothing new, what is bound to it finishes."""

B_SLOW_MS = 0
"""Of a service that is being judged: who leaves after so long left because it is slow; 0 = not."""
B_STALL_MS = 1
"""And an attempt that is as old without an answer is entered as slow at once."""

FIRST_LOT = 8
"""Here begin the lots of an area: what is dealt to the workers, one word for each of them."""
LOT_CONNECTIONS = 0
"""Of an endpoint: how many connections a worker may have open."""
LOT_POOL_CONCURRENCY = 0
"""Of a pool: how many exchanges a worker may have in flight."""
LOT_RETRIES, LOT_RATE, LOT_CONCURRENCY, LOT_HELD = 0, 1, 2, 3
"""Of a service: retries and requests granted since ever, exchanges and held requests at once."""
ENDPOINT_LOTS, POOL_LOTS, SERVICE_LOTS = 1, 1, 4


class CounterBlock:
    """One process's memory: `words[slot + P_STALE] += 1`."""

    def __init__(self, fd: int, *, is_readonly: bool = False) -> None:
        access = mmap.ACCESS_READ if is_readonly else mmap.ACCESS_WRITE
        self._map = mmap.mmap(fd, BLOCK_WORDS * 8, access=access)
        self.words: memoryview = memoryview(self._map).cast("q")

    def close(self) -> None:
        self.words.release()
        self._map.close()


class Board:
    """The writer's view of the board; there is one, in the supervisor."""

    def __init__(self, words: memoryview, workers: int) -> None:
        self.words = words
        self.workers = workers
        self._has_changed = False

    def state(self, slot: int) -> int:
        """Bits of an endpoint."""
        return int(self.words[slot + B_STATE])

    def mark(self, slot: int, bit: int, *, on: bool) -> bool:
        """Set or clear one bit of an endpoint's state; whether that changed it."""
        before = int(self.words[slot + B_STATE])
        after = before | bit if on else before & ~bit
        if after == before:
            return False
        self.words[slot + B_STATE] = after
        self._has_changed = True
        return True

    def set_since(self, slot: int, monotonic_s: float) -> None:
        self.words[slot + B_SINCE_MS] = int(monotonic_s * 1000.0)
        self._has_changed = True

    def set_readmitted(self, slot: int, monotonic_s: float) -> None:
        self.words[slot + B_READMITTED_MS] = int(monotonic_s * 1000.0)
        self._has_changed = True

    def publish(self) -> None:
        """Have the workers look, if something has changed."""
        if self._has_changed:
            self._has_changed = False
            self.words[B_VERSION] += 1

    def deal(self, slot: int, lot: int, shares: Sequence[int]) -> None:
        """Write each worker's share; they are read when they are needed."""
        start = slot + FIRST_LOT + lot * self.workers
        for worker, share in enumerate(shares):
            self.words[start + worker] = share


def share_index(slot: int, lot: int, workers: int, worker: int) -> int:
    """Where on the board a worker finds its share."""
    return slot + FIRST_LOT + lot * workers + worker


class SlotTable:
    """Deals out areas by key (pure; lives in the control plane, which is the only dealer).

    Keys are any hashable values, for instance ("pool", service, pool).
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
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
        self._slots: dict[Hashable, int] = {}
        self._dead: dict[int, int] = {}

    def add(self, worker: Hashable, words: memoryview, slot: int = 0) -> None:
        """Count with a worker from now on; `slot` is its place among the workers."""
        self._live[worker] = words
        self._slots[worker] = slot

    def retire(self, worker: Hashable, dealt: int = BLOCK_WORDS) -> None:
        """Keep what the worker counted below index `dealt`, and forget its memory."""
        self._slots.pop(worker, None)
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

    def by_slot(self) -> dict[int, memoryview]:
        """Return the memory of the living worker in every slot that has one."""
        return {slot: self._live[worker] for worker, slot in self._slots.items()}

    def slots(self) -> dict[Hashable, int]:
        """Return the place of every living worker by its name."""
        return dict(self._slots)

    def of_slots(self, index: int, workers: int) -> list[int]:
        """Return the living worker's value in every place; nobody has less than nothing."""
        values = [0] * workers
        for worker, words in self._live.items():
            values[self._slots[worker]] += max(0, int(words[index]))
        return values

    def dead(self, index: int, count: int = 1) -> int:
        """Sum of `count` consecutive counters over the workers that are no more."""
        return sum(self._dead.get(i, 0) for i in range(index, index + count))
