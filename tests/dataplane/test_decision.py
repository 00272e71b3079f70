"""Decisions: preview before stickiness before weights, and the endpoint among those available."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from proxy import stats
from proxy.dataplane.decision import Decision, decide, pick
from proxy.dataplane.live import EndpointLive, Live, ServiceLive
from proxy.http1.message import RequestHead
from proxy.model import (
    WHOLE,
    Drain,
    Endpoint,
    Pool,
    Preview,
    Route,
    Service,
    Snapshot,
    Sticky,
)
from proxy.stats import Board

NOW, WALL = 100.0, 1_700_000_000.0
DRAIN = Drain(since_s=NOW, requests_by_s=NOW + 30, streams_by_s=NOW + 300)
COOKIE = Sticky(by="cookie", name="t", keys=("00" * 16,))
PREVIEW = Preview(header="X-Preview", cookie="preview", secret="s:ecret")

UNAVAILABLE = stats.P_FAILURES + stats.FAILURE_KINDS.index("unavailable")


class Bench:
    """A service of two pools with two endpoints each, and requests to decide on."""

    def __init__(self) -> None:
        self.words = memoryview(bytearray(8 * 4096)).cast("q")
        self.board = Board(memoryview(bytearray(8 * 4096)).cast("q"), 1)
        self.live = Live(self.words, self.board.words, lambda: NOW)
        self.spec = Service(
            name="shop",
            routes=(Route(),),
            pools=(self.pool("blue", WHOLE), self.pool("green", 0)),
            active="blue",
        )
        self.revision = 0
        self.service: ServiceLive
        self.apply()

    @staticmethod
    def pool(name: str, weight: int) -> Pool:
        base = 100 if name == "blue" else 1000
        endpoints = tuple(
            Endpoint(address=f"{name}:{n}", slot=base + 500 + n * stats.ENDPOINT_WORDS)
            for n in (1, 2)
        )
        return Pool(name=name, weight=weight, endpoints=endpoints, slot=base)

    def apply(self, blue: int = WHOLE, **changed: Any) -> None:
        self.revision += 1
        pools = (
            replace(self.spec.pools[0], weight=blue),
            replace(self.spec.pools[1], weight=WHOLE - blue),
        )
        self.spec = replace(self.spec, pools=changed.pop("pools", pools), **changed)
        table = self.live.apply(Snapshot(revision=self.revision, services=(self.spec,)))
        (self.service,) = table.services

    def decide(self, cookie: bytes | None = None, client: str = "a", *fields: bytes) -> Decision:
        head = RequestHead(b"GET", b"/", list(fields))
        head.cookie = cookie
        self.head = head
        return decide(self.service, head, client, NOW, WALL)

    def pick(
        self, decision: Decision, tried: set[EndpointLive] | None = None
    ) -> EndpointLive | None:
        return pick(self.service, decision, "a", tried, NOW)

    def endpoints(self, name: str) -> list[EndpointLive]:
        pool = self.service.by_name.get(name)
        assert pool is not None
        return list(pool.endpoints.values())

    def mark(self, bit: int, *endpoints: EndpointLive, on: bool = True) -> None:
        for endpoint in endpoints:
            self.board.mark(endpoint.slot, bit, on=on)
        self.board.publish()
        self.live.look()

    def counted(self, word: int, name: str = "blue") -> int:
        return int(self.words[self.service.by_name[name].slot + word])

    def cookie(self, decision: Decision) -> bytes:
        assert self.service.cookie is not None
        assert decision.binding is not None
        return b"t=" + self.service.cookie.write(decision.binding)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def name(decision: Decision) -> str:
    assert decision.pool is not None
    return decision.pool.name


def spread(bench: Bench, count: int = 1000) -> Counter[str]:
    return Counter(name(bench.decide()) for _ in range(count))


# ---- weights ----


@pytest.mark.parametrize("blue", [WHOLE, 9900, 5000, 0])
def test_the_weights_hold_over_a_thousand_requests(bench: Bench, blue: int) -> None:
    bench.apply(blue)
    assert spread(bench)["blue"] == pytest.approx(blue / 10, abs=2)


def test_the_sequence_carries_on_over_snapshots(bench: Bench) -> None:
    counts: Counter[str] = Counter()
    for _ in range(100):
        bench.apply(9900)
        counts += spread(bench, 10)
    assert counts["green"] == pytest.approx(10, abs=2)


# ---- preview ----


def test_a_preview_picks_its_pool_whatever_the_weights_and_its_secret_stays_here(
    bench: Bench,
) -> None:
    bench.apply(preview=PREVIEW)
    decision = bench.decide(None, "a", b"x-preview", b": ", b"s:ecret:green", b"\r\n")
    assert (name(decision), decision.previewed, decision.pinned) == ("green", True, True)
    assert bench.head.fields == []
    decision = bench.decide(b"a=1; preview=s:ecret:green; b=2")
    assert name(decision) == "green"
    assert decision.cookie == b"a=1; b=2"


@pytest.mark.parametrize("value", [b"wrong:green", b"s:ecret:", b"s:ecret:red", b"green", b""])
def test_a_preview_that_is_wrong_is_an_ordinary_request(bench: Bench, value: bytes) -> None:
    bench.apply(preview=PREVIEW)
    decision = bench.decide(None, "a", b"X-Preview", b": ", value, b"\r\n")
    assert (name(decision), decision.previewed) == ("blue", False)


def test_a_preview_does_not_fall_back(bench: Bench) -> None:
    bench.apply(preview=PREVIEW, pools=(Bench.pool("blue", WHOLE), Pool(name="green")))
    decision = bench.decide(None, "a", b"X-Preview", b": ", b"s:ecret:green", b"\r\n")
    assert bench.pick(decision) is None


# ---- stickiness ----


def test_a_bound_client_stays_and_a_forged_cookie_is_replaced(bench: Bench) -> None:
    bench.apply(5000, sticky=COOKIE)
    for _ in range(50):
        first = bench.decide()
        assert first.must_bind
        cookie = bench.cookie(first)
        again = bench.decide(cookie + b"; other=1")
        assert (name(again), again.must_bind) == (name(first), False)
        assert again.cookie == b"other=1"
        assert bench.decide(cookie[:-1] + b"x").must_bind


@pytest.mark.parametrize("on_zero", ["move", "finish"])
def test_at_zero_bound_clients_move_or_finish_until_the_drains_end(
    bench: Bench, on_zero: str
) -> None:
    sticky = replace(COOKIE, on_zero=on_zero)  # type: ignore[arg-type]
    bench.apply(0, sticky=sticky)
    cookie = bench.cookie(bench.decide())
    green = replace(bench.spec.pools[1], weight=0, drain=DRAIN)
    bench.apply(pools=(replace(bench.spec.pools[0], weight=WHOLE), green))
    decision = bench.decide(cookie)
    assert name(decision) == ("green" if on_zero == "finish" else "blue")
    assert decision.pinned == (on_zero == "finish")
    assert name(bench.decide()) == "blue", "new clients never"
    head = RequestHead(b"GET", b"/", [])
    head.cookie = cookie
    assert name(decide(bench.service, head, "a", DRAIN.streams_by_s, WALL)) == "blue"


def test_a_new_epoch_voids_the_cookies_even_of_those_who_may_finish(bench: Bench) -> None:
    bench.apply(0, sticky=replace(COOKIE, on_zero="finish"))
    cookie = bench.cookie(bench.decide())
    green = replace(bench.spec.pools[1], weight=0, drain=DRAIN, epoch=1)
    bench.apply(pools=(replace(bench.spec.pools[0], weight=WHOLE), green))
    decision = bench.decide(cookie)
    assert (name(decision), decision.must_bind) == ("blue", True)


@pytest.mark.parametrize("by", ["client_ip", "header"])
def test_the_same_identity_has_the_same_bucket(bench: Bench, by: str) -> None:
    sticky = Sticky(by=by, name="X-User", keys=("00" * 16,))  # type: ignore[arg-type]
    bench.apply(5000, sticky=sticky)
    buckets = set()
    for user in range(50):
        who = f"10.0.0.{user}"
        fields = (b"x-user", b": ", who.encode(), b"\r\n")
        found = {bench.decide(None, who, *fields).bucket for _ in range(3)}
        assert len(found) == 1
        buckets |= found
    assert len(buckets) > 40


# ---- availability ----


def test_an_endpoint_is_picked_among_those_not_tried_not_suspect_and_not_draining(
    bench: Bench,
) -> None:
    first, second = bench.endpoints("blue")
    assert bench.pick(bench.decide(), {first}) is second
    first.failed_to_connect(NOW)
    assert {bench.pick(bench.decide()) for _ in range(20)} == {second}
    first.connected()
    drained = replace(bench.spec.pools[0].endpoints[1], drain=DRAIN)
    blue = replace(bench.spec.pools[0], endpoints=(bench.spec.pools[0].endpoints[0], drained))
    bench.apply(pools=(blue, bench.spec.pools[1]))
    assert {bench.pick(bench.decide()) for _ in range(20)} == {first}


def test_suspects_are_tried_rather_than_nobody(bench: Bench) -> None:
    first, second = bench.endpoints("blue")
    first.failed_to_connect(NOW)
    second.failed_to_connect(NOW)
    assert bench.pick(bench.decide()) in {first, second}
    assert bench.pick(bench.decide(), {first}) is second
    assert bench.pick(bench.decide(), {first, second}) is None


@pytest.mark.parametrize(("green", "falls"), [(1, True), (0, False)])
def test_the_other_pool_answers_only_if_it_has_weight(
    bench: Bench,
    green: int,
    falls: bool,  # noqa: FBT001
) -> None:
    bench.apply(WHOLE - green)
    for endpoint in bench.endpoints("blue"):
        endpoint.failed_to_connect(NOW)
    decision = Decision(bench.service.by_name.get("blue"), 5000, None)
    picked = bench.pick(decision)
    assert picked is not None
    assert picked.pool.name == ("green" if falls else "blue")
    assert name(decision) == picked.pool.name


@pytest.mark.parametrize("on_unavailable", ["fallback", "fail"])
def test_a_bound_client_falls_back_or_fails_and_its_cookie_stays(
    bench: Bench, on_unavailable: str
) -> None:
    sticky = replace(COOKIE, on_unavailable=on_unavailable)  # type: ignore[arg-type]
    bench.apply(5000, sticky=sticky)
    empty = replace(bench.spec.pools[0], endpoints=())
    bench.apply(pools=(empty, bench.spec.pools[1]))
    while name(decision := bench.decide()) != "blue":
        pass
    picked = bench.pick(decision)
    if on_unavailable == "fail":
        assert picked is None
    else:
        assert picked is not None
        assert picked.pool.name == "green"
        assert not decision.must_bind


def test_a_client_bound_to_an_endpoint_stays_there_while_it_is_available(bench: Bench) -> None:
    bench.apply(sticky=replace(COOKIE, endpoint=True))
    first = bench.decide()
    home = bench.pick(first)
    assert home is not None
    assert first.must_bind
    cookie = bench.cookie(first)
    for _ in range(20):
        assert bench.pick(bench.decide(cookie)) is home
    other = bench.pick(bench.decide(cookie), {home})
    assert other is not home


# ---- nothing available ----


@pytest.mark.parametrize("bit", [stats.DOWN, stats.EJECTED])
def test_without_anything_available_the_other_pool_answers_and_the_release_has_failed(
    bench: Bench, bit: int
) -> None:
    bench.apply(5000)
    bench.mark(bit, *bench.endpoints("blue"))
    picked = bench.pick(Decision(bench.service.by_name["blue"], 0, None))
    assert picked in bench.endpoints("green")
    assert bench.counted(UNAVAILABLE) == 1
    assert bench.counted(UNAVAILABLE, "green") == 0
    assert bench.counted(stats.P_PANICKED) == 0


@pytest.mark.parametrize("bit", [stats.DOWN, stats.EJECTED])
def test_when_no_other_pool_helps_all_of_this_one_are_tried(bench: Bench, bit: int) -> None:
    bench.mark(bit, *bench.endpoints("blue"))
    picked = {bench.pick(bench.decide()) for _ in range(50)}
    assert picked == set(bench.endpoints("blue"))
    assert bench.counted(stats.P_PANICKED) == bench.counted(UNAVAILABLE) == 50


def test_with_panic_off_nobody_is_picked_and_the_release_has_failed(bench: Bench) -> None:
    bench.apply(panic=None)
    bench.mark(stats.DOWN, *bench.endpoints("blue"))
    assert bench.pick(bench.decide()) is None
    assert (bench.counted(UNAVAILABLE), bench.counted(stats.P_PANICKED)) == (1, 0)


def test_panic_does_not_end_where_the_first_attempt_failed(bench: Bench) -> None:
    first, second = bench.endpoints("blue")
    bench.mark(stats.DOWN, first, second)
    assert bench.pick(bench.decide(), {first}) is second
    assert bench.pick(bench.decide(), {first, second}) is None
    assert bench.counted(UNAVAILABLE) == 0, "the attempts that failed were counted themselves"


def test_who_was_only_unreachable_lately_is_tried_before_panic(bench: Bench) -> None:
    first, second = bench.endpoints("blue")
    bench.mark(stats.DOWN, first)
    second.failed_to_connect(NOW)
    assert bench.pick(bench.decide()) is second
    assert (bench.counted(UNAVAILABLE), bench.counted(stats.P_PANICKED)) == (0, 0)


def test_a_new_endpoint_gets_nothing_before_its_first_pass_whatever_happens(bench: Bench) -> None:
    first, second = bench.endpoints("blue")
    bench.mark(stats.UNCHECKED, first, second)
    assert bench.pick(bench.decide()) is None
    bench.mark(stats.UNCHECKED, second, on=False)
    bench.mark(stats.DOWN, second)
    bench.apply(panic=0)
    assert {bench.pick(bench.decide()) for _ in range(20)} == {second}


def test_a_preview_without_anything_available_is_no_failure_of_the_release(bench: Bench) -> None:
    bench.apply(preview=PREVIEW, panic=None)
    bench.mark(stats.DOWN, *bench.endpoints("green"))
    decision = bench.decide(None, "a", b"X-Preview", b": ", b"s:ecret:green", b"\r\n")
    assert bench.pick(decision) is None
    assert bench.counted(UNAVAILABLE, "green") == 0


def test_an_endpoint_that_asks_to_be_drained_keeps_who_is_bound_to_it(bench: Bench) -> None:
    bench.apply(sticky=replace(COOKIE, endpoint=True))
    first = bench.decide()
    home = bench.pick(first)
    assert home is not None
    cookie = bench.cookie(first)
    bench.mark(stats.ASKS_TO_DRAIN, home)
    for _ in range(20):
        assert bench.pick(bench.decide()) is not home, "nothing new"
        assert bench.pick(bench.decide(cookie)) is home
    assert bench.pick(bench.decide(cookie), {home}) is not home
    bench.mark(stats.DOWN, home)
    assert bench.pick(bench.decide(cookie)) is not home


def test_an_endpoint_that_asks_to_be_drained_gets_nothing_from_clients_of_its_pool(
    bench: Bench,
) -> None:
    bench.apply(sticky=COOKIE)
    cookie = bench.cookie(bench.decide())
    first, second = bench.endpoints("blue")
    bench.mark(stats.ASKS_TO_DRAIN, first)
    assert {bench.pick(bench.decide(cookie)) for _ in range(20)} == {second}
