"""Hold and paced release: who waits, for how long, in which order, and where they go then."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from contextlib import suppress
from functools import partial

import pytest
import trustme

from proxy import stats
from proxy.dataplane import hold
from proxy.model import (
    WHOLE,
    Certificate,
    Hold,
    ListenerTls,
    Pool,
    Preview,
    Route,
    Service,
    Snapshot,
)
from tests.dataplane.box import OK, Box, Peer, Scripted, until
from tests.dataplane.tls_client import TlsClient
from tests.e2e.wire import Answer, Wire, WireError, request_bytes

MIB = 1024 * 1024


class Store:
    """A service `shop` with two pools whose endpoints remember what they were asked for, and when."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.seen: list[tuple[str, bytes]] = []
        self.moments: list[float] = []
        self.blue: Scripted
        self.green: Scripted
        self.tls: ListenerTls | None = None

    async def open(self) -> None:
        self.blue = await self.box.endpoint(partial(self._play, "blue"))
        self.green = await self.box.endpoint(partial(self._play, "green"))
        self.allow(1000)
        await self.apply()

    async def _play(self, pool: str, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.moments.append(time.monotonic())
            self.seen.append((pool, request.split(b" ")[1]))
            await peer.send(OK)

    def allow(self, count: int, name: str = "shop") -> None:
        """Deal this worker its share of how many may be held."""
        self.box.board.deal(self.box.service_slot(name), stats.LOT_HELD, [count])

    def pools(self, green: int = 0) -> tuple[Pool, Pool]:
        return (
            self.box.pool("blue", [self.blue], WHOLE - green),
            self.box.pool("green", [self.green], green),
        )

    async def apply(self, hold: Hold | None = None, *others: Service, **more: object) -> None:
        green = more.pop("green", 0)
        assert isinstance(green, int)
        shop = self.box.shop(*self.pools(green), hold=hold, **more)
        await self.box.apply(shop, *others, tls=self.tls)

    async def hold(self, **more: float) -> Hold:
        """Put the service on hold."""
        made = Hold(since_s=time.monotonic(), **more)  # type: ignore[arg-type]
        await self.apply(made)
        return made

    async def release(self, over_s: float = 0.0, **more: object) -> None:
        now = time.monotonic()
        await self.apply(Hold(since_s=now, released_s=now, over_s=over_s), **more)

    @property
    def held(self) -> int:
        return self.box.of_service(stats.S_HELD)

    @property
    def of_bytes(self) -> int:
        """How much of the held requests' bodies is kept."""
        return self.box.of_service(stats.S_HELD_BYTES)

    def ended(self, end: int) -> int:
        return self.box.of_service(stats.S_HELD_ENDS + end)

    async def ask(self, path: str = "/", method: str = "GET", body: bytes | None = None) -> Wire:
        """Send a request on a connection of its own; its answer is the caller's to read."""
        before = self.held
        wire = await self.box.client()
        await wire.send(request_bytes(path, method=method, body=body))
        await until(lambda: self.held == before + 1, f"{path} is held")
        return wire


@pytest.fixture
async def store(box: Box) -> Store:
    made = Store(box)
    await made.open()
    return made


async def answers(wires: list[Wire]) -> list[Answer]:
    return await asyncio.gather(*(wire.answer() for wire in wires))


# ---- waiting ----


async def test_new_requests_wait_and_are_answered_in_their_order_when_let_go(store: Store) -> None:
    await store.hold()
    wires = [await store.ask(f"/{number}") for number in range(8)]
    assert store.seen == []
    await store.release(over_s=0.8)  # slow enough for the endpoint to see them one by one
    assert {answer.status for answer in await answers(wires)} == {200}
    assert store.seen == [("blue", b"/%d" % number) for number in range(8)]
    assert store.held == 0
    assert store.ended(stats.HELD_RELEASED) == 8
    assert store.box.failures("connect") == 0


async def test_what_is_in_flight_when_a_hold_begins_goes_on(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.send(OK)

    go = asyncio.Event()
    store = Store(box)
    await store.open()
    store.blue = await box.endpoint(play)
    await store.apply()
    wire = await box.client()
    await wire.send(request_bytes("/slow"))
    await until(lambda: any(box.in_flight()), "it is in flight")
    await store.hold()
    go.set()
    assert (await wire.answer()).status == 200


async def test_pipelined_requests_wait_behind_a_held_one_in_their_order(store: Store) -> None:
    await store.hold()
    wire = await store.box.client()
    await wire.send(b"".join(request_bytes(f"/{number}") for number in range(5)))
    await until(lambda: store.held == 1, "the first is held, and the others wait for it")
    await store.release()
    for _ in range(5):
        assert (await wire.answer()).status == 200
    assert store.seen == [("blue", b"/%d" % number) for number in range(5)]


async def test_health_checks_are_answered_meanwhile(store: Store) -> None:
    hold = Hold(since_s=time.monotonic())
    await store.apply(hold, health_path="/healthz")
    wire = await store.box.client()
    assert (await wire.request("/healthz")).status == 200
    assert (await wire.request("/healthz?full=1")).status == 200
    assert (await wire.request("/healthz", method="HEAD")).status == 200
    for path, method in (("/healthz", "POST"), ("/healthz/x", "GET"), ("/", "GET")):
        await store.ask(path, method)
    assert [path for _, path in store.seen] == [b"/healthz", b"/healthz?full=1", b"/healthz"]


async def test_a_preview_is_held_too(store: Store) -> None:
    preview = Preview(header="X-Preview", cookie="preview", secret="s3cret")
    await store.apply(Hold(since_s=time.monotonic()), preview=preview)
    wire = await store.box.client()
    await wire.send(request_bytes("/new", headers={"X-Preview": "s3cret:green"}))
    await until(lambda: store.held == 1, "it is held")
    await store.release(preview=preview)
    assert (await wire.answer()).status == 200
    assert store.seen == [("green", b"/new")]


# ---- bounds ----


async def test_more_than_may_wait_are_refused_and_can_come_again(store: Store) -> None:
    store.allow(3)
    await store.hold()
    wires = [await store.ask(f"/{number}") for number in range(3)]
    late = await store.box.client()
    for _ in range(2):
        answer = await late.request("/late")
        assert (answer.status, answer.header("retry-after")) == (503, "1")
        assert "on hold" in answer.body.decode()
    assert not answer.closes
    assert store.ended(stats.HELD_REFUSED) == 2
    await store.release()
    assert {each.status for each in await answers(wires)} == {200}
    assert (await late.request("/late")).status == 200


async def test_a_place_that_a_client_gave_up_is_taken_by_the_next(store: Store) -> None:
    store.allow(1)
    await store.hold()
    first = await store.ask()
    first.close()
    await until(lambda: store.ended(stats.HELD_CLIENT_GONE) == 1, "it is dropped")
    await store.ask("/next")


async def test_who_has_waited_too_long_gets_a_503_and_keeps_the_connection(store: Store) -> None:
    await store.hold(timeout_s=0.3)
    began = time.monotonic()
    wire = await store.ask()
    answer = await wire.answer()
    assert (answer.status, answer.header("retry-after")) == (503, "1")
    assert 0.15 < time.monotonic() - began < 20, "not the thirty seconds of others"
    assert not answer.closes
    assert store.ended(stats.HELD_TIMED_OUT) == 1
    assert store.held == 0
    await store.release()
    assert (await wire.request("/again")).status == 200
    for pool in ("blue", "green"):
        assert store.box.answers(5, pool) == 0, "nobody is to blame"


async def test_a_longer_timeout_counts_for_those_who_wait_already(store: Store) -> None:
    hold = await store.hold(timeout_s=1.0)
    wire = await store.ask()
    await store.apply(Hold(since_s=hold.since_s, timeout_s=30))
    assert await wire.stays_open(1.6)
    await store.release()
    assert (await wire.answer()).status == 200


async def test_who_comes_due_during_the_release_is_let_go(store: Store) -> None:
    await store.hold(timeout_s=1.0)
    wires = [await store.ask(f"/{number}") for number in range(5)]
    await store.release(over_s=2.0)
    assert [answer.status for answer in await answers(wires)] == [200] * 5


# ---- bodies ----


async def echo(peer: Peer) -> None:
    while True:
        request = await peer.request()
        body = request.partition(b"\r\n\r\n")[2]
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def test_a_body_arrives_whole_however_much_of_it_came_before_the_release(
    store: Store,
) -> None:
    store.blue = await store.box.endpoint(echo)
    await store.hold()
    small, large = b"small" * 10, bytes(range(256)) * 4096
    wires = [await store.ask("/a", "POST", small)]
    wire = await store.box.client()
    sending = store.box.loop.create_task(wire.send(request_bytes("/b", method="POST", body=large)))
    await until(lambda: store.held == 2, "both are held")
    await until(lambda: store.box.of_service(stats.S_HELD_BYTES) > len(small), "some of it came")
    await asyncio.sleep(0.2)
    assert store.box.of_service(stats.S_HELD_BYTES) < len(large), "reading is paused early"
    await store.release()
    await sending
    assert [answer.body for answer in await answers([*wires, wire])] == [small, large]
    assert store.box.of_service(stats.S_HELD_BYTES) == 0


async def test_bodies_beyond_what_is_kept_are_refused(store: Store) -> None:
    store.blue = await store.box.endpoint(echo)
    await store.hold(most_bytes=40_000)
    body = b"x" * 15_000
    wires = [await store.ask(f"/{number}", "POST", body) for number in range(2)]
    refused = await store.box.client()
    answer = await refused.request("/2", method="POST", body=body)
    assert answer.status == 503
    assert store.ended(stats.HELD_REFUSED) == 1
    assert store.box.of_service(stats.S_HELD_BYTES) == 30_000
    await store.release()
    assert [len(each.body) for each in await answers(wires)] == [15_000] * 2


async def test_a_malformed_body_is_refused_at_once_and_leaves_the_queue(store: Store) -> None:
    await store.hold()
    wire = await store.box.client()
    await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    await until(lambda: store.held == 1, "it is held")
    await wire.send(b"5\r\nhello\r\nzz\r\n")
    assert (await wire.answer()).status == 400
    await until(lambda: store.held == 0, "its place is free")
    assert store.box.of_service(stats.S_HELD_BYTES) == 0
    assert store.ended(stats.HELD_REFUSED) == 1


async def test_a_body_over_the_limit_of_the_service_is_refused_while_it_waits(store: Store) -> None:
    await store.apply(Hold(since_s=time.monotonic()), max_body=10)
    wire = await store.box.client()
    await wire.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    )
    await until(lambda: store.box.of_service(stats.S_HELD_BYTES) == 5, "it is held")
    await wire.send(b"6\r\n world\r\n")
    assert (await wire.answer()).status == 413
    await until(lambda: store.held == 0, "its place is free")
    assert store.box.of_service(stats.S_HELD_BYTES) == 0


async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked_when_let_go(
    store: Store,
) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.reader.readexactly(4) == b"body"
        await peer.send(OK)

    store.blue = await store.box.endpoint(play)
    await store.hold()
    wire = await store.box.client()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    await wire.send(head)
    await until(lambda: store.held == 1, "it is held")
    await store.release()
    assert (await wire.head()).status == 100
    await wire.send(b"body")
    assert (await wire.answer()).status == 200


async def test_an_upgrade_waits_like_any_request(store: Store) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        )
        await peer.send(await peer.reader.readexactly(4))
        await peer.gone()

    store.blue = await store.box.endpoint(play)
    await store.hold()
    wire = await store.box.client()
    await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
    await until(lambda: store.held == 1, "it is held")
    await store.release()
    assert (await wire.answer()).status == 101
    await wire.send(b"ping")
    assert await wire._reader.readexactly(4) == b"ping"


async def test_a_client_is_heard_again_once_its_request_is_on_its_way(store: Store) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    store.blue = await store.box.endpoint(play)
    await store.hold()
    wire = await store.ask("/", "POST", b"x" * (hold.EARLY + 1))
    await store.release()
    await until(lambda: any(store.box.in_flight()), "it is in flight")
    wire.close()
    await until(lambda: not any(store.box.in_flight()), "its leaving is noticed")


# ---- clients that leave ----


async def test_a_client_that_leaves_is_dropped_and_its_request_is_never_sent(store: Store) -> None:
    await store.hold()
    leaving, staying = await store.ask("/leaving"), await store.ask("/staying")
    leaving.close()
    await until(lambda: store.held == 1, "it is dropped")
    assert store.ended(stats.HELD_CLIENT_GONE) == 1
    await store.release()
    assert (await staying.answer()).status == 200
    assert store.seen == [("blue", b"/staying")]


@pytest.mark.parametrize("is_polite", [True, False])
async def test_a_client_that_leaves_while_nothing_is_read_from_it_is_dropped_too(
    store: Store, *, is_polite: bool
) -> None:
    await store.hold()
    body = b"x" * (hold.EARLY + 1)
    wire = await store.ask("/", "POST", body)
    await until(
        lambda: all(each.is_unread for each in store.box.plane.connections), "its reading is paused"
    )
    if is_polite:
        wire.finish()
    else:
        wire.close()
    await until(lambda: store.ended(stats.HELD_CLIENT_GONE) == 1, "it is dropped")
    await until(lambda: not store.box.plane.connections, "and forgotten")
    assert store.box.of_service(stats.S_HELD_BYTES) == 0
    await store.release()
    assert store.seen == []


async def test_a_client_that_left_just_before_its_turn_is_not_let_go(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.hold()
    await store.ask("/first")
    gone = await store.ask("/", "POST", b"x" * (hold.EARLY + 1))
    last = await store.ask("/last")
    monkeypatch.setattr(hold.HoldQueue, "sweep", lambda *_: None)
    gone.finish()
    await store.release()
    assert (await last.answer()).status == 200
    assert sorted(store.seen) == [("blue", b"/first"), ("blue", b"/last")]
    assert store.ended(stats.HELD_CLIENT_GONE) == 1


async def secure(store: Store, authority: trustme.CA) -> TlsClient:
    """Have the store's listener speak TLS; a client of it."""
    pair = authority.issue_cert("shop.example")
    chain = "".join(each.bytes().decode() for each in pair.cert_chain_pems)
    key = pair.private_key_pem.bytes().decode()
    certificate = Certificate(chain=chain, key=key, names=("shop.example",))
    store.tls = ListenerTls(certificates=(certificate,))
    await store.hold()
    sock = socket.socket()
    sock.setblocking(False)
    await store.box.loop.sock_connect(sock, ("127.0.0.1", store.box.port))
    made = TlsClient(sock, authority, "shop.example")
    await made.shake()
    return made


@pytest.mark.parametrize("size", [0, hold.EARLY + 1])
@pytest.mark.parametrize("way", ["says its end", "says its end and closes", "closes"])
async def test_a_tls_client_that_leaves_is_dropped_too(store: Store, size: int, way: str) -> None:
    """A close_notify alone is bytes to the kernel; many clients say it and wait for ours."""
    client = await secure(store, trustme.CA())
    await client.send(request_bytes("/", method="POST", body=b"x" * size))
    await until(lambda: store.held == 1 and store.of_bytes == size, "it is held")
    if "says" in way:
        await client.end()
    if "closes" in way:
        client.close()
    await until(lambda: store.ended(stats.HELD_CLIENT_GONE) == 1, "it is dropped")
    await until(lambda: not store.box.plane.connections, "and forgotten")
    client.close()
    await store.release()
    assert store.seen == []


async def test_a_tls_client_that_stays_is_answered_though_it_is_read_on(store: Store) -> None:
    """What it sends behind its whole request waits, and no more of that is read than ever."""
    client = await secure(store, trustme.CA())
    await client.send(request_bytes("/big", method="POST", body=b"x" * (hold.EARLY + 1)))
    await until(lambda: store.of_bytes == hold.EARLY + 1, "it is held")
    (connection,) = store.box.plane.connections
    await until(lambda: not connection.is_unread, "it is heard again")
    await client.send(request_bytes("/next"))
    await until(lambda: connection.is_unread, "nothing is read behind the next one")
    await store.release()
    read = b""
    while read.count(b"\r\n\r\nok") < 2:
        read += await client.read()
    assert store.seen == [("blue", b"/big"), ("blue", b"/next")]
    client.close()


# ---- where they go ----


async def test_they_go_where_the_weights_are_when_they_are_let_go(store: Store) -> None:
    await store.hold()
    wires = [await store.ask(f"/{number}") for number in range(4)]
    await store.apply(Hold(since_s=time.monotonic()), green=WHOLE)
    assert store.seen == []
    await store.release(green=WHOLE)
    await answers(wires)
    assert {pool for pool, _ in store.seen} == {"green"}
    assert store.box.answers(2, "green") == 4


async def test_a_change_of_the_weights_in_the_middle_of_a_release_is_heeded(store: Store) -> None:
    await store.hold()
    wires = [await store.ask(f"/{number}") for number in range(10)]
    now = time.monotonic()
    released = Hold(since_s=now, released_s=now, over_s=1.0)
    await store.apply(released)
    await until(lambda: len(store.seen) >= 3, "some are let go")
    await store.apply(released, green=WHOLE)
    await answers(wires)
    assert [path for _, path in store.seen] == [b"/%d" % number for number in range(10)]
    assert {pool for pool, _ in store.seen} == {"blue", "green"}
    assert time.monotonic() - now > 0.7, "the pace stays"


async def test_they_follow_their_route_to_another_service(store: Store) -> None:
    other = await store.box.endpoint()
    pools = (store.box.pool("only", [other], WHOLE),)
    till = store.box.shop(*pools, name="till", routes=(Route(path="/pay"),))
    await store.hold()
    wire = await store.ask("/pay/1")
    await store.apply(Hold(since_s=time.monotonic()), till)
    assert store.held == 1
    await store.release()
    await store.apply(None, till)
    assert (await wire.answer()).status == 200


async def test_a_service_that_holds_by_itself_takes_over_who_now_belongs_to_it(
    store: Store,
) -> None:
    pools = (store.box.pool("only", [await store.box.endpoint()], WHOLE),)
    holding = Hold(since_s=time.monotonic())
    till = store.box.shop(*pools, name="till", routes=(Route(path="/pay"),), hold=holding)
    store.allow(10, "till")
    await store.hold()
    wire = await store.ask("/pay/1")
    await store.apply(None, till)
    await until(lambda: store.held == 0, "shop lets it go")
    assert store.box.of_service(stats.S_HELD, "till") == 1
    await store.apply()
    assert (await wire.answer()).status == 200


async def test_those_of_a_service_that_was_removed_are_told_what_is_true(store: Store) -> None:
    await store.hold()
    wires = [await store.ask(f"/{number}") for number in range(3)]
    await store.box.apply()
    assert {answer.status for answer in await answers(wires)} == {404}
    assert store.held == 0


async def test_a_pool_without_endpoints_is_a_503_as_ever(store: Store) -> None:
    await store.hold()
    wire = await store.ask()
    shop = store.box.shop(store.box.pool("blue", [], WHOLE))
    await store.box.apply(shop)
    answer = await wire.answer()
    assert answer.status == 503
    assert "not available" in answer.body.decode()


# ---- the pace ----


async def test_they_are_let_go_at_a_steady_pace(store: Store) -> None:
    await store.hold()
    wires = [await store.ask(f"/{number}") for number in range(50)]
    began = time.monotonic()
    await store.release(over_s=1.0)
    await answers(wires)
    fifths = [sum(n / 5 <= at - began < (n + 1) / 5 for at in store.moments) for n in range(6)]
    assert sum(fifths) == 50
    assert all(2 <= fifth <= 18 for fifth in fifths[:5]), fifths


async def test_newcomers_go_straight_on_during_a_release(store: Store) -> None:
    await store.hold()
    wires = [await store.ask(f"/{number}") for number in range(10)]
    await store.release(over_s=5.0)
    newcomer = await store.box.client()
    assert (await newcomer.request("/new")).status == 200
    assert store.held > 5
    await store.release()
    await answers(wires)


async def test_a_new_hold_stops_a_release_and_a_new_release_lets_the_rest_go(store: Store) -> None:
    await store.hold()
    wires = [await store.ask(f"/{number}") for number in range(10)]
    await store.release(over_s=2.0)
    await until(lambda: len(store.seen) >= 2, "it has begun")
    await store.hold()
    left = store.held
    assert 0 < left < 10
    await asyncio.sleep(0.4)
    assert store.held == left
    wires.append(await store.ask("/new"))
    await store.release(over_s=0.1)
    assert {answer.status for answer in await answers(wires)} == {200}
    assert len(store.seen) == 11


async def test_a_shorter_release_hurries_the_one_under_way(store: Store) -> None:
    await store.hold()
    wires = [await store.ask(f"/{number}") for number in range(10)]
    await store.release(over_s=600.0)
    await until(lambda: len(store.seen) == 1, "the first is let go at once")
    await store.release(over_s=0.0)
    assert {answer.status for answer in await answers(wires)} == {200}


async def test_more_than_fit_into_one_turn_of_the_loop_are_all_let_go(store: Store) -> None:
    count = 2 * hold.MOST_AT_ONCE + 5
    await store.hold()
    wires = [await store.box.client() for _ in range(count)]
    for wire in wires:
        await wire.send(request_bytes("/"))
    await until(lambda: store.held == count, "all are held")
    await store.release()
    assert {answer.status for answer in await answers(wires)} == {200}
    assert store.ended(stats.HELD_RELEASED) == count


# ---- the end of a worker ----


async def test_a_worker_that_stops_lets_everybody_go_and_holds_nobody(store: Store) -> None:
    await store.hold()
    wires = [await store.ask(f"/{number}") for number in range(5)]
    await store.box.plane.stop(5)
    assert [(answer.status, answer.closes) for answer in await answers(wires)] == [(200, True)] * 5


async def test_a_snapshot_that_comes_while_the_worker_stops_holds_nobody(store: Store) -> None:
    store.blue = await store.box.endpoint(echo)
    await store.apply()
    wire = await store.box.client()
    await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
    await until(lambda: any(store.box.in_flight()), "it is in flight")
    stopping = store.box.loop.create_task(store.box.plane.stop(5))
    late = await store.box.client()
    await late.send(request_bytes("/late"))
    shop = store.box.shop(*store.pools(), hold=Hold(since_s=time.monotonic()))
    await store.box.plane.apply(Snapshot(revision=99, services=(shop,)), {})
    await wire.send(b"ok")
    assert (await wire.answer()).status == 200
    await stopping
    assert store.held == 0


async def test_the_time_on_hold_is_not_part_of_the_duration_that_pools_are_judged_by(
    store: Store,
) -> None:
    await store.hold()
    wire = await store.ask()
    await asyncio.sleep(1.5)
    await store.release()
    assert (await wire.answer()).status == 200
    await until(lambda: store.box.answers(2) == 1, "it is counted")
    assert store.box.of_pool(stats.P_DURATION_US) < 1_400_000


# ---- everything together ----


class Crowd:
    """Clients, operators and reloads at random; every request ends in one known way."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.draw = random.Random(seed)
        self.tasks: list[asyncio.Task[None]] = []
        self.statuses: list[int] = []
        self.left = 0
        self.spec: Hold | None = None
        self.green = 0

    async def step(self) -> None:
        acts = (self.come, self.operate, self.move, self.remove)
        await self.draw.choices(acts, (6, 3, 2, 1))[0]()
        await asyncio.sleep(self.draw.choice((0, 0.01, 0.05)))
        held = self.store.held
        assert 0 <= held <= 1000
        assert self.store.box.of_service(stats.S_HELD_BYTES) >= 0
        assert held or not self.store.box.of_service(stats.S_HELD_BYTES)

    async def come(self) -> None:
        for _ in range(self.draw.randrange(1, 10)):
            wire = await self.store.box.client()
            self.tasks.append(self.store.box.loop.create_task(self.client(wire)))

    async def client(self, wire: Wire) -> None:
        size = self.draw.choice((0, 0, 10, 100_000))
        data = request_bytes("/", method="POST" if size else "GET", body=b"x" * size or None)
        pipelined = 1 if size else self.draw.choice((1, 1, 3))
        leaves_after_s = self.draw.choice((None, None, 0.0, 0.1))
        with suppress(WireError):
            await wire.send(data * pipelined)
            if leaves_after_s is not None:
                self.left += pipelined
                await asyncio.sleep(leaves_after_s)
                wire.close()
                return
            for _ in range(pipelined):
                self.statuses.append((await wire.answer()).status)

    async def operate(self) -> None:
        now = time.monotonic()
        holding = Hold(since_s=now, timeout_s=self.draw.choice((0.2, 30.0)))
        released = Hold(since_s=now, released_s=now, over_s=self.draw.choice((0.0, 0.3, 60.0)))
        self.spec = self.draw.choice((holding, holding, released, None))
        await self.store.apply(self.spec, green=self.green)

    async def move(self) -> None:
        self.green = self.draw.choice((0, 5000, WHOLE))
        await self.store.apply(self.spec, green=self.green)

    async def remove(self) -> None:
        await self.store.box.apply()
        await asyncio.sleep(0)
        await self.store.apply(self.spec, green=self.green)

    async def end(self) -> None:
        await self.store.apply(None)
        await asyncio.gather(*self.tasks)


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_every_request_ends_and_nothing_is_left(
    store: Store, seed: int
) -> None:
    store.blue = store.green = await store.box.endpoint(echo)
    await store.apply()
    crowd = Crowd(store, seed)
    for number in range(40):
        try:
            await crowd.step()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, step {number}: {error}") from error
    await crowd.end()
    assert set(crowd.statuses) <= {200, 404, 503}
    assert 200 in crowd.statuses
    assert store.held == 0
    assert store.box.of_service(stats.S_HELD_BYTES) == 0
    refused = store.ended(stats.HELD_TIMED_OUT) + store.ended(stats.HELD_REFUSED)
    assert crowd.statuses.count(503) <= refused <= crowd.statuses.count(503) + crowd.left
