from __future__ import annotations

import asyncio
import io
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import aiohttp
import pytest
import structlog

from proxy.control.admin import app

if TYPE_CHECKING:
    from tests.control.admin.conftest import Admin, Serve

Until = Callable[[Callable[[], bool]], Awaitable[None]]

READABLE = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/status",
    "/v1/services",
    "/v1/services/shop",
    "/v1/services/shop/decisions",
    "/v1/services/shop/drain",
    "/v1/decisions",
    "/v1/config",
]


@pytest.mark.parametrize("path", READABLE)
async def test_head_answers_as_get_but_without_the_body(admin: Admin, path: str) -> None:
    get, head = await admin.get(path), await admin.call("HEAD", path)
    assert (head.status, head.text) == (get.status, "")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    if path != "/metrics":  # its CPU seconds may have another length by now
        assert head.headers["Content-Length"] == str(len(get.text))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/events",
        "/openapi.json",
        "/v1/services/shop/rollout/skip",
        "/v1/services/shop/",
        "/v1/services/shop/pools",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_does_not_exist_is_a_404_problem(admin: Admin, method: str, path: str) -> None:
    reply = await admin.call(method, path)
    assert reply.status == 404
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.json["detail"] == f"There is nothing at {path}."


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/status", "GET, HEAD"),
        ("GET", "/v1/services/shop/switch", "POST"),
        ("POST", "/v1/services/shop/weights", "PUT"),
        ("PUT", "/v1/services/shop/drain", "GET, HEAD, POST"),
        ("GET", "/v1/services/shop/deploy", "POST"),
        ("PUT", "/v1/services/shop/rollout", "POST"),
        ("GET", "/v1/services/shop/rollout/pause", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("OPTIONS", "/v1/services", "GET, HEAD"),
    ],
)
async def test_another_method_is_a_405_that_says_which_are_possible(
    admin: Admin, method: str, path: str, allowed: str
) -> None:
    reply = await admin.call(method, path)
    assert reply.status == 405
    assert reply.headers["Allow"] == allowed
    assert reply.json["title"] == "Method Not Allowed"
    assert allowed in reply.json["detail"]


@pytest.mark.parametrize("path", ["/healthz", "/v1/nothing"])
async def test_every_answer_carries_the_headers_that_keep_browsers_away(
    admin: Admin, path: str
) -> None:
    headers = (await admin.get(path)).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Server"] == "turnout"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize(
    ("path", "limit"),
    [("/v1/services/shop/switch", 64 * 1024), ("/v1/config/check", 1024 * 1024)],
)
async def test_a_body_beyond_its_bound_is_a_413(
    admin: Admin, path: str, limit: int, *, is_chunked: bool
) -> None:
    async def pieces(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 1024):
            yield b" " * 1024
        yield b" " * (size % 1024)

    for size, status in ((limit, {200, 422}), (limit + 1, {413})):
        body = pieces(size) if is_chunked else io.BytesIO(b" " * size)
        reply = await admin.post(path, body)
        assert reply.status in status
    assert f"{limit // 1024} KiB" in reply.json["detail"]


async def test_a_small_compressed_body_that_is_large_inside_is_a_413(admin: Admin) -> None:
    packed = zlib.compress(b" " * 3_000_000)
    reply = await admin.post("/v1/config/check", packed, headers={"Content-Encoding": "deflate"})
    assert reply.status == 413


async def test_a_body_that_is_not_what_its_encoding_says_is_a_400(admin: Admin) -> None:
    reply = await admin.post(
        "/v1/config/check", b"no gzip at all", headers={"Content-Encoding": "gzip"}
    )
    assert reply.status == 400
    assert reply.headers["Content-Type"] == "application/problem+json"


async def test_a_change_goes_on_without_the_client_that_left(admin: Admin, until: Until) -> None:
    admin.desk.gate.clear()
    headers = {"Idempotency-Key": "left"}
    short = aiohttp.ClientTimeout(total=1.0)
    with pytest.raises(TimeoutError):
        await admin.post(
            "/v1/services/shop/switch", {"to": "green"}, headers=headers, timeout=short
        )
    assert admin.desk.active == "blue"
    admin.desk.gate.set()
    await until(lambda: admin.desk.active == "green")


async def test_a_change_that_takes_too_long_is_a_504_and_goes_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(app, "CHANGE_S", 0.05)
    admin = await serve()
    admin.desk.gate.clear()
    headers = {"Idempotency-Key": "slow"}
    reply = await admin.post("/v1/services/shop/switch", {"to": "green"}, headers=headers)
    assert reply.status == 504
    assert "goes on" in reply.json["detail"]
    admin.desk.gate.set()
    await until(lambda: admin.desk.active == "green")


async def test_a_body_that_never_comes_is_a_504(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "CHANGE_S", 0.05)
    admin = await serve()
    host, port = admin.server.addresses[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/services/shop/switch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    )
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 504 ")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
        (b"\x16\x03\x01 hello\r\n\r\n", b"400"),
    ],
)
async def test_a_head_without_a_host_or_sense_is_refused_and_noted_in_one_event(
    admin: Admin, head: bytes, status: bytes
) -> None:
    host, port = admin.server.addresses[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    with structlog.testing.capture_logs() as logs:
        writer.write(head)
        assert (await asyncio.wait_for(reader.readline(), 10)).split()[1] == status
    assert len(logs) <= 1
    writer.close()
    await writer.wait_closed()


async def test_requests_on_one_connection_do_not_disturb_each_other(admin: Admin) -> None:
    replies = await asyncio.gather(*(admin.get("/v1/services/shop") for _ in range(30)))
    assert {reply.status for reply in replies} == {200}
