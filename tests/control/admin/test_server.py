from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxy.control.admin.server import AdminServer

if TYPE_CHECKING:
    from tests.control.admin.conftest import Admin, Serve

Until = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
async def test_it_answers_where_it_says_it_listens(serve: Serve, bind: str) -> None:
    admin = await serve(bind=bind)
    for address in admin.server.addresses:
        assert not address.endswith(":0")
        admin.url = f"http://{address}"
        assert (await admin.get("/healthz")).status == 200


async def test_a_unix_socket_is_served_and_its_file_goes_with_the_server(
    serve: Serve, short: Path
) -> None:
    path = short / "admin.sock"
    admin = await serve(bind=f"unix:{path}")
    assert (await admin.get("/v1/status")).status == 200
    await admin.server.stop()
    assert not path.exists()


async def test_an_open_socket_is_served_and_left_to_its_owner(admin: Admin) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as own:
        port = own.getsockname()[1]
        server = AdminServer(admin.desk, admin.instruments, bind="127.0.0.1:9900", sock=own)
        await server.start()
        assert server.addresses == [f"127.0.0.1:{port}"]
        admin.url = f"http://127.0.0.1:{port}"
        assert (await admin.get("/healthz")).status == 200
        await server.stop()
        assert own.fileno() > 0
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


async def test_a_taken_address_fails_the_start_with_a_sentence(admin: Admin) -> None:
    taken = admin.server.addresses[0]
    second = AdminServer(admin.desk, admin.instruments, bind=taken)
    with pytest.raises(OSError, match=f"cannot listen on {taken}"):
        await second.start()
    assert second.addresses == []
    await second.stop()


async def test_after_a_stop_nobody_answers(admin: Admin) -> None:
    host, port = admin.server.addresses[0].split(":")
    await admin.server.stop()
    assert admin.server.addresses == []
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))


async def test_stopping_twice_is_harmless(admin: Admin) -> None:
    await admin.server.stop()
    await admin.server.stop()


async def test_a_request_that_runs_at_a_stop_gets_its_answer(admin: Admin, until: Until) -> None:
    admin.desk.gate.clear()
    switch = asyncio.gather(admin.post("/v1/services/shop/switch", {"to": "green"}))
    await until(lambda: len(admin.desk.asked) == 1)
    stop = asyncio.gather(admin.server.stop())
    await asyncio.sleep(0)
    admin.desk.gate.set()
    (reply,) = await switch
    await stop
    assert reply.status == 200
