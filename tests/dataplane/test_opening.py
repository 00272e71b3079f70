"""Connections opened: to a name's addresses in turn, past those that fail, and ahead of traffic."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from proxy import stats
from proxy.clock import ManualClock
from proxy.dataplane.upstream import AHEAD_S
from proxy.model import WHOLE, Drain, Timeouts
from tests.dataplane.box import OK, Box, Peer, Scripted, until
from tests.ports import free_port

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


class Town(Box):
    """A box where the name `app` leads to what `addresses` says."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.addresses: list[str] = list(HOSTS)
        super().__init__(self.clock, self._resolve)
        self.port_of_app = 0

    async def _resolve(self, host: str, _: int) -> list[str]:
        if host != "app" or not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return self.addresses

    @property
    def app(self) -> str:
        return f"app:{self.port_of_app}"

    async def houses(self, *hosts: str) -> list[Scripted]:
        """An endpoint on the same port of each of these addresses."""
        self.port_of_app = free_port()
        return [await self.endpoint(host=host, port=self.port_of_app) for host in hosts]

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        now = self.clock.monotonic()
        await until(lambda: self.plane.clock.now == now, "the sweep has seen the time")
        await asyncio.sleep(0.01)

    async def post(self, count: int) -> None:
        """Requests that take a new connection each: a POST takes no old one."""
        wire = await self.client()
        for _ in range(count):
            assert (await wire.request("/", method="POST", body=b"x")).status == 200
            await self.advance(1.5)


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    made = Town()
    yield made
    await made.end()


@contextmanager
def black_hole(host: str, port: int) -> Iterator[None]:
    """An address where connecting neither succeeds nor fails: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, listener.getsockname()[1]))
        yield


async def test_new_connections_take_the_addresses_in_turn(town: Town) -> None:
    houses = await town.houses(*HOSTS)
    await town.serve(town.app)
    await town.post(6)
    assert [house.connections for house in houses] == [2, 2, 2]


async def test_the_next_address_is_tried_when_one_refuses(town: Town) -> None:
    house, _ = await town.houses(HOSTS[1], HOSTS[2])
    town.addresses = list(HOSTS)
    town.endpoints[1].refuse()
    await town.serve(town.app)
    await town.post(4)
    assert house.connections == 4
    assert town.failures("connect") == 0, "the endpoint as a whole could be reached"


async def test_an_address_that_does_not_answer_has_its_part_of_the_time_only(town: Town) -> None:
    (house,) = await town.houses(HOSTS[1])
    town.addresses = [HOSTS[0], HOSTS[1]]
    with black_hole(HOSTS[0], town.port_of_app):
        await town.serve(town.app, timeouts=Timeouts(connect_s=3.0))
        wire = await town.client()
        began = time.monotonic()
        for _ in range(2):  # one of the two begins with the address that does not answer
            assert (await wire.request("/", method="POST", body=b"x")).status == 200
            town.live(town.app).close_idle()
        assert 1.3 < time.monotonic() - began < 2.9
    assert house.connections == 2


async def test_when_no_address_answers_in_time_it_was_too_slow(town: Town) -> None:
    (house,) = await town.houses(HOSTS[2])
    house.refuse()
    town.addresses = [HOSTS[0], HOSTS[1]]
    with black_hole(HOSTS[0], town.port_of_app), black_hole(HOSTS[1], town.port_of_app):
        await town.serve(town.app, timeouts=Timeouts(connect_s=0.4))
        wire = await town.client()
        began = time.monotonic()
        answer = await wire.request("/")
        assert 0.3 < time.monotonic() - began < 8
    assert answer.status == 504
    assert "connection_timeout" in str(answer.header("proxy-status"))


async def test_a_name_that_leads_nowhere_is_told_so(town: Town) -> None:
    await town.houses(HOSTS[0])
    town.addresses = []
    await town.serve(town.app)
    answer = await (await town.client()).request("/")
    assert answer.status == 502
    assert "dns_error" in str(answer.header("proxy-status"))
    assert any("name not resolved" in note for note in town.notes)


async def test_kept_connections_to_an_address_that_is_gone_are_closed(town: Town) -> None:
    old, new = await town.houses(*HOSTS[:2])
    town.addresses = [HOSTS[0]]
    await town.serve(town.app)
    await town.post(1)
    await until(lambda: len(town.live(town.app).idle) == 1, "it is kept")
    town.addresses = [HOSTS[1]]
    await town.advance(12)
    await until(lambda: not town.live(town.app).open, "it is closed")
    await (await town.client()).request("/")
    assert (old.connections, new.connections) == (1, 1)


async def test_a_busy_connection_to_an_address_that_is_gone_is_not_kept(town: Town) -> None:
    may_answer = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.request()
        await may_answer.wait()
        await peer.send(OK)
        await peer.gone()

    endpoint = await town.endpoint(slow)
    town.port_of_app = int(endpoint.address.rpartition(":")[2])
    town.addresses = [HOSTS[0]]
    await town.serve(town.app)
    wire = await town.client()
    asking = town.loop.create_task(wire.request("/"))
    await until(lambda: endpoint.connections, "the request is there")
    town.addresses = [HOSTS[1]]
    live = town.live(town.app)
    await town.advance(12)
    await until(lambda: live.name is not None and live.name.addresses == (HOSTS[1],), "it is known")
    assert live.open, "what is in flight finishes"
    may_answer.set()
    assert (await asking).status == 200
    await until(lambda: not live.open, "it is closed")


async def test_when_lookups_fail_the_last_addresses_go_on(town: Town) -> None:
    (house,) = await town.houses(HOSTS[0])
    town.addresses = [HOSTS[0]]
    await town.serve(town.app)
    await until(lambda: town.words[stats.W_LOOKUPS], "looked up ahead, when it was applied")
    town.addresses = []
    await town.advance(12)
    await until(lambda: town.words[stats.W_LOOKUPS_FAILED], "it fails")
    await town.post(1)
    assert house.connections == 1


async def test_the_real_localhost_is_found(box: Box) -> None:
    endpoint = await box.endpoint()
    port = endpoint.address.rpartition(":")[2]
    await box.serve(f"localhost:{port}")
    assert (await (await box.client()).request("/")).status == 200
    assert endpoint.connections == 1


async def test_drained_endpoints_are_not_looked_up(town: Town) -> None:
    await town.houses(HOSTS[0])
    drained = town.member("blue", town.app, drain=Drain(since_s=0, requests_by_s=0, streams_by_s=0))
    await town.apply(town.shop(town.pool("blue", [drained], WHOLE)))
    await town.advance(60)
    assert town.words[stats.W_LOOKUPS] == 0


# ---- ahead of traffic ----


async def test_warming_opens_what_is_missing_and_no_more(town: Town) -> None:
    first, second = [await town.endpoint(), await town.endpoint()]
    await town.serve(first, second, warm_connections=2)
    assert await town.plane.warm("shop", "blue", 1.0) == 4
    assert await town.plane.warm("shop", "blue", 1.0) == 0
    await until(lambda: (first.connections, second.connections) == (2, 2), "both are warm")
    assert (await (await town.client()).request("/")).status == 200
    assert first.connections + second.connections == 4, "the request took a warm one"


async def test_warming_can_be_switched_off(town: Town) -> None:
    endpoint = await town.endpoint()
    await town.serve(endpoint, warm_connections=0)
    assert await town.plane.warm("shop", "blue", 1.0) == 0
    assert await town.plane.warm("shop", "none", 1.0) == 0
    assert endpoint.connections == 0


async def test_what_was_warmed_in_a_draining_pool_is_there_when_it_is_open_again(
    town: Town,
) -> None:
    blue, green = [await town.endpoint(), await town.endpoint()]
    now = time.monotonic()
    left = Drain(since_s=now, requests_by_s=now + 30, streams_by_s=now + 30)
    await town.apply(
        town.shop(town.pool("blue", [blue], 0, drain=left), town.pool("green", [green], WHOLE))
    )
    assert await town.plane.warm("shop", "blue", 1.0) == 1
    await town.apply(town.shop(town.pool("blue", [blue], WHOLE), town.pool("green", [green], 0)))
    assert (await (await town.client()).request("/")).status == 200
    assert blue.connections == 1


async def test_a_connection_opened_ahead_in_vain_is_soon_closed(town: Town) -> None:
    endpoint = await town.endpoint()
    await town.serve(endpoint)
    await town.plane.warm("shop", "blue", 1.0)
    live = town.live(endpoint)
    assert len(live.idle) == 1
    await town.advance(AHEAD_S + 0.1)
    await until(lambda: not live.open, "it is closed")


async def test_one_that_was_used_is_kept_as_long_as_others(town: Town) -> None:
    endpoint = await town.endpoint()
    await town.serve(endpoint)
    await town.plane.warm("shop", "blue", 1.0)
    await (await town.client()).request("/")
    await town.advance(AHEAD_S + 0.1)
    assert len(town.live(endpoint).idle) == 1
    assert endpoint.connections == 1


async def test_endpoints_that_refuse_or_do_not_answer_hold_warming_up_no_longer_than_said(
    town: Town,
) -> None:
    good, bad = [await town.endpoint(), await town.endpoint()]
    bad.refuse()
    port = free_port()
    with black_hole("127.0.0.1", port):
        await town.serve(good, bad.address, f"127.0.0.1:{port}")
        began = time.monotonic()
        assert await town.plane.warm("shop", "blue", 1.5) == 1
        assert 1.3 < time.monotonic() - began < 8
    assert town.failures("connect") == 0, "no request has failed"


async def test_endpoints_that_get_nothing_are_not_warmed(town: Town) -> None:
    down, up = [await town.endpoint(), await town.endpoint()]
    await town.serve(down, up)
    town.board.mark(town.live(down).slot, stats.DOWN, on=True)
    town.board.publish()
    await until(lambda: len(town.pool_live().ready) == 1, "the board was read")
    assert await town.plane.warm("shop", "blue", 1.0) == 1
    assert down.connections == 0


async def test_nothing_is_opened_ahead_by_a_worker_that_ends(town: Town) -> None:
    endpoint = await town.endpoint()
    await town.serve(endpoint)
    await town.plane.stop(0)
    assert await town.plane.warm("shop", "blue", 1.0) == 0
