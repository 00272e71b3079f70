"""The application behind the proxy: a strict little HTTP/1.1 server, one process for a pool's endpoints.

Usage: origin.py POOL RELEASE PORT,PORT,... [CERT KEY [CLIENTS]]; prints a line once it listens.
 With CERT and KEY it speaks TLS, and reads them again on SIGHUP; with CLIENTS its clients
need a certificate of that authority. What it answers depends on the path, see ROUTES. A request that is not plainly right is
answered 400 and remembered under /stats, so that a proxy that garbles one is found out.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

PATTERN = bytes(range(256)) * 256
WS_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class MalformedRequestError(Exception):
    pass


@dataclass(slots=True)
class Endpoint:
    """One listening port, and what it has seen."""

    name: str
    pool: str
    release: str
    requests: int = 0
    connections: int = 0
    malformed: list[str] = field(default_factory=list)
    finished: int = 0
    """Slow requests and streams that ran to their end."""
    checks: int = 0
    health: int = 200
    """The status of its health checks."""
    asks_to_drain: bool = False
    failing: float = 0.0
    """The part of its requests that fails."""
    how: str = "500"
    """What such a request gets: that status, or `reset`."""
    failed: int = 0
    first_failed_s: float = 0.0
    """Monotonic seconds of the first failure since it was told to fail; 0 = none yet."""
    last_asked_s: float = 0.0
    """Monotonic seconds of the last request that was no check and none about itself."""
    draw: random.Random = field(default_factory=lambda: random.Random(4))


@dataclass(slots=True)
class Request:
    endpoint: Endpoint
    method: str
    target: str
    headers: list[tuple[str, str]]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    trailers: list[tuple[str, str]] = field(default_factory=list)
    body_read: bool = False

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    def option(self, name: str, default: str) -> str:
        return dict(parse_qsl(urlsplit(self.target).query)).get(name, default)

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name]
        if len(found) > 1 and name in {"content-length", "transfer-encoding", "host"}:
            raise MalformedRequestError(f"{len(found)} headers {name}")
        return ", ".join(found) if found else None

    def has_body(self) -> bool:
        return self.header("transfer-encoding") is not None or self.header(
            "content-length"
        ) not in {
            None,
            "0",
        }

    async def body(self) -> AsyncIterator[bytes]:
        """Pieces of the body as they come; trailers are there when it has ended."""
        if (coding := self.header("transfer-encoding")) is not None:
            if coding.lower() != "chunked" or self.header("content-length") is not None:
                raise MalformedRequestError(f"framing: {self.headers}")
            async for piece in self._chunks():
                yield piece
        else:
            left = int(self.header("content-length") or 0)
            while left:
                piece = await self.reader.read(min(left, 65536))
                if not piece:
                    raise asyncio.IncompleteReadError(b"", left)
                left -= len(piece)
                yield piece
        self.body_read = True

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield await self.reader.readexactly(size)
            if await self.reader.readexactly(2) != b"\r\n":
                raise MalformedRequestError("a chunk without its end")
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            self.trailers.append((name, value.strip()))

    async def answer(
        self, status: int, body: bytes, *headers: str, kind: str = "text/plain"
    ) -> None:
        lines = [f"HTTP/1.1 {status} Fine", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
        sent = b"" if self.method == "HEAD" else body
        self.writer.write("\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + sent)
        await self.writer.drain()

    async def answer_json(self, value: object) -> None:
        await self.answer(200, json.dumps(value).encode(), kind="application/json")

    async def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode("latin-1") if isinstance(text, str) else text)
        await self.writer.drain()

    async def send_chunk(self, piece: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(piece), piece))


# ---- what each path answers ----


def _identity(request: Request) -> dict[str, object]:
    endpoint = request.endpoint
    return {"pool": endpoint.pool, "release": endpoint.release, "endpoint": endpoint.name}


async def _who(request: Request) -> None:
    await request.answer_json(_identity(request))


async def _stats(request: Request) -> None:
    endpoint = request.endpoint
    counts = {"requests": endpoint.requests, "connections": endpoint.connections}
    more = {
        "malformed": endpoint.malformed,
        "finished": endpoint.finished,
        "checks": endpoint.checks,
        "failed": endpoint.failed,
        "first_failed_s": endpoint.first_failed_s,
        "last_asked_s": endpoint.last_asked_s,
    }
    await request.answer_json({**_identity(request), **counts, **more})


async def _healthz(request: Request) -> None:
    endpoint = request.endpoint
    endpoint.checks += 1
    asking = ["X-Turnout-Drain: 1"] if endpoint.asks_to_drain else []
    await request.answer(endpoint.health, b"healthy, or not", *asking)


async def _set_health(request: Request) -> None:
    request.endpoint.health = int(request.option("status", "200"))
    request.endpoint.asks_to_drain = request.option("drain", "") == "1"
    await request.answer_json({})


async def _misbehave(request: Request) -> None:
    """Fail a part of all that is asked from now on."""
    endpoint = request.endpoint
    endpoint.failing = float(request.option("share", "1"))
    endpoint.how = request.option("how", "500")
    endpoint.first_failed_s = 0.0
    await request.answer_json({})


async def _fail(request: Request) -> None:
    endpoint = request.endpoint
    endpoint.failed += 1
    endpoint.first_failed_s = endpoint.first_failed_s or time.monotonic()
    if endpoint.how != "reset":
        await request.answer(int(endpoint.how), b"out of order")
        return
    request.writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
    )
    request.writer.transport.abort()


async def _slow(request: Request) -> None:
    await asyncio.sleep(float(request.option("s", "2")))
    await _who(request)
    request.endpoint.finished += 1


async def _stream(request: Request) -> None:
    """Server-sent events, numbered, one every `every` seconds for `s` seconds."""
    every, left = float(request.option("every", "0.1")), float(request.option("s", "1"))
    await request.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    number = 0
    while left > 0:
        event = {**_identity(request), "n": number}
        await request.send_chunk(f"data: {json.dumps(event)}\n\n".encode())
        await asyncio.sleep(every)
        left -= every
        number += 1
    await request.send("0\r\n\r\n")
    request.endpoint.finished += 1


async def _echo(request: Request) -> None:
    digest, length = hashlib.sha256(), 0
    async for piece in request.body():
        digest.update(piece)
        length += len(piece)
    await request.answer_json(
        {
            "length": length,
            "sha256": digest.hexdigest(),
            "trailers": request.trailers,
            "chunked": request.header("transfer-encoding") is not None,
        }
    )


async def _late(request: Request) -> None:
    """Read none of the body for `s` seconds, then all of it."""
    await asyncio.sleep(float(request.option("s", "1")))
    await _echo(request)


async def _duplex(request: Request) -> None:
    """Every piece of the body is answered at once, before the next one is read."""
    await request.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    async for piece in request.body():
        await request.send_chunk(piece)
    await request.send("0\r\n\r\n")


def _pattern(size: int) -> list[bytes]:
    whole, rest = divmod(size, len(PATTERN))
    return [PATTERN] * whole + [PATTERN[:rest]]


async def _big(request: Request) -> None:
    size = int(request.option("bytes", "1000000"))
    await request.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")
    for piece in _pattern(size):
        await request.send(piece)


async def _chunked(request: Request) -> None:
    await request.send(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        "5;note=1\r\nhello\r\n7\r\n, world\r\n0\r\nX-Sum: 12\r\n\r\n"
    )


async def _close(request: Request) -> None:
    await request.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end of ")
    await asyncio.sleep(0.05)
    await request.send(b"the connection")
    request.writer.close()


async def _headers(request: Request) -> None:
    line = f"{request.method} {request.target}"
    await request.answer_json({"line": line, "headers": request.headers})


async def _broken(request: Request) -> None:
    framing = {
        "length": "Content-Length: 1000\r\n\r\nonly this",
        "chunked": "Transfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
        "chunk": "Transfer-Encoding: chunked\r\n\r\nff\r\nonly this",
    }
    await request.send(f"HTTP/1.1 200 OK\r\n{framing[request.option('how', 'length')]}")
    await asyncio.sleep(0.05)
    request.writer.close()


async def _early(request: Request) -> None:
    """Answer 413 with the body unread, and close."""
    await request.answer(413, b"too much", "Connection: close")
    request.writer.close()


async def _status(request: Request) -> None:
    code = int(request.option("code", "204"))
    length = "" if code in {204, 304} else "Content-Length: 0\r\n"
    await request.send(f'HTTP/1.1 {code} Such\r\nETag: "e"\r\n{length}\r\n')


async def _hints(request: Request) -> None:
    await request.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
    await asyncio.sleep(0.05)
    await _who(request)


async def _continue(request: Request) -> None:
    """Ask for the body when the client waits to be asked."""
    expected = request.header("expect") or ""
    if expected.lower() == "100-continue":
        await request.send("HTTP/1.1 100 Continue\r\n\r\n")
    await _echo(request)


async def _unwanted(request: Request) -> None:
    await request.answer(417, b"no, thank you", "Connection: close")
    request.writer.close()


async def _garbage(request: Request) -> None:
    await request.send("220 smtp.example.com ready\r\n\r\n")
    request.writer.close()


async def _die(request: Request) -> None:
    request.writer.close()


async def _ws(request: Request) -> None:
    """WebSocket: says who it is, then echoes; with `push=0.05` it also talks by itself."""
    accept = hashlib.sha1((request.header("sec-websocket-key") or "").encode() + WS_GUID.encode())
    await request.send(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(accept.digest()).decode()}\r\n\r\n"
    )
    await _ws_send(request, 1, json.dumps(_identity(request)).encode())
    every = float(request.option("push", "0"))
    pusher = asyncio.get_running_loop().create_task(_ws_push(request, every)) if every else None
    try:
        while True:
            opcode, payload = await _ws_frame(request.reader)
            await _ws_send(request, opcode if opcode != 9 else 10, payload)
            if opcode == 8:
                break
    finally:
        if pusher is not None:
            pusher.cancel()
    request.writer.close()


async def _ws_push(request: Request, every: float) -> None:
    while True:
        await _ws_send(request, 1, b"p" * 300)
        await asyncio.sleep(every)


async def _ws_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    mask = await reader.readexactly(4)
    masked = await reader.readexactly(size)
    return first & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked))


async def _ws_send(request: Request, opcode: int, payload: bytes) -> None:
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    await request.send(bytes([0x80 | opcode]) + length + payload)


ROUTES: dict[str, Callable[[Request], Awaitable[None]]] = {
    "/stats": _stats,
    "/healthz": _healthz,
    "/set-health": _set_health,
    "/misbehave": _misbehave,
    "/slow": _slow,
    "/stream": _stream,
    "/echo": _echo,
    "/late": _late,
    "/duplex": _duplex,
    "/big": _big,
    "/chunked": _chunked,
    "/close": _close,
    "/headers": _headers,
    "/broken": _broken,
    "/early": _early,
    "/status": _status,
    "/hints": _hints,
    "/continue": _continue,
    "/unwanted": _unwanted,
    "/garbage": _garbage,
    "/die": _die,
    "/ws": _ws,
}


ABOUT_ITSELF = {"/stats", "/healthz", "/set-health", "/misbehave"}


def _answer_to(request: Request) -> Callable[[Request], Awaitable[None]]:
    endpoint, path = request.endpoint, request.path
    if path not in ABOUT_ITSELF:
        endpoint.last_asked_s = time.monotonic()
        if endpoint.failing and endpoint.draw.random() < endpoint.failing:
            return _fail
    return ROUTES.get(path, _who)


# ---- the connection ----


async def _read_request(
    endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1")
    first, *lines = head.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[2] != "HTTP/1.1":
        raise MalformedRequestError(f"request line {first!r}")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip() or not name:
            raise MalformedRequestError(f"header line {line!r}")
        headers.append((name, value.strip()))
    request = Request(endpoint, words[0], words[1], headers, reader, writer)
    if request.header("host") is None:
        raise MalformedRequestError("no Host")
    return request


async def _serve(
    endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    endpoint.connections += 1
    try:
        while not writer.is_closing():
            request = await _read_request(endpoint, reader, writer)
            endpoint.requests += 1
            await _answer_to(request)(request)
            if request.has_body() and not request.body_read and not writer.is_closing():
                async for _ in request.body():
                    pass
    except MalformedRequestError as error:
        endpoint.malformed.append(str(error))
        writer.write(b"HTTP/1.1 400 Malformed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    except (OSError, asyncio.IncompleteReadError):
        pass  # the other side has gone, which is its right
    finally:
        writer.close()


def _tls(files: list[str]) -> ssl.SSLContext | None:
    if not files:
        return None
    cert, key, *clients = files
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    for authority in clients:
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, context.load_cert_chain, cert, key)
    return context


async def _run(pool: str, release: str, ports: list[int], *files: str) -> None:
    context = _tls(list(files))
    servers = []
    for number, port in enumerate(ports, 1):
        endpoint = Endpoint(f"{pool}-{number}", pool, release)
        endpoint.draw.seed()

        async def accept(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            endpoint: Endpoint = endpoint,
        ) -> None:
            await _serve(endpoint, reader, writer)

        server = await asyncio.start_server(
            accept, "127.0.0.1", port, limit=256 * 1024, backlog=1024, ssl=context
        )
        servers.append(server)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], sys.argv[2], [*map(int, sys.argv[3].split(","))], *sys.argv[4:]))
