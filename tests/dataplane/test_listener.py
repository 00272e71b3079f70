"""Listeners: limits of connections, and addresses of every kind."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from proxy.model import WHOLE, Listener, Snapshot
from tests.dataplane.box import Box, until


async def test_a_changed_limit_holds_for_the_next_connection(box: Box) -> None:
    endpoint = await box.endpoint()
    await box.serve(endpoint, listener={"max_connections": 1})
    first = await box.client()
    assert (await first.request("/")).status == 200
    assert (await (await box.client()).answer()).status == 503
    await box.serve(endpoint, listener={"max_connections": 2})
    assert (await (await box.client()).request("/")).status == 200
    assert (await first.request("/")).status == 200


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
