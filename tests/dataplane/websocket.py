"""WebSockets by hand: the bytes of frames, and what a client and an endpoint say."""

from __future__ import annotations

import asyncio

from proxy.http1.frames import SERVICE_RESTART
from tests.dataplane.box import Peer
from tests.e2e.wire import Wire

ASK = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
TEXT, CONTINUATION, CLOSE = 1, 0, 8


def frame(opcode: int, payload: bytes, *, fin: bool = True, mark: int = 0) -> bytes:
    size = len(payload)
    length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes(((0x80 if fin else 0) | mark | opcode,)) + length + payload


def masked_close(code: int) -> bytes:
    """A client's Close, masked with zeros."""
    return b"\x88\x82" + bytes(4) + code.to_bytes(2, "big")


def switch(extensions: bytes) -> bytes:
    return SWITCH[:-2] + b"Sec-WebSocket-Extensions: " + extensions + b"\r\n\r\n"


async def told_to_close(wire: Wire) -> None:
    """Read a Close 1012, and nothing else, that no byte follows; answer it."""
    async with asyncio.timeout(30):
        first, size = await wire._reader.readexactly(2)
        assert first == 0x88, f"{first:#x} is not the first byte of a Close"
        payload = await wire._reader.readexactly(size)
    assert int.from_bytes(payload[:2], "big") == SERVICE_RESTART
    assert payload[2:].decode()
    await wire.send(masked_close(SERVICE_RESTART))


async def closing(peer: Peer) -> None:
    """Play an endpoint that is told Close by the client: answer, and close."""
    assert await peer.reader.readexactly(8) == masked_close(SERVICE_RESTART)
    await peer.send(frame(CLOSE, SERVICE_RESTART.to_bytes(2, "big")))
    peer.writer.close()
