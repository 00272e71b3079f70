"""WebSockets through a tunnel: whatever a client sends, it sees the same as without the proxy.

The families are those by which implementations of RFC 6455 are usually examined: framing, pings,
reserved bits, opcodes, fragments, UTF-8, closing, sizes, compression. Neither the frames nor their
faults are the proxy's matter, so each case is a client's bytes, sent to an echo server directly and
through the proxy, and all that comes back until the end must be the same, byte for byte.
"""

from __future__ import annotations

import asyncio
import codecs
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import pytest
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from tests.dataplane.box import Box, until
from tests.e2e.wire import Wire

MASK = b"\x37\xfa\x21\x3d"
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KIB, MIB = 1024, 1024 * 1024
BYE = (1000).to_bytes(2, "big")
DEFLATE = "permessage-deflate"


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    if not any(mask):
        return payload
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes = MASK
) -> bytes:
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    first = bytes((0x80 * fin | rsv << 4 | opcode,))
    return first + length + mask + masked(payload, mask)


def close(code: int = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


def fragments(opcode: int, pieces: list[bytes], between: bytes = b"") -> bytes:
    """A message in as many frames, with something between each two of them."""
    frames = [
        frame(CONT if index else opcode, piece, fin=index == len(pieces) - 1)
        for index, piece in enumerate(pieces)
    ]
    return between.join(frames)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    data: bytes
    chop: int = 0
    """Bytes of one write; 0 = all at once."""
    offer: str = ""
    """What the client offers as extensions."""

    def __str__(self) -> str:
        return self.name


def _framing() -> Iterator[Case]:
    for size in (0, 1, 125, 126, 127, 128, 65535, 65536):
        for opcode, name in ((TEXT, "text"), (BINARY, "binary")):
            yield Case(f"{name} of {size}", frame(opcode, b"*" * size) + close())
    for chop in (1, 997):
        yield Case(f"text written by {chop}", frame(TEXT, b"*" * 4096) + close(), chop)
    short = MASK + masked(b"hi") + close()
    yield Case("a frame that is not masked", b"\x81\x02hi")
    yield Case("a length of 16 bits for a short one", b"\x81\xfe\x00\x02" + short)
    yield Case("a length of 64 bits for a short one", b"\x81\xff" + bytes(7) + b"\x02" + short)
    yield Case("no frame at all", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")


def _pings() -> Iterator[Case]:
    for payload in (b"", b"Hello", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"*" * 125):
        yield Case(f"ping of {len(payload)}", frame(PING, payload) + close())
        yield Case(f"ping of {len(payload)}, by bytes", frame(PING, payload) + close(), 1)
    yield Case("ping of 126", frame(PING, b"*" * 126))
    yield Case("pong that nobody waits for", frame(PONG, b"unsolicited") + close())
    yield Case("pong and ping", frame(PONG, b"a") + frame(PING, b"b") + close())
    ten = b"".join(frame(PING, b"payload-%d" % n) for n in range(10)) + close()
    yield from (Case("ten pings", ten), Case("ten pings, by bytes", ten, 1))


def _reserved() -> Iterator[Case]:
    for rsv in range(1, 8):
        for opcode in (TEXT, BINARY, PING, CLOSE):
            before = frame(TEXT, b"before") + frame(PING)
            yield Case(
                f"opcode {opcode}, reserved bits {rsv}", before + frame(opcode, BYE, rsv=rsv)
            )


def _opcodes() -> Iterator[Case]:
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Case(f"opcode {opcode}", frame(opcode))
        data = frame(TEXT, b"before") + frame(opcode, b"payload") + frame(PING)
        yield Case(f"opcode {opcode} between others", data)


def _fragments() -> Iterator[Case]:
    two = [b"fragment1", b"fragment2"]
    ping = frame(PING, b"between")
    for chop in (0, 1):
        how = " by bytes" if chop else ""
        yield Case("two fragments" + how, fragments(TEXT, two) + close(), chop)
        yield Case("a ping between them" + how, fragments(TEXT, two, ping) + close(), chop)
        many = fragments(BINARY, cut(b"x" * 400, 7), ping) + close()
        yield Case("many, and pings between them" + how, many, chop)
    for opcode, name in ((PING, "ping"), (PONG, "pong"), (CLOSE, "close")):
        yield Case(f"a {name} in fragments", fragments(opcode, [b"\x03", b"\xe8"]))
    yield Case("a continuation of nothing", frame(CONT, b"x") + frame(TEXT, b"hi"))
    yield Case("a continuation behind the end", fragments(TEXT, two) + frame(CONT, b"x"))
    yield Case("a message within a message", frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"))
    yield Case("a close within a message", frame(TEXT, b"a", fin=False) + close())
    yield Case("empty fragments", fragments(TEXT, [b"", b"", b""]) + close())


_GOOD = "\u03ba\u1f79\u03c3\u03bc\u03b5 \U0001f600 \ufffd \x00".encode()
_BAD = (
    b"\x80",
    b"\xbf",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"\xce",
    b"\xe2\x82",
    b"\xf0\x9f\x98",
    b"ab\xce\xbaed\xff",
)


def _text() -> Iterator[Case]:
    yield Case("good text", frame(TEXT, _GOOD) + close())
    yield Case("good text in fragments of a byte", fragments(TEXT, cut(_GOOD, 1)) + close())
    for bad in _BAD:
        yield Case(f"bad text {bad.hex()}", frame(TEXT, _GOOD + bad) + frame(PING))
        parts = fragments(TEXT, [_GOOD, bad, b"edited"])
        yield Case(f"bad text {bad.hex()} in fragments", parts + frame(PING), 3)
        yield Case(f"bad text {bad.hex()} as binary", frame(BINARY, bad) + close())


def _closing() -> Iterator[Case]:
    good = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999)
    for code in (*good, 0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
        yield Case(f"close {code}", close(code, b"why"))
    yield Case("close without a code", frame(CLOSE))
    yield Case("close with half a code", frame(CLOSE, b"\x03"))
    yield Case("close of 125", close(1000, b"*" * 123))
    yield Case("close of 126", close(1000, b"*" * 124))
    yield Case("close with a bad reason", close(1000, b"\xce\xba\xed\xa0\x80"))
    for name, more in (("text", frame(TEXT, b"x")), ("ping", frame(PING)), ("close", close())):
        yield Case(f"{name} behind the close", frame(TEXT, b"a") + close() + more)
    yield Case("close by bytes", close(1001, b"going"), 1)


def _sizes() -> Iterator[Case]:
    plain = bytes(4)
    for opcode, name in ((TEXT, "text"), (BINARY, "binary")):
        whole = frame(opcode, b"*" * (16 * MIB), mask=plain) + close()
        yield Case(f"{name} of 16 MiB", whole)
    yield Case("4 MiB in fragments", fragments(BINARY, cut(b"*" * (4 * MIB), 4 * KIB)) + close())
    yield Case("1 MiB written by 64 KiB", frame(TEXT, b"*" * MIB) + close(), 64 * KIB)
    yield Case("a thousand messages", frame(TEXT, b"x") * 1000 + close(), 4096)


def _compressed(text: bytes, *, bits: int = 15, resets: bool = False) -> Iterator[bytes]:
    compressor = zlib.compressobj(wbits=-bits)
    for piece in cut(text, 500):
        if resets:
            compressor = zlib.compressobj(wbits=-bits)
        data = compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH)
        yield frame(TEXT, data[:-4], rsv=4)


def _compression() -> Iterator[Case]:
    text = b'{"key": [1, 2, 3], "text": "again and again"} ' * 100
    offers = {
        DEFLATE: {},
        f"{DEFLATE}; client_max_window_bits": {},
        f"{DEFLATE}; client_max_window_bits=10; server_max_window_bits=10": {"bits": 10},
        f"{DEFLATE}; server_no_context_takeover": {},
        f"{DEFLATE}; client_no_context_takeover": {"resets": True},
        f"{DEFLATE}; server_max_window_bits=9, {DEFLATE}": {"resets": True},
    }
    for offer, kind in offers.items():
        data = b"".join(_compressed(text, **kind)) + close()  # type: ignore[arg-type]
        yield Case(f"compressed: {offer}", data, offer=offer)
    yield Case("compressed by bytes", b"".join(_compressed(text)) + close(), 1, DEFLATE)
    plain = frame(TEXT, text) + close()
    yield Case("not compressed after all", plain, offer=DEFLATE)
    yield Case("compressed, though nobody agreed", next(_compressed(text)))
    yield Case("compressed rubbish", frame(TEXT, b"\xff\xff\xff rubbish", rsv=4), offer=DEFLATE)
    yield Case("an extension that nobody knows", plain, offer="x-unknown; a=b")
    yield Case("an offer that is malformed", plain, offer=f"{DEFLATE}; client_max_window_bits=99")


FAMILIES = {
    "framing": _framing,
    "pings": _pings,
    "reserved bits": _reserved,
    "opcodes": _opcodes,
    "fragments": _fragments,
    "text": _text,
    "closing": _closing,
    "sizes": _sizes,
    "compression": _compression,
}


class EchoProtocol(ServerProtocol):
    """Answers frame by frame, so that what it says does not depend on pieces or speed."""

    def __init__(self) -> None:
        super().__init__(
            extensions=[ServerPerMessageDeflateFactory()],
            subprotocols=[Subprotocol("chat")],
            max_size=None,
        )
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._is_text = False

    def recv_frame(self, frame: Frame) -> None:
        super().recv_frame(frame)
        data = bytes(frame.data)
        if frame.opcode in {TEXT, BINARY}:
            self._is_text = frame.opcode == TEXT
        if frame.opcode in {TEXT, CONT} and self._is_text:
            self._decoder.decode(data, frame.fin)  # its error makes them close with 1007
        if frame.opcode == TEXT:
            self.send_text(data, frame.fin)
        elif frame.opcode == BINARY:
            self.send_binary(data, frame.fin)
        elif frame.opcode == CONT:
            self.send_continuation(data, frame.fin)


class Echo(asyncio.Protocol):
    """One connection of the echo server, which has its own opinion of every frame."""

    def __init__(self) -> None:
        self._protocol = EchoProtocol()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._protocol.send_response(self._protocol.accept(event))
        self._flush()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif not self._transport.is_closing():
                self._transport.write_eof()


@pytest.fixture
async def server() -> AsyncIterator[int]:
    """The port of an echo server."""
    running = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    yield running.sockets[0].getsockname()[1]
    running.close()


def _ask(case: Case) -> bytes:
    lines = [
        "GET /ws HTTP/1.1",
        "Host: shop.example.com",
        "Upgrade: websocket",
        "Connection: keep-alive, Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: superchat, chat",
    ]
    if case.offer:
        lines.append(f"Sec-WebSocket-Extensions: {case.offer}")
    return "\r\n".join([*lines, "", ""]).encode()


async def _seen(port: int, case: Case) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status and the WebSocket's own headers, and every byte from then to the end."""
    async with await Wire.to(port) as wire:
        await wire.send(_ask(case))
        head = await wire.head()
        own = [pair for pair in head.headers if pair[0].startswith("sec-websocket-")]
        reading = asyncio.get_running_loop().create_task(_rest(wire))
        for piece in cut(case.data, case.chop or len(case.data)):
            if wire.has_ended:
                break
            await wire.send(piece)
        return head.status, own, await reading


async def _rest(wire: Wire) -> bytes:
    """Everything until the end, which must be no reset: that could take bytes along."""
    async with asyncio.timeout(30):
        return await wire._reader.read()


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_client_sees_the_same_through_the_proxy(box: Box, server: int, family: str) -> None:
    await box.serve(f"127.0.0.1:{server}")
    for case in FAMILIES[family]():
        direct = await _seen(server, case)
        assert direct[0] == 101, case
        assert b"\x88" in direct[2][-127:], case  # it ends with a Close
        proxied = await _seen(box.port, case)
        assert proxied[:2] == direct[:2], case
        assert proxied[2] == direct[2], case
    await until(lambda: not box.plane.connections, "every tunnel is over")


def test_every_case_has_its_own_name() -> None:
    names = [case.name for family in FAMILIES.values() for case in family()]
    assert len(names) > 200
    assert not [a for a, b in pairwise(sorted(names)) if a == b]
