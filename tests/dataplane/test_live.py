"""What outlives a snapshot: endpoints by identity, with their counters; the rest is built anew."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from proxy import stats
from proxy.clock import ManualClock
from proxy.dataplane.live import RUN_S, UNREACHABLE_S, Live, PoolLive, split_address
from proxy.dataplane.room import Room
from proxy.model import WHOLE, Drain, Endpoint, Pool, Route, Service, Snapshot, Sticky
from proxy.policy.balance import balancer
from proxy.policy.slow_start import READMIT_S
from proxy.stats import Board
from tests.dataplane.box import Box, until

DRAIN = Drain(since_s=0, requests_by_s=30, streams_by_s=300)
BLUE = Pool(
    name="blue",
    weight=WHOLE,
    slot=100,
    endpoints=(Endpoint(address="a:1", slot=400), Endpoint(address="b:2", slot=420, weight=3)),
)
SHOP = Service(name="shop", routes=(Route(host="shop"),), pools=(BLUE,), active="blue")


@pytest.fixture
def words() -> memoryview:
    return memoryview(bytearray(8 * 1000)).cast("q")


@pytest.fixture
def board() -> Board:
    return Board(memoryview(bytearray(8 * 1000)).cast("q"), 1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(monotonic=1000.0)


@pytest.fixture
def live(words: memoryview, board: Board, clock: ManualClock) -> Live:
    return Live(words, board.words, clock.monotonic)


def snapshot(*services: Service, revision: int = 1) -> Snapshot:
    return Snapshot(revision=revision, services=services)


def with_pool(**changed: object) -> Snapshot:
    pool = replace(BLUE, **changed)  # type: ignore[arg-type]
    return snapshot(replace(SHOP, pools=(pool,)), revision=2)


def test_a_kept_endpoint_is_the_same_with_its_new_settings(live: Live) -> None:
    live.apply(snapshot(SHOP))
    before = live.endpoints()
    before[0].busy = 7
    live.apply(with_pool(endpoints=(Endpoint(address="a:1", slot=400, weight=9),)))
    (after,) = live.endpoints()
    assert after is before[0]
    assert (after.busy, after.weight, after.gone) == (7, 9, False)
    assert before[1].gone


def test_an_endpoint_of_another_pool_or_service_is_another_one(live: Live) -> None:
    other = replace(SHOP, name="other", routes=())
    live.apply(snapshot(SHOP, other))
    assert len({id(e) for e in live.endpoints()}) == 4


def test_the_services_of_a_snapshot_are_found_by_route(live: Live) -> None:
    table = live.apply(snapshot(SHOP))
    found = table.find(b"shop:80", b"/x")
    assert found is not None
    assert found.spec is SHOP
    assert table.find(b"elsewhere", b"/") is None
    assert live.apply(snapshot(revision=2)).find(b"shop", b"/") is None
    assert live.endpoints() == []


def test_sequence_balancer_and_cookie_carry_on_unless_their_settings_change(live: Live) -> None:
    sticky = Sticky(by="cookie", name="t", keys=("00" * 16,))
    shop = replace(SHOP, sticky=sticky, balance="round_robin")
    (first,) = live.apply(snapshot(shop)).services
    (same,) = live.apply(snapshot(shop, revision=2)).services
    assert (same.sequence, same.balancer, same.cookie) == (
        first.sequence,
        first.balancer,
        first.cookie,
    )
    changed = replace(shop, balance="hash", sticky=replace(sticky, max_age_s=1))
    (other,) = live.apply(snapshot(changed, revision=3)).services
    assert other.sequence is first.sequence
    assert other.balancer is not first.balancer
    assert other.cookie is not first.cookie


def test_an_endpoint_on_a_drain_takes_nothing_new_until_it_is_undone(live: Live) -> None:
    live.apply(snapshot(SHOP))
    first, second = live.endpoints()
    drained = replace(BLUE.endpoints[0], drain=DRAIN)
    table = live.apply(with_pool(endpoints=(drained, BLUE.endpoints[1])))
    pool = table.services[0].pools[0]
    assert pool.available(None, 0) == [second]
    assert not first.keeps_connections
    assert first.drained_at > 0
    table = live.apply(snapshot(SHOP, revision=3))
    assert table.services[0].pools[0].available(None, 0) == [first, second]
    assert first.keeps_connections


def test_an_unreachable_endpoint_is_passed_over_for_a_while(live: Live, words: memoryview) -> None:
    pool = live.apply(snapshot(SHOP)).services[0].pools[0]
    first, second = live.endpoints()
    first.failed_to_connect(10.0)
    assert pool.available(None, 10.0) == [second]
    assert pool.untried({second}) == [first]
    assert words[400 + stats.E_UNREACHABLE_MS] == (10 + UNREACHABLE_S) * 1000
    assert words[400 + stats.E_FAILURES] == 1
    assert pool.available(None, 10.0 + UNREACHABLE_S) == [first, second]
    first.connected()
    assert words[400 + stats.E_UNREACHABLE_MS] == 0
    assert not pool.suspects


def test_what_an_endpoint_has_in_flight_is_counted_in_its_own_words(
    live: Live, words: memoryview
) -> None:
    live.apply(snapshot(SHOP))
    first, _ = live.endpoints()
    first.busy, first.taken = 1, 2
    first.publish()
    first.publish()
    assert (first.busy, words[400 + stats.E_IN_FLIGHT], words[400 + stats.E_REQUESTS]) == (1, 1, 2)


def test_the_pools_lines_for_endpoint_and_client_are_made_once(live: Live) -> None:
    pool = replace(BLUE, release="v1")
    shop = replace(SHOP, pools=(pool,), expose_pool=True)
    made = live.apply(snapshot(shop)).services[0].pools[0]
    assert made.passed == made.exposed == b"X-Turnout-Pool: blue\r\nX-Turnout-Release: v1\r\n"
    shop = replace(shop, pass_pool=False, expose_pool=False)
    made = live.apply(snapshot(shop, revision=2)).services[0].pools[0]
    assert made.passed == made.exposed == b""


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("unix:/run/a.sock", ("/run/a.sock", "", 0)),
        ("127.0.0.1:80", ("", "127.0.0.1", 80)),
        ("[::1]:8080", ("", "::1", 8080)),
        ("name.example:1", ("", "name.example", 1)),
    ],
)
def test_addresses_have_three_forms(address: str, parts: tuple[str, str, int]) -> None:
    assert split_address(address) == parts


async def test_what_the_board_says_of_an_endpoint_keeps_new_requests_from_it(box: Box) -> None:
    one, two = await box.endpoint(), await box.endpoint()
    await box.serve(one, two)
    box.board.mark(box.live(one).slot, stats.DOWN, on=True)
    box.board.publish()
    await until(lambda: box.pool_live().ready == [box.live(two)], "the sweep has looked")
    wire = await box.client()
    for _ in range(4):
        assert (await wire.request("/")).status == 200
    assert one.connections == 0
    box.board.mark(box.live(one).slot, stats.DOWN, on=False)
    box.board.publish()
    await until(lambda: len(box.pool_live().ready) == 2, "the sweep has looked again")


async def test_a_snapshot_is_applied_with_what_the_board_says(box: Box) -> None:
    one, two = await box.endpoint(), await box.endpoint()
    slot = box.member("blue", one).slot
    box.board.mark(slot, stats.UNCHECKED, on=True)
    await box.serve(one, two)
    assert box.pool_live().ready == [box.live(two)]


# ---- what the board says ----


def look(live: Live, board: Board) -> None:
    board.publish()
    live.look()


def blue(live: Live, **service: object) -> PoolLive:
    shop = replace(SHOP, **service)  # type: ignore[arg-type]
    return live.apply(snapshot(shop)).services[0].pools[0]


@pytest.mark.parametrize("bit", [stats.UNCHECKED, stats.DOWN, stats.EJECTED, stats.ASKS_TO_DRAIN])
def test_an_endpoint_with_any_mark_gets_nothing_new(live: Live, board: Board, bit: int) -> None:
    pool = blue(live)
    first, second = live.endpoints()
    board.mark(first.slot, bit, on=True)
    look(live, board)
    assert pool.available(None, 0) == [second]
    assert pool.asking == ([first] if bit == stats.ASKS_TO_DRAIN else [])
    board.mark(first.slot, bit, on=False)
    look(live, board)
    assert pool.available(None, 0) == [first, second]
    assert pool.asking == []


def test_a_mark_outlives_a_snapshot(live: Live, board: Board) -> None:
    blue(live)
    first, second = live.endpoints()
    board.mark(first.slot, stats.EJECTED, on=True)
    look(live, board)
    assert blue(live).available(None, 0) == [second]


# ---- outcomes ----


def outcomes(words: memoryview) -> tuple[int, int, int]:
    return words[400 + stats.E_GOOD], words[400 + stats.E_BAD], words[400 + stats.E_TRIPS]


def test_a_whole_run_of_failures_is_a_trip(live: Live, words: memoryview) -> None:
    blue(live, eject_after=3)
    first, _ = live.endpoints()
    for _ in range(7):
        first.was_bad(1000.0)
    assert outcomes(words) == (0, 7, 2)


def test_a_success_ends_the_run_whether_it_is_published_or_not(
    live: Live, words: memoryview
) -> None:
    blue(live, eject_after=3)
    first, _ = live.endpoints()
    for publish in (False, True):
        first.was_bad(1000.0)
        first.was_bad(1000.0)
        first.good += 1
        if publish:
            first.publish()
        first.was_bad(1000.0)
        assert words[400 + stats.E_TRIPS] == 0
        first.good += 1
    first.publish()
    assert outcomes(words) == (4, 6, 0)


def test_failing_to_connect_is_a_bad_outcome(live: Live, words: memoryview) -> None:
    blue(live)
    live.endpoints()[0].failed_to_connect(1000.0)
    assert outcomes(words) == (0, 1, 0)


def test_after_a_run_of_failures_the_worker_passes_the_endpoint_over_for_a_moment(
    live: Live,
) -> None:
    pool = blue(live, eject_after=3)
    first, second = live.endpoints()
    for _ in range(2):
        first.failed(1000.0, 1000.0)
    assert pool.available(None, 1000.0) == [first, second]
    first.failed(1000.0, 1000.0)
    assert pool.available(None, 1000.0) == [second]
    assert pool.available({second}, 1000.0) == []
    assert pool.untried({second}) == [first], "it is a last resort still"
    first.failed_to_connect(1000.0)
    first.connected()
    first.settle(1000.9)
    assert pool.available(None, 1000.9) == [second], "that it can be connected to means nothing"
    first.settle(1000.0 + RUN_S)
    assert not pool.suspects
    assert pool.available(None, 1000.0 + RUN_S) == [first, second]


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_never_more_than_half_of_a_pool_is_passed_over(live: Live, count: int, most: int) -> None:
    endpoints = tuple(Endpoint(address=f"e:{n}", slot=400 + 16 * n) for n in range(count))
    pool = blue(live, eject_after=1, pools=(replace(BLUE, endpoints=endpoints),))
    for endpoint in live.endpoints():
        endpoint.failed(1000.0, 1000.0)
    assert len(pool.available(None, 1000.0)) == count - most


def test_statuses_pass_nobody_over(live: Live) -> None:
    pool = blue(live, eject_after=1)
    live.endpoints()[0].was_bad(1000.0)
    assert len(pool.available(None, 1000.0)) == 2


def test_after_a_readmission_what_began_before_it_says_nothing(
    live: Live, words: memoryview, board: Board
) -> None:
    blue(live, eject_after=3)
    first, _ = live.endpoints()
    first.was_bad(990.0)
    first.was_bad(990.0)
    board.set_readmitted(first.slot, 1000.0)
    look(live, board)
    first.was_bad(999.0)
    assert outcomes(words) == (0, 2, 0)
    first.was_bad(1000.0)
    assert outcomes(words) == (0, 3, 0), "the run has begun anew"


# ---- slow start ----


@pytest.mark.parametrize(
    ("elapsed", "part"), [(0.0, 0.1), (5.0, 0.55), (9.0, 0.91), (10.0, 1.0), (99.0, 1.0)]
)
def test_an_endpoints_weight_grows_evenly_through_its_slow_start(
    live: Live, board: Board, clock: ManualClock, elapsed: float, part: float
) -> None:
    blue(live, slow_start_s=10.0)
    first, second = live.endpoints()
    assert (first.weight, second.weight) == (1, 3), "nothing has just begun"
    board.set_since(second.slot, clock.monotonic())
    look(live, board)
    clock.advance(elapsed)
    live.look()
    assert [first.weight, second.weight] == pytest.approx([1, 3 * part])


def test_without_slow_start_a_new_endpoint_has_its_weight_at_once(
    live: Live, board: Board, clock: ManualClock
) -> None:
    pool = blue(live)
    board.set_since(420, clock.monotonic())
    look(live, board)
    assert live.endpoints()[1].weight == 3
    assert pool.ramping == []


@pytest.mark.parametrize(("slow_start", "whole_after"), [(0.0, READMIT_S), (20.0, 20.0)])
def test_after_an_ejection_there_is_always_a_slow_start(
    live: Live, board: Board, clock: ManualClock, slow_start: float, whole_after: float
) -> None:
    blue(live, slow_start_s=slow_start)
    second = live.endpoints()[1]
    board.set_readmitted(420, clock.monotonic())
    look(live, board)
    assert second.weight == pytest.approx(0.3)
    clock.advance(whole_after - 0.1)
    live.look()
    assert 2.8 < second.weight < 3
    clock.advance(0.1)
    live.look()
    assert second.weight == 3


def test_a_snapshot_does_not_cut_a_slow_start_short(
    live: Live, board: Board, clock: ManualClock
) -> None:
    blue(live, slow_start_s=10.0)
    board.set_since(420, clock.monotonic())
    look(live, board)
    clock.advance(5.0)
    blue(live, slow_start_s=10.0)
    assert live.endpoints()[1].weight == pytest.approx(3 * 0.55)


@pytest.mark.parametrize("balance", ["least_requests", "round_robin", "hash"])
def test_every_balance_follows_the_growing_weight(
    live: Live, board: Board, clock: ManualClock, balance: str
) -> None:
    even = replace(BLUE, endpoints=tuple(replace(e, weight=1) for e in BLUE.endpoints))
    pool = blue(live, slow_start_s=10.0, pools=(even,))
    _, second = live.endpoints()
    board.set_since(second.slot, clock.monotonic())
    look(live, board)
    draw = random.Random(1)
    chooser = balancer(balance, draw.random)  # type: ignore[arg-type]
    for elapsed, share in ((0.0, 0.1 / 1.1), (5.0, 0.55 / 1.55), (10.0, 0.5)):
        clock.advance(1000.0 + elapsed - clock.monotonic())
        live.look()
        picked = Counter(chooser.pick(pool.ready, draw.getrandbits(64)) for _ in range(4000))
        assert picked[second] / 4000 == pytest.approx(share, abs=0.03)


def test_when_all_of_a_pool_are_starting_nobody_is_favoured(
    live: Live, board: Board, clock: ManualClock
) -> None:
    blue(live, slow_start_s=10.0)
    first, second = live.endpoints()
    for endpoint in (first, second):
        board.set_since(endpoint.slot, clock.monotonic())
    look(live, board)
    clock.advance(3.0)
    live.look()
    assert second.weight == pytest.approx(3 * first.weight)


# ---- panic ----


def test_in_panic_all_are_tried_but_new_draining_and_tried_ones(live: Live, board: Board) -> None:
    names = ("down", "ejected", "both", "new", "asks", "drains", "tried")
    pool = blue(
        live,
        pools=(
            replace(
                BLUE,
                endpoints=tuple(
                    Endpoint(
                        address=f"{name}:1",
                        slot=400 + 16 * n,
                        drain=DRAIN if name == "drains" else None,
                    )
                    for n, name in enumerate(names)
                ),
            ),
        ),
    )
    known = dict(zip(names, live.endpoints(), strict=True))
    for name, bits in {
        "down": stats.DOWN,
        "ejected": stats.EJECTED,
        "both": stats.DOWN | stats.EJECTED,
        "new": stats.UNCHECKED,
        "asks": stats.ASKS_TO_DRAIN,
        "tried": stats.DOWN,
    }.items():
        board.mark(known[name].slot, bits, on=True)
    look(live, board)
    tried = {known["tried"]}
    assert pool.in_panic(tried, 0) == [known["down"], known["ejected"], known["both"]]


@pytest.mark.parametrize(
    ("panic", "down", "panics"),
    [(5000, 2, False), (5000, 3, True), (0, 1, True), (None, 4, False), (WHOLE, 4, False)],
)
def test_panic_needs_more_than_its_share_to_be_amiss(
    live: Live,
    board: Board,
    panic: int | None,
    down: int,
    panics: bool,  # noqa: FBT001
) -> None:
    four = tuple(Endpoint(address=f"e:{n}", slot=400 + 16 * n) for n in range(4))
    pool = blue(live, panic=panic, pools=(replace(BLUE, endpoints=four),))
    for endpoint in four[:down]:
        board.mark(endpoint.slot, stats.DOWN, on=True)
    look(live, board)
    assert bool(pool.in_panic(None, 0)) == panics


def test_an_endpoint_that_cannot_be_reached_is_amiss_too(live: Live, board: Board) -> None:
    pool = blue(live)
    first, second = live.endpoints()
    board.mark(first.slot, stats.EJECTED, on=True)
    look(live, board)
    assert pool.in_panic(None, 1000.0) == []
    second.failed_to_connect(1000.0)
    assert pool.in_panic(None, 1000.0) == [first, second]


def test_an_endpoint_that_has_just_failed_the_request_is_amiss_too(
    live: Live, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = blue(live)
    first, second = live.endpoints()
    board.mark(first.slot, stats.EJECTED, on=True)
    look(live, board)
    assert pool.in_panic({second}, 1000.0) == [first]
    monkeypatch.setattr(Room, "is_full", property(lambda room: room is second.room))
    assert pool.in_panic({second}, 1000.0) == [], "it had no room, which is no failure"
