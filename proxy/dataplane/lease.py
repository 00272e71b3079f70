"""Leases of connections to endpoints: the last one used first, else a new one."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.client_tls import in_words
from proxy.dataplane import faults, opening
from proxy.dataplane.live import EndpointLive
from proxy.dataplane.upstream import Upstream
from proxy.dataplane.upstream_tls import fault_of
from proxy.errors import Fault
from proxy.tasks import Report, spawn

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange

FRESH_S = 1.0
"""A request that may not be sent twice takes a kept connection no older than this.

Servers drop idle connections after 2 s (gunicorn) to 75 s (nginx); one that was used
within the last second is not about to be dropped."""

_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


def kept(endpoint: EndpointLive, now: float, *, may_repeat: bool) -> Upstream | None:
    """A kept connection to the endpoint, or None."""
    idle = endpoint.idle
    while idle:
        connection = idle[-1]
        if not may_repeat and now - connection.idle_since > FRESH_S:
            return None
        idle.pop()
        if connection.is_usable():
            connection.is_reused = True
            return connection
    return None


def give_back(connection: Upstream, now: float) -> None:
    """Keep the connection for the next exchange."""
    connection.exchange = None
    endpoint = connection.endpoint
    if endpoint.keeps_connections and connection.is_usable() and now < connection.ends_at:
        connection.idle_since = now
        room = endpoint.room
        if room.is_tight and room.take(connection):
            return
        endpoint.idle.append(connection)
    else:
        connection.close()


def connect(
    endpoint: EndpointLive,
    exchange: Exchange,
    timeout_s: float,
    now: Callable[[], float],
    report: Report,
) -> None:
    """Open a connection for the exchange: it is told by `attach` or `connect_failed`.

    There must be room for it: see Room.reserve.
    """
    spawn(
        _connect(endpoint, exchange, timeout_s, now),
        name=f"connect {endpoint.address}",
        report=report,
    )


async def _connect(
    endpoint: EndpointLive, exchange: Exchange, timeout_s: float, now: Callable[[], float]
) -> None:
    fault: Fault
    detail = ""
    try:
        async with asyncio.timeout(timeout_s):
            connection = await opening.opened(endpoint, exchange.plane, timeout_s)
    except TimeoutError:
        fault = faults.CONNECT_TIMEOUT
    except ssl.SSLError as error:
        fault, detail = fault_of(error), in_words(error)
    except socket.gaierror:
        fault = faults.NAME_UNKNOWN
    except OSError as error:
        if error.errno in _OUT_OF_DESCRIPTORS:  # the endpoint was not even asked
            exchange.connect_failed(faults.NO_DESCRIPTOR)
            return
        fault = faults.CONNECT_REFUSED
    else:
        endpoint.connected()
        if exchange.is_done or exchange.upstream is not None:
            give_back(connection, now())
        else:
            exchange.attach(connection)
            exchange.flush_request()
        return
    endpoint.failed_to_connect(now())
    if detail and exchange.plane.note is not None and not exchange.is_done:
        exchange.plane.note(exchange, fault, detail)
    exchange.connect_failed(fault)
