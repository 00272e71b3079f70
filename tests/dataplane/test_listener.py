"""Listeners: limits of connections, and addresses of every kind."""

from __future__ import annotations

import asyncio
import math
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy import door, stats
from proxy.dataplane import downstream
from proxy.dataplane.listener import ListenerLive, network_of
from proxy.dataplane.plane import FOR_CLIENTS
from proxy.door import Door
from proxy.model import WHOLE, Listener, Snapshot
from tests.dataplane.box import BIND, Box, until
from tests.e2e.wire import Wire, WireError


def listener_of(box: Box) -> ListenerLive:
    (found,) = box.plane._listeners.values()
    return found


async def status(box: Box, source: str = "127.0.0.1") -> int:
    """What a new client of this address is answered; it stays connected if it is served."""
    wire = await Wire.to(box.port, source=source)
    box.clients.append(wire)
    return (await wire.request("/")).status


async def is_served(box: Box) -> bool:
    """Whether a new client is; it stays connected."""
    try:
        return await status(box) == 200
    except (WireError, ConnectionError):
        return False


def refused(box: Box, reason: str) -> int:
    return box.of_listener(stats.L_REFUSED + stats.REFUSALS.index(reason))


@pytest.fixture
def neighbour(box: Box) -> Door:
    """The view of another worker, on memory that it shares with the plane."""
    words = memoryview(bytearray(door.size(2))).cast("Q")
    door.prepare(words, b"x" * door.SECRET_BYTES)
    box.plane.door = Door(words, 0, 2)
    return Door(words, 1, 2)


async def test_a_changed_limit_holds_for_the_next_connection(box: Box) -> None:
    endpoint = await box.endpoint()
    await box.serve(endpoint, listener={"max_connections": 1})
    first = await box.client()
    assert (await first.request("/")).status == 200
    assert await status(box) == 503
    await box.serve(endpoint, listener={"max_connections": 2})
    assert await status(box) == 200
    assert (await first.request("/")).status == 200
    await box.serve(endpoint)
    assert [await status(box) for _ in range(3)] == [200] * 3
    await box.serve(endpoint, listener={"max_connections": 5})
    assert await status(box) == 503, "those of the time without a limit count"
    first.close()
    await until(lambda: listener_of(box).open == 4, "it is forgotten")
    assert [await status(box) for _ in range(2)] == [200, 503]
    assert refused(box, "limit") == 3


async def test_the_limit_holds_over_all_workers(box: Box, neighbour: Door) -> None:
    key = neighbour.key(BIND.encode())
    await box.serve(await box.endpoint(), listener={"max_connections": 3})
    neighbour.add(key, 2)
    assert [await status(box) for _ in range(2)] == [200, 503]
    neighbour.add(key, -1)
    assert [await status(box) for _ in range(2)] == [200, 503], "room in one is room in all"
    assert neighbour.count(key) == 3


async def test_a_client_has_its_own_limit_over_all_workers(box: Box, neighbour: Door) -> None:
    await box.serve(await box.endpoint(), listener={"max_per_client": 2})
    assert await status(box) == 200
    (connection,) = box.plane.connections
    neighbour.add(connection.client_key, 1)
    wire = await box.client()
    refusal = await wire.answer()
    assert refusal.status == 429
    assert refusal.header("retry-after")
    assert refusal.header("proxy-status") == "turnout; error=http_request_denied"
    assert await wire.is_closed()
    assert refused(box, "client_limit") == 1
    assert await status(box, "127.0.0.2") == 200, "others have nothing to do with it"
    assert neighbour.count(connection.client_key) == 2, "who is turned away does not count"
    assert listener_of(box).open == 2


async def test_a_limit_for_clients_can_come_and_go(box: Box) -> None:
    endpoint = await box.endpoint()
    await box.serve(endpoint)
    first, second = await box.client(), await box.client()
    for wire in (first, second):
        await wire.request("/")
    await box.serve(endpoint, listener={"max_per_client": 2})
    assert await status(box) == 429, "those who are in count"
    first.close()
    await until(lambda: listener_of(box).open == 1, "it is forgotten")
    assert [await status(box) for _ in range(2)] == [200, 429]
    await box.serve(endpoint)
    assert [await status(box) for _ in range(3)] == [200] * 3
    second.close()
    await until(lambda: listener_of(box).open == 4, "it is forgotten")
    await box.serve(endpoint, listener={"max_per_client": 5})
    assert [await status(box) for _ in range(2)] == [200, 429]


async def test_trusted_peers_stand_for_many_and_are_not_counted(box: Box) -> None:
    endpoint = await box.endpoint()
    limited = {"max_per_client": 1}
    await box.serve(endpoint, listener={**limited, "trusted_proxies": ("127.0.0.1/32",)})
    assert [await status(box) for _ in range(3)] == [200] * 3
    assert [await status(box, "127.0.0.2") for _ in range(2)] == [200, 429]
    await box.serve(endpoint, listener=limited)
    assert [await status(box) for _ in range(2)] == [200, 429], "it is trusted no more"
    await box.serve(endpoint, listener={**limited, "trusted_proxies": ("127.0.0.1/32",)})
    for wire in box.clients:
        wire.close()
    await until(lambda: not listener_of(box).open, "all are forgotten")
    await box.serve(endpoint, listener=limited)
    assert await status(box) == 200, "no count stays behind"


@contextmanager
def descriptors_for(clients: int) -> Iterator[None]:
    """As if the process might have just so many more in the clients' part of its descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    most = max(int(each.name) for each in os.scandir("/proc/self/fd")) + 40
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(most, math.ceil((lowest + clients) / FOR_CLIENTS)), hard)
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("way", [{}, {"proxy_protocol": True}])
async def test_clients_at_rest_cannot_have_the_descriptors_that_the_others_need(
    box: Box, way: dict[str, bool]
) -> None:
    with descriptors_for(clients=12):
        await box.serve(await box.endpoint(), listener=way)
        while await is_served(box):
            assert len(box.clients) < 600
        assert refused(box, "descriptors") == 1
        for wire in box.clients[:3]:
            assert (await wire.request("/")).status == 200
        for wire in (*box.clients[:3], box.clients[-1]):
            wire.close()
        await until(lambda: not listener_of(box).turned_away, "the last one has gone")
        await until(lambda: listener_of(box).open == len(box.clients) - 4, "so have three others")
        assert await is_served(box)


async def test_only_some_hear_why_they_are_turned_away(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downstream, "MAX_TURNED_AWAY", 2)
    await box.serve(await box.endpoint(), listener={"max_connections": 1})
    served = await box.client()
    await served.request("/")
    told = [await box.client() for _ in range(2)]
    assert [(await wire.answer()).status for wire in told] == [503] * 2
    assert await (await box.client()).is_closed(), "the third one hears nothing"
    assert listener_of(box).turned_away == 2
    for wire in told:
        wire.close()
    await until(lambda: not listener_of(box).turned_away, "they have gone")
    assert await status(box) == 503
    await until(lambda: box.of_listener(stats.L_IDLE) == 1, "the gauge has only who is served")


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:0:0:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_a_client_is_an_ipv4_address_or_half_an_ipv6_one(
    one: str, other: str, *, are_one: bool
) -> None:
    assert (network_of(one) == network_of(other)) == are_one


async def test_a_unix_socket_serves_and_a_listener_that_goes_lets_its_clients_finish(
    box: Box, tmp_path: Path
) -> None:
    path = str(tmp_path / "t.sock")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.setblocking(False)
    endpoint = await box.endpoint()
    shop = box.shop(box.pool("blue", [endpoint], WHOLE))
    spec = Listener(bind=f"unix:{path}", slot=3000)
    await box.plane.apply(
        Snapshot(revision=1, listeners=(spec,), services=(shop,)), {spec.bind: listening}
    )
    box.lives.update(box.plane._live.endpoints())
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
    await box.plane.apply(Snapshot(revision=2, services=(shop,)), {})
    assert await reader.read() == b"", "it rested, so it was closed"
    writer.close()
    await until(lambda: not box.plane.connections, "it is forgotten")
    listening.close()
