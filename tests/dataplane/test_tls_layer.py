"""Both sides of the TLS layer, one against the other over a pair of sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import pytest
import trustme

from proxy.dataplane import tls_transport
from proxy.dataplane.tls_connection import TlsConnection
from proxy.dataplane.tls_layer import LOST, TlsLayer
from proxy.dataplane.tls_transport import TlsTransport
from tests.dataplane.box import until

AUTHORITY = trustme.CA()
NAME = "shop.example"


def server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(NAME).configure_cert(context)
    return context


def client() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    AUTHORITY.configure_trust(context)
    return context


class Above(asyncio.Protocol):
    """Notes what it is told, and keeps its side open."""

    def __init__(self) -> None:
        self.read = b""
        self.has_heard_end = False
        self.lost: list[Exception | None] = []
        self.transport: TlsLayer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsLayer)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.read += data

    def eof_received(self) -> bool:
        self.has_heard_end = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class Both:
    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        for each in (self.ours, self.theirs):
            each.setblocking(False)
        self.server = Above()
        self.client = Above()
        self.sessions: list[ssl.SSLSession] = []

    def connection(self, name: str = NAME) -> TlsConnection:
        return TlsConnection(self.client, client(), name, None, self.sessions.append)

    async def open(self, connection: TlsConnection) -> None:
        """Shake hands; OSError of the client if that fails, and of the server in its task."""
        loop = asyncio.get_running_loop()
        self.accepting = loop.create_task(
            tls_transport.accept(self.ours, server(), lambda: self.server, bytes)
        )
        await loop.create_connection(lambda: connection, sock=self.theirs)
        await connection.handshake()
        await self.accepting

    async def end(self) -> None:
        for side in (self.client, self.server):
            if hasattr(side, "transport"):
                side.transport.abort()
                await until(lambda side=side: side.lost, "it hears of the end")  # type: ignore[misc]
                assert len(side.lost) == 1
        for each in (self.ours, self.theirs):
            each.close()


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    made = Both()
    yield made
    await made.end()


Turn = Callable[[Both], tuple[Above, Above]]


@pytest.fixture(params=["client", "server"])
def turn(request: pytest.FixtureRequest) -> Turn:
    """Who acts, and who hears of it."""
    if request.param == "client":
        return lambda both: (both.client, both.server)
    return lambda both: (both.server, both.client)


async def test_much_arrives_whole_in_either_direction(both: Both, turn: Turn) -> None:
    await both.open(both.connection())
    one, other = turn(both)
    data = bytes(range(253)) * 8000
    one.transport.write(b"")
    one.transport.writelines([data[:100], memoryview(data)[100:]])
    await until(lambda: len(other.read) == len(data), "it arrives")
    assert other.read == data


async def test_an_end_is_heard_while_the_other_side_goes_on(both: Both, turn: Turn) -> None:
    await both.open(both.connection())
    one, other = turn(both)
    one.transport.write(b"all I say")
    for _ in range(2):
        one.transport.write_eof()
    one.transport.write(b"not said any more")
    await until(lambda: other.has_heard_end, "it hears of the end")
    assert other.read == b"all I say"
    other.transport.write(b"goes on")
    await until(lambda: one.read == b"goes on", "it is read")
    other.transport.close()
    await until(lambda: one.has_heard_end, "the other end is heard, too")
    assert other.transport.is_closing()
    assert not one.transport.is_closing()


@pytest.mark.parametrize("says_end", [True, False])
async def test_only_an_endpoint_must_say_its_end(both: Both, turn: Turn, says_end: object) -> None:
    await both.open(both.connection())
    one, other = turn(both)
    if says_end:
        one.transport.close()
    else:
        one.transport.abort()
    await until(lambda: other.has_heard_end, "it hears of the end")
    other.transport.close()
    await until(lambda: other.lost, "and closes")
    is_cut = other is both.client and not says_end
    assert isinstance(other.lost[0], ConnectionAbortedError) is is_cut


async def test_a_session_is_handed_on_once_with_what_comes_first(both: Both) -> None:
    await both.open(both.connection())
    assert both.sessions == []
    for text in (b"first", b"second"):
        both.server.transport.write(text)
        await until(lambda text=text: both.client.read.endswith(text), "it is read")  # type: ignore[misc]
    assert [session.has_ticket for session in both.sessions] == [True]


async def test_neither_side_is_made_when_the_client_refuses_the_certificate(both: Both) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await both.open(both.connection("another.example"))
    with pytest.raises(OSError, match="ALERT"):
        await both.accepting
    assert not hasattr(both.client, "transport")
    assert not hasattr(both.server, "transport")


async def test_who_is_lost_with_the_end_of_the_handshake_is_nobodys(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = both.connection()
    monkeypatch.setattr(both.client, "connection_made", lambda _: connection.abort())
    with pytest.raises(ssl.SSLEOFError, match="closed after the handshake"):
        await both.open(connection)
    await asyncio.wait([both.accepting])
    both.accepting.exception()  # or none: the server's part may have been done


async def test_what_is_given_up_before_it_is_connected_is_closed(both: Both) -> None:
    loop = asyncio.get_running_loop()
    layer = TlsTransport(server(), lambda: both.server, bytes)
    layer.give_up()
    await loop.connect_accepted_socket(lambda: layer, both.ours)
    async with asyncio.timeout(20):
        assert await loop.sock_recv(both.theirs, 65536) == b"", "and said nothing"
    await until(lambda: layer._state is LOST, "it is closed")
