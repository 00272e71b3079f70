"""Unix sockets and IPv6 on both sides, as clients and endpoints see them on the wire."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from proxy import stats
from proxy.model import WHOLE, AccessLog, Listener, Service, Snapshot, Sticky
from tests.dataplane.box import OK, Box, Peer, Scripted, until
from tests.e2e.wire import Wire

GET = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"
PROXY_LINE = b"PROXY TCP6 2001:db8::9 2001:db8::1 40000 8443\r\n"


class Recorder:
    """A script that answers, and keeps the heads it gets."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.heads.append(await peer.request())
            await peer.send(OK)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def endpoint(box: Box, recorder: Recorder) -> Scripted:
    return await box.endpoint(recorder)


class Way:
    """One more listener of a box, and how to connect to it; the plane closes its socket."""

    def __init__(self, box: Box, sock: socket.socket) -> None:
        self._box = box
        self._sock = sock
        self.name = sock.getsockname()
        self.slot = box.slots.slot("way", stats.LISTENER_WORDS)

    async def serve(self, endpoint: Scripted, **more: Any) -> None:
        await self.apply(self._box.shop(self._box.pool("blue", [endpoint], WHOLE)), **more)

    async def apply(self, shop: Service, **more: Any) -> None:
        is_unix = isinstance(self.name, str)
        bind = f"unix:{self.name}" if is_unix else f"[{self.name[0]}]:{self.name[1]}"
        self._box.revision += 1
        snapshot = Snapshot(
            revision=self._box.revision,
            listeners=(Listener(bind=bind, slot=self.slot, **more),),
            services=(shop,),
            access_log=AccessLog(path="off"),
        )
        await self._box.plane.apply(snapshot, {bind: self._sock})
        self._box.lives.update(self._box.plane._live.endpoints())

    async def client(self) -> Wire:
        if isinstance(self.name, str):
            wire = Wire(*await asyncio.open_unix_connection(self.name))
        else:
            wire = Wire(*await asyncio.open_connection(self.name[0], self.name[1]))
        self._box.clients.append(wire)
        return wire


@pytest.fixture
def unix(box: Box, tmp_path: Path) -> Way:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "t.sock"))
    return Way(box, sock)


@pytest.fixture
def ipv6(box: Box) -> Way:
    sock = socket.socket(socket.AF_INET6)
    try:
        sock.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    return Way(box, sock)


def lines(head: bytes) -> dict[str, str]:
    """The header lines of a head, by their names in lower case."""
    found = re.findall(r"([^\r\n:]+): ([^\r\n]*)\r\n", head.decode())
    return {name.lower(): value for name, value in found}


async def asked(recorder: Recorder, wire: Wire, raw: bytes = GET) -> dict[str, str]:
    await wire.send(raw)
    assert (await wire.answer()).status == 200
    return lines(recorder.heads[-1])


# ---- clients ----


async def test_a_client_on_a_unix_socket_has_no_address_and_nobody_believes_it(
    recorder: Recorder, endpoint: Scripted, unix: Way
) -> None:
    await unix.serve(endpoint)
    wire = await unix.client()
    raw = GET[:-2] + b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\r\n"
    seen = await asked(recorder, wire, raw)
    assert seen["host"] == "shop.example"
    assert seen["x-forwarded-for"] == "unknown"
    assert seen["x-forwarded-proto"] == "http"


async def test_a_proxy_on_a_unix_socket_is_believed_where_proxies_are_expected(
    recorder: Recorder, endpoint: Scripted, unix: Way
) -> None:
    for trusted in (("unix:",), ("10.0.0.0/8",)):
        await unix.serve(endpoint, trusted_proxies=trusted)
        wire = await unix.client()
        raw = GET[:-2] + b"X-Forwarded-For: 2001:db8::7\r\nX-Forwarded-Proto: https\r\n\r\n"
        seen = await asked(recorder, wire, raw)
        assert seen["x-forwarded-for"] == "2001:db8::7, unknown"
        assert seen["x-forwarded-proto"] == "https"


async def test_a_balancer_on_a_unix_socket_says_who_the_client_is(
    box: Box, recorder: Recorder, endpoint: Scripted, unix: Way
) -> None:
    await unix.serve(endpoint, proxy_protocol=True, trusted_proxies=("unix:",))
    wire = await unix.client()
    seen = await asked(recorder, wire, PROXY_LINE + GET)
    assert seen["x-forwarded-for"] == "2001:db8::9"
    assert seen["x-forwarded-port"] == "8443"
    silent = await unix.client()
    await silent.send(GET)
    assert await silent.is_closed()
    refused = unix.slot + stats.L_REFUSED + stats.REFUSALS.index("proxy_protocol")
    assert box.words[refused] == 1


async def test_limits_count_clients_on_a_unix_socket_together_only(
    recorder: Recorder, endpoint: Scripted, unix: Way
) -> None:
    await unix.serve(endpoint, max_per_client=1, max_connections=3)
    for _ in range(3):
        await asked(recorder, await unix.client())
    assert (await (await unix.client()).answer()).status == 503


async def test_a_client_by_ipv6_is_passed_on_with_its_address(
    recorder: Recorder, endpoint: Scripted, ipv6: Way
) -> None:
    await ipv6.serve(endpoint)
    wire = await ipv6.client()
    seen = await asked(recorder, wire, GET[:-2] + b"X-Forwarded-For: 192.0.2.1\r\n\r\n")
    assert seen["x-forwarded-for"] == "::1"
    assert seen["x-forwarded-port"] == str(ipv6.name[1])


async def test_a_trusted_network_may_be_one_of_ipv6(
    recorder: Recorder, endpoint: Scripted, ipv6: Way
) -> None:
    await ipv6.serve(endpoint, trusted_proxies=("::/64",))
    wire = await ipv6.client()
    seen = await asked(recorder, wire, GET[:-2] + b"X-Forwarded-For: 2001:db8::7\r\n\r\n")
    assert seen["x-forwarded-for"] == "2001:db8::7, ::1"


async def test_an_ipv6_client_has_its_limit(
    box: Box, recorder: Recorder, endpoint: Scripted, ipv6: Way
) -> None:
    await ipv6.serve(endpoint, max_per_client=1)
    first = await ipv6.client()
    await asked(recorder, first)
    assert (await (await ipv6.client()).answer()).status == 429
    first.close()
    await until(lambda: len(box.plane.connections) == 1, "it is forgotten")
    await asked(recorder, await ipv6.client())


async def test_a_client_sticks_by_its_ipv6_address(box: Box, ipv6: Way) -> None:
    """Every spelling of one address, from a trusted proxy, goes to one pool."""
    pools = [Recorder(), Recorder()]
    blue, green = [await box.endpoint(pool) for pool in pools]
    shop = box.shop(
        box.pool("blue", [blue], WHOLE // 2),
        box.pool("green", [green], WHOLE // 2),
        sticky=Sticky(by="client_ip", keys=("00" * 32,)),
    )
    await ipv6.apply(shop, trusted_proxies=("::1/128",))
    wire = await ipv6.client()
    went: list[set[bool]] = []
    for number in range(40):
        went.append(set())
        for spelling in (f"2001:db8::{number:x}", f"[2001:DB8:0:0::{number:x}]:80"):
            before = [len(pool.heads) for pool in pools]
            raw = GET[:-2] + b"X-Forwarded-For: %b\r\n\r\n" % spelling.encode()
            await wire.send(raw)
            assert (await wire.answer()).status == 200
            went[-1].add(len(pools[0].heads) > before[0])
    assert all(len(each) == 1 for each in went)
    assert {True, False} == set.union(*went), "clients are spread over both pools"


# ---- endpoints ----


async def test_an_endpoint_may_be_a_unix_socket(
    box: Box, recorder: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "app.sock"
    address = f"unix:{path}"
    await box.serve(address)
    wire = await box.client()
    await wire.send(GET)
    answer = await wire.answer()
    assert answer.status == 502, "nobody is there yet"
    assert str(path) not in answer.body.decode()
    endpoint = await box.endpoint(recorder, host=address)
    await box.serve(address)
    await until(lambda: box.live(address).unreachable_until <= box.plane.clock.now, "again")
    for _ in range(2):
        seen = await asked(recorder, wire)
        assert seen["host"] == "shop.example"
        assert seen["x-forwarded-for"] == "127.0.0.1"
    assert endpoint.connections == 1, "the connection is kept"


async def test_an_endpoint_may_have_an_ipv6_address(box: Box, recorder: Recorder) -> None:
    try:
        endpoint = await box.endpoint(recorder, host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    endpoint.address = f"[::1]:{endpoint.address.rpartition(':')[2]}"
    await box.serve(endpoint)
    wire = await box.client()
    assert (await asked(recorder, wire))["host"] == "shop.example"
