"""The dealer of shares: what it reads from the workers' counters, and writes on the board."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proxy import stats
from proxy.control.shares import Shares
from proxy.model import WHOLE, Endpoint, Limits, Pool, Service, Snapshot
from proxy.policy.adaptive import INITIAL
from proxy.stats import Board, Totals

if TYPE_CHECKING:
    from tests.control.conftest import World

SHOP, BLUE, FIRST, WORDS = 20, 100, 400, 1000


class Bench:
    """Two workers as arrays of words, a board, and a service whose limits the test names."""

    def __init__(self) -> None:
        self.totals = Totals()
        self.words = [memoryview(bytearray(WORDS * 8)).cast("q") for _ in range(2)]
        for place, words in enumerate(self.words):
            self.totals.add((place, 1), words, place)
        self.board = Board(memoryview(bytearray(WORDS * 8)).cast("q"), 2)
        self.shares = Shares(self.totals, self.board)
        self.now = 1000.0

    def serve(self, limits: Limits) -> Pool:
        pool = Pool(
            name="blue",
            weight=WHOLE,
            slot=BLUE,
            endpoints=(Endpoint(address="a:1", slot=FIRST), Endpoint(address="b:1", slot=420)),
        )
        shop = Service(
            name="shop", routes=(), pools=(pool,), active="blue", slot=SHOP, limits=limits
        )
        self.shares.prepare(Snapshot(revision=1, services=(shop,)))
        return pool

    def beat(self, count: int = 1) -> None:
        for _ in range(count):
            self.now += 0.1
            self.shares.beat(self.now)

    def dealt(self, slot: int, lot: int) -> list[int]:
        return [self.board.words[stats.share_index(slot, lot, 2, worker)] for worker in (0, 1)]

    def connections(self) -> list[int]:
        return self.dealt(FIRST, stats.LOT_CONNECTIONS)

    def replace(self, place: int) -> memoryview:
        """The worker dies, and another one takes its place."""
        self.totals.retire((place, 1), WORDS)
        self.beat()
        self.words[place] = memoryview(bytearray(WORDS * 8)).cast("q")
        self.totals.add((place, 2), self.words[place], place)
        return self.words[place]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_every_limit_has_its_shares_before_the_first_beat(bench: Bench) -> None:
    bench.serve(Limits(connections=10, rate=50, concurrency=7, adaptive=True))
    assert bench.connections() == bench.dealt(420, stats.LOT_CONNECTIONS) == [5, 5]
    assert bench.dealt(SHOP, stats.LOT_RATE) == [25, 25]
    assert sum(bench.dealt(SHOP, stats.LOT_CONCURRENCY)) == 7
    assert sum(bench.dealt(BLUE, stats.LOT_POOL_CONCURRENCY)) == 20, "as the connections allow"


def test_without_limits_nothing_is_dealt(bench: Bench) -> None:
    bench.serve(Limits())
    bench.beat(5)
    assert not any(bench.board.words)


def test_connections_go_where_requests_wait_once_they_are_given_back(bench: Bench) -> None:
    bench.serve(Limits(connections=2))
    assert bench.connections() == [1, 1]
    first, second = bench.words
    first[FIRST + stats.E_OPEN] = first[FIRST + stats.E_IDLE] = 1
    second[FIRST + stats.E_OPEN] = 1
    second[FIRST + stats.E_PENDING] = 3
    bench.beat()
    assert bench.connections() == [0, 1], "the first one has still to close what rests"
    bench.beat()
    assert bench.connections() == [0, 1]
    first[FIRST + stats.E_OPEN] = first[FIRST + stats.E_IDLE] = 0
    bench.beat()
    assert bench.connections() == [0, 2]


def test_a_worker_that_died_gives_its_share_back_and_its_successor_gets_one(
    bench: Bench,
) -> None:
    bench.serve(Limits(connections=4, concurrency=4))
    bench.words[0][FIRST + stats.E_OPEN] = 4
    bench.beat(3)
    bench.words[1][FIRST + stats.E_PENDING] = 4
    bench.replace(0)
    bench.beat(3)
    assert bench.connections() == [0, 4]
    bench.words[1][FIRST + stats.E_PENDING] = 0
    bench.words[0][FIRST + stats.E_PENDING] = 2
    bench.beat(3)
    assert bench.connections() == [3, 1]


def test_exchanges_at_once_go_where_they_were_refused(bench: Bench) -> None:
    bench.serve(Limits(concurrency=10))
    index = SHOP + stats.S_LIMITED + stats.LIMITS.index("concurrency")
    bench.words[1][SHOP + stats.S_EXCHANGES] = 5
    bench.words[1][index] = 4
    bench.beat(2)
    assert bench.dealt(SHOP, stats.LOT_CONCURRENCY)[1] >= 7
    assert sum(bench.dealt(SHOP, stats.LOT_CONCURRENCY)) == 10


def test_a_limit_that_is_changed_or_lifted_is_dealt_anew(bench: Bench) -> None:
    bench.serve(Limits(connections=10))
    bench.words[0][FIRST + stats.E_OPEN] = 5
    bench.serve(Limits(connections=4))
    assert sum(bench.connections()) <= 4
    bench.serve(Limits())
    bench.serve(Limits(connections=100))
    assert sum(bench.connections()) == 100


def _ask(bench: Bench, worker: int, count: int) -> int:
    """The worker's part of the bargain."""
    words = bench.words[worker]
    granted = bench.dealt(SHOP, stats.LOT_RATE)[worker]
    passed = min(count, max(0, granted - words[SHOP + stats.S_BEGUN]))
    words[SHOP + stats.S_BEGUN] += passed
    words[SHOP + stats.S_LIMITED + stats.LIMITS.index("rate")] += count - passed
    return passed


def test_the_rate_is_had_by_the_worker_that_is_asked(bench: Bench) -> None:
    bench.serve(Limits(rate=50, burst=10))
    passed = 0
    for _ in range(100):
        passed += _ask(bench, 0, 20)
        bench.beat()
    assert passed == pytest.approx(500 + 10, abs=10)


def test_a_worker_that_begins_to_count_again_gets_no_more_of_the_rate(bench: Bench) -> None:
    bench.serve(Limits(rate=50, burst=10))
    for _ in range(100):
        _ask(bench, 0, 20)
        bench.beat()
    bench.replace(0)
    bench.beat()
    passed = 0
    for _ in range(20):
        passed += _ask(bench, 0, 20)
        bench.beat()
    assert passed <= 100 + 10


def test_a_rate_switched_on_again_does_not_grant_what_was_counted_before(bench: Bench) -> None:
    bench.words[0][SHOP + stats.S_BEGUN] = 1_000_000
    bench.serve(Limits(rate=10, burst=10))
    assert bench.dealt(SHOP, stats.LOT_RATE) == [1_000_005, 5]


def _answers(bench: Bench, latency_s: float, in_flight: int) -> None:
    """A second in which the pool answers, by the counters of both workers."""
    for words in bench.words:
        words[BLUE + stats.P_IN_FLIGHT + stats.REQUEST] = in_flight // 2
        words[BLUE + stats.P_DURATION_BINS + stats.latency_bin(latency_s)] += 50
    bench.beat(10)


def test_the_adaptive_limit_follows_the_latency_of_all_workers(bench: Bench) -> None:
    pool = bench.serve(Limits(adaptive=True))
    assert bench.shares.concurrency_limit(pool) == INITIAL
    for _ in range(20):
        _answers(bench, 0.02, 90)
    grown = bench.shares.concurrency_limit(pool)
    assert grown is not None
    assert grown > INITIAL
    assert sum(bench.dealt(BLUE, stats.LOT_POOL_CONCURRENCY)) <= grown
    for _ in range(20):
        _answers(bench, 0.5, grown)
    shrunk = bench.shares.concurrency_limit(pool)
    assert shrunk is not None
    assert shrunk < grown / 2
    bench.serve(Limits())
    assert bench.shares.concurrency_limit(pool) is None


def test_few_answers_say_nothing_of_what_a_pool_can_take(bench: Bench) -> None:
    pool = bench.serve(Limits(adaptive=True))
    for words in bench.words:
        words[BLUE + stats.P_IN_FLIGHT + stats.REQUEST] = 60
        words[BLUE + stats.P_DURATION_BINS + 5] += 2
    bench.beat(50)
    assert bench.shares.concurrency_limit(pool) == INITIAL


async def test_a_snapshot_has_its_shares_before_it_is_applied(world: World) -> None:
    dealt: list[int] = []

    async def look() -> None:
        dealt.append(sum(world.fleet.board.words[:2000].tolist()))

    world.fleet.before_apply = look
    await world.start()
    assert dealt == [3 * 1024], "to three endpoints, as the default has it"


async def test_the_snapshot_carries_the_limits_of_the_file(world: World) -> None:
    limits_of_the_file = (
        "{per_endpoint_connections: 9, per_endpoint_pending: 0, pending_timeout: 2s,"
        " rate: 70, burst: 80, concurrency: 90, adaptive: on}"
    )
    world.edit(("active: blue\n", f"active: blue\n    limits: {limits_of_the_file}\n"))
    await world.start()
    assert world.fleet.snapshot.services[0].limits == Limits(
        connections=9, pending=0, pending_s=2.0, rate=70, burst=80, concurrency=90, adaptive=True
    )
    world.edit(("adaptive: on", "adaptive: off"))
    assert world.controller is not None
    await world.controller.reload(who="test")
    limits = world.fleet.snapshot.services[0].limits
    assert limits == replace(limits, adaptive=False)
