"""TLS over a plain transport, with a client that looks at every record."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import trustme

from proxy.dataplane import tls_layer, tls_transport
from proxy.dataplane.tls_transport import TlsTransport
from tests.dataplane.box import until
from tests.dataplane.tls_client import TlsClient

AUTHORITY = trustme.CA()


def server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("shop.example").configure_cert(context)
    return context


class App(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.read = b""
        self.keeps_open = True
        self.transport: TlsTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsTransport)
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.read += data

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.keeps_open

    def connection_lost(self, _: Exception | None) -> None:
        self.told.append("lost")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


class Ends:
    """Both ends of one connection."""

    def __init__(self) -> None:
        self.app = App()
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setblocking(False)
        self.ours = ours
        self.client = TlsClient(theirs, AUTHORITY, "shop.example")
        self.accepting = asyncio.get_running_loop().create_task(
            tls_transport.accept(ours, server(), lambda: self.app, lambda: b"plain")
        )

    async def open(self) -> None:
        await self.client.shake()
        await self.accepting


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    yield made
    made.client.close()
    made.accepting.cancel()
    with suppress(asyncio.CancelledError, OSError):
        await made.accepting
    if made.app.told:
        made.app.transport.abort()
        await until(lambda: made.app.told[-1] == "lost", "the application hears of the end")


async def test_bytes_flow_both_ways(ends: Ends) -> None:
    await ends.open()
    assert ends.app.told == ["made"]
    await ends.client.send(b"hello")
    await until(lambda: ends.app.read == b"hello", "it is read")
    ends.app.transport.write(b"and back")
    assert await ends.client.read() == b"and back"


async def test_what_comes_with_the_end_of_the_handshake_is_read(ends: Ends) -> None:
    await ends.client.shake(then=b"at once")
    await ends.accepting
    await until(lambda: ends.app.read == b"at once", "it is read")


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 1_000_000])
async def test_every_size_arrives_whole(ends: Ends, size: int) -> None:
    await ends.open()
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    ends.app.transport.write(data)
    ends.app.transport.close()
    assert await ends.client.rest() == (data, "close_notify")
    await until(lambda: ends.app.told[-1] == "lost", "the application hears of the end")
    assert ends.app.told.count("lost") == 1


async def test_a_close_is_said_and_an_abort_is_not(ends: Ends) -> None:
    await ends.open()
    ends.app.transport.write(b"half")
    await until(lambda: not ends.app.transport.get_write_buffer_size(), "it is written")
    ends.app.transport.abort()
    assert await ends.client.rest() == (b"half", "cut")


async def test_one_side_may_end_while_the_other_goes_on(ends: Ends) -> None:
    await ends.open()
    assert ends.app.transport.can_write_eof()
    ends.app.transport.write(b"too large")
    ends.app.transport.write_eof()
    assert await ends.client.rest() == (b"too large", "close_notify")
    await ends.client.send(b"the rest of a body")
    await until(lambda: ends.app.read == b"the rest of a body", "it is read all the same")
    ends.app.transport.write(b"not said any more")
    ends.app.transport.close()
    assert await ends.client.raw() == b""


async def test_a_client_that_ends_its_side_is_still_answered(ends: Ends) -> None:
    await ends.open()
    await ends.client.send(b"question")
    await ends.client.end()
    await until(lambda: "eof" in ends.app.told, "the end is passed on")
    assert ends.app.read == b"question"
    ends.app.transport.write(b"answer")
    assert await ends.client.read() == b"answer"
    assert ends.app.told == ["made", "eof"], "once"


async def test_a_client_that_leaves_without_a_word_has_ended_too(ends: Ends) -> None:
    await ends.open()
    ends.app.keeps_open = False
    ends.client.finish()
    await until(lambda: ends.app.told == ["made", "eof", "lost"], "it is over")


async def test_a_reader_that_pauses_is_paused_at_the_socket(ends: Ends) -> None:
    await ends.open()
    ends.app.transport.pause_reading()
    assert not ends.app.transport.is_reading()
    sent = asyncio.get_running_loop().create_task(ends.client.send(b"x" * 4_000_000))
    await asyncio.sleep(0.1)
    assert not sent.done(), "the kernel's buffers are full"
    assert len(ends.app.read) < 600_000
    ends.app.transport.resume_reading()
    await sent
    await until(lambda: len(ends.app.read) == 4_000_000, "everything is read")


async def test_a_client_that_does_not_read_pauses_the_writer(ends: Ends) -> None:
    await ends.open()
    transport = ends.app.transport
    while "pause" not in ends.app.told:
        transport.write(b"x" * 65536)
    await asyncio.sleep(0.05)
    assert transport.get_write_buffer_size() > 0, "what is written is not sent yet"
    size = len(await ends.client.read(most=10_000_000, until=lambda: "resume" in ends.app.told))
    assert size > 65536


class Asking:
    """A session whose client asks for an answer of TLS itself, again and again."""

    def __init__(self, outgoing: ssl.MemoryBIO) -> None:
        self._outgoing = outgoing

    def read(self, _: int) -> bytes:
        self._outgoing.write(b"no")
        raise ssl.SSLWantReadError


@pytest.mark.parametrize("is_bounded", [True, False])
async def test_a_client_that_asks_tls_itself_and_reads_nothing_is_cut(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, is_bounded: object
) -> None:
    await ends.open()
    if is_bounded:
        monkeypatch.setattr(tls_layer, "MOST_UNREAD", -1)
    monkeypatch.setattr(ends.app.transport, "_tls", Asking(ends.app.transport._outgoing))
    ends.app.transport.data_received(b"anything")
    assert ends.app.transport.is_closing() is is_bounded


async def test_garbage_ends_the_handshake_with_an_alert(ends: Ends) -> None:
    await ends.client.send_raw(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
    with pytest.raises(ssl.SSLError):
        await ends.accepting
    assert ends.app.told == []


async def test_garbage_after_the_handshake_breaks_the_connection(ends: Ends) -> None:
    await ends.open()
    await ends.client.send_raw(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    await until(lambda: ends.app.told == ["made", "lost"], "it is over")
    assert ends.app.read == b""


async def test_a_client_that_leaves_in_the_handshake_is_a_failure(ends: Ends) -> None:
    ends.client.finish()
    with pytest.raises(OSError, match="left during the handshake"):
        await ends.accepting
    assert ends.app.told == []


async def test_whoever_waits_too_long_may_give_up(ends: Ends) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await ends.accepting
    assert await ends.client.raw() == b""


async def test_another_protocol_may_take_over(ends: Ends) -> None:
    await ends.open()
    heir = App()
    heir.transport = ends.app.transport
    ends.app.transport.set_protocol(heir)
    assert ends.app.transport.get_protocol() is heir
    await ends.client.send(b"frames")
    await until(lambda: heir.read == b"frames", "the new one reads")
    ends.app.transport.set_protocol(ends.app)


async def test_it_knows_its_socket_and_its_session(ends: Ends) -> None:
    await ends.open()
    transport = ends.app.transport
    assert transport.get_extra_info("socket").fileno() == ends.ours.fileno()
    assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
    assert not transport.is_closing()
    transport.set_write_buffer_limits(high=10)
    assert transport.get_write_buffer_limits()[1] == 10
    transport.abort()
    assert transport.is_closing()
