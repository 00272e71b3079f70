"""What outlives a snapshot: endpoints by identity, with their counters; the rest is built anew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy import stats
from proxy.dataplane.live import UNREACHABLE_S, Live, split_address
from proxy.model import WHOLE, Drain, Endpoint, Pool, Route, Service, Snapshot, Sticky
from tests.dataplane.box import Box, until

DRAIN = Drain(since_s=0, requests_by_s=30, streams_by_s=300)
BLUE = Pool(
    name="blue",
    weight=WHOLE,
    slot=100,
    endpoints=(Endpoint(address="a:1", slot=400), Endpoint(address="b:2", slot=408, weight=3)),
)
SHOP = Service(name="shop", routes=(Route(host="shop"),), pools=(BLUE,), active="blue")


@pytest.fixture
def words() -> memoryview:
    return memoryview(bytearray(8 * 1000)).cast("q")


@pytest.fixture
def live(words: memoryview) -> Live:
    return Live(words, memoryview(bytes(8 * 1000)).cast("q"))


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
