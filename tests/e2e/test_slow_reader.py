"""A client that does not take its answer costs nobody else theirs, and no memory."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.e2e.stage import Stage
from tests.e2e.wire import Wire
from tests.ports import free_port

SIZES = range(150_000, 900_000, 10_000)
"""Around what a socket holds: some answers end just when the client's buffer is full."""


def _client(path: Path) -> socket.socket:
    """A client by a unix socket: what the kernel holds for it does not grow as with TCP."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client


async def test_a_client_that_stops_reading_leaves_no_deaf_connection_behind(
    stage: Stage, tmp_path: Path
) -> None:
    path = tmp_path / "front"
    port = free_port()
    listeners = [{"bind": f"127.0.0.1:{port}"}, {"bind": f"unix:{path}"}]
    turnout = stage.turnout(stage.origin("blue"), [], workers=1, top={"listeners": listeners})
    clients = []
    try:
        for size in SIZES:
            client = _client(path)
            clients.append(client)
            client.sendall(b"GET /big?bytes=%d HTTP/1.1\r\nHost: shop\r\n\r\n" % size)
            async with await Wire.to(turnout.port) as wire:
                for _ in range(2):
                    assert (await wire.request("/who")).status == 200
    finally:
        for client in clients:
            client.close()


async def test_pipelined_answers_wait_for_a_client_that_stops_reading(
    stage: Stage, tmp_path: Path
) -> None:
    path = tmp_path / "front"
    listeners = [{"bind": f"127.0.0.1:{free_port()}"}, {"bind": f"unix:{path}"}]
    turnout = stage.turnout(stage.origin("blue"), [], workers=1, top={"listeners": listeners})
    before = turnout.rss_kib()
    head = b"GET /big?bytes=%d HTTP/1.1\r\nHost: shop\r\n\r\n"
    clients = []
    try:
        for size in SIZES:
            client = _client(path)
            clients.append(client)
            client.sendall(head % size + head % 50_000_000)
        async with await Wire.to(turnout.port) as wire:
            for _ in range(50):
                assert (await wire.request("/big?bytes=1000000")).status == 200
        assert turnout.rss_kib() - before < 60 * 1024
    finally:
        for client in clients:
            client.close()
