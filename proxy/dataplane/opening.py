"""Opening connections to endpoints: at one of a name's addresses, and ahead of the traffic."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from proxy.dataplane.live import EndpointLive, PoolLive
from proxy.dataplane.resolve import HostName
from proxy.dataplane.tls_connection import TlsConnection
from proxy.dataplane.upstream import Upstream
from proxy.tasks import spawn

if TYPE_CHECKING:
    from proxy.dataplane.plane import Plane

Below = Upstream | TlsConnection
"""What the loop's transport talks to."""

MOST_AHEAD = 256
"""Connections that one call opens ahead at most."""


async def opened(endpoint: EndpointLive, plane: Plane, timeout_s: float) -> Upstream:
    """A new connection; OSError or TimeoutError. The caller bounds the whole by `timeout_s`,
    and has reserved room for it.
    """
    try:
        return await _opened(endpoint, plane, timeout_s)
    finally:
        endpoint.room.settle()


async def _opened(endpoint: EndpointLive, plane: Plane, timeout_s: float) -> Upstream:
    tls = endpoint.pool.tls

    def made() -> Below:
        connection = Upstream(endpoint)
        connection.born = connection.idle_since = plane.clock.now
        connection.limit_age(endpoint.max_age_s)
        return connection if tls is None else tls.over(connection, endpoint)

    if endpoint.path:
        loop = asyncio.get_running_loop()
        below = made()  # not by the loop, which would lose the socket if that failed
        await loop.create_unix_connection(lambda: below, endpoint.path)
        connection = await _ready(below)
    elif endpoint.name is None:
        connection = await _connected(made(), endpoint.host, endpoint.port)
    else:
        connection = await _opened_in_turn(made, endpoint.name, plane, timeout_s)
    if endpoint.pool.tls is not tls:  # it changed while we connected
        connection.retire()
    return connection


async def _opened_in_turn(
    made: Callable[[], Below], name: HostName, plane: Plane, timeout_s: float
) -> Upstream:
    """Try one address after the other; each has a fair part of the time that is left."""
    ends = time.monotonic() + timeout_s
    order = await plane.resolver.addresses(name)
    problem: OSError = ConnectionRefusedError()
    for index, address in enumerate(order):
        part_s = (ends - time.monotonic()) / (len(order) - index)
        try:
            async with asyncio.timeout(part_s):
                connection = await _connected(made(), address, name.port)
        except OSError as error:  # TimeoutError is one, too
            name.pass_over(address, plane.clock.now)
            problem = error
        else:
            connection.address = address
            if address not in name.addresses:  # it went while we connected
                connection.retire()
            return connection
    raise problem


async def _connected(below: Below, address: str, port: int) -> Upstream:
    """Connect to an IP address: nothing is left to be looked up."""
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: below, address, port, flags=socket.AI_NUMERICHOST)
    return await _ready(below)


async def _ready(below: Below) -> Upstream:
    """The connection that requests may go over, when its handshake is done if it has one."""
    if isinstance(below, Upstream):
        return below
    await below.handshake()
    return cast("Upstream", below.get_protocol())


async def warm(plane: Plane, pool: PoolLive, count: int, timeout_s: float) -> int:
    """Have `count` idle connections at every endpoint that may get traffic; how many were opened.

    What fails is left to the requests to find out. They survive in a pool that still drains,
    but not for long if no traffic comes.
    """
    missing = [
        endpoint
        for endpoint in pool.ready
        if endpoint.unreachable_until <= plane.clock.now
        for _ in range(count - len(endpoint.idle))
    ][:MOST_AHEAD]
    tasks = {
        spawn(_open_ahead(endpoint, plane, timeout_s), name="warm", report=plane.report)
        for endpoint in missing
        if endpoint.room.reserve()
    }
    if not tasks:
        return 0
    await asyncio.wait(tasks)
    return sum(task.result() for task in tasks)


async def _open_ahead(endpoint: EndpointLive, plane: Plane, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            connection = await opened(endpoint, plane, timeout_s)
    except OSError:
        return False
    if (
        endpoint.drain is not None
        or endpoint.gone
        or plane.is_ending
        or connection.ends_at <= plane.clock.now
    ):
        connection.close()
        return False
    connection.is_ahead = True
    if endpoint.room.is_tight and endpoint.room.take(connection):
        return True
    endpoint.idle.append(connection)
    return True
