"""The gate: who may come in, after which header or handshake, in which time and number."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from typing import Any

import pytest
import trustme

from proxy import stats
from proxy.dataplane.listener import ListenerLive
from proxy.model import Certificate, ListenerTls
from tests.dataplane.box import Box, Scripted
from tests.e2e.wire import Wire

V1 = b"PROXY TCP4 203.0.113.9 198.51.100.1 40000 443\r\n"
V1_IPV6 = b"PROXY TCP6 2001:db8::9 2001:db8::1 40000 8443\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BEHIND = {"proxy_protocol": True, "trusted_proxies": ("127.0.0.1/32",)}


def v2(body: bytes, *, command: int = 0x21, family: int = 0x11) -> bytes:
    head = b"\r\n\r\n\x00\r\nQUIT\n" + bytes([command, family])
    return head + len(body).to_bytes(2) + body


V2 = v2(
    socket.inet_aton("203.0.113.9") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 1, 443)
)
V2_LOCAL = v2(b"", command=0x20, family=0)
V2_UNKNOWN = v2(b"", family=0)


def listener_of(box: Box) -> ListenerLive:
    (found,) = box.plane._listeners.values()
    return found


def refused(box: Box, reason: str) -> int:
    return box.of_listener(stats.L_REFUSED + stats.REFUSALS.index(reason))


async def seen(endpoint: Scripted, heads: list[bytes], wire: Wire) -> bytes:
    """The head that the endpoint got for the request that was sent on `wire`."""
    assert (await wire.answer()).status == 200
    return heads[-1]


@pytest.fixture
def heads() -> list[bytes]:
    return []


@pytest.fixture
async def endpoint(box: Box, heads: list[bytes]) -> Scripted:
    async def play(peer: Any) -> None:
        while True:
            heads.append(await peer.request())
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    return await box.endpoint(play)


# ---- PROXY protocol ----


@pytest.mark.parametrize(
    ("header", "address", "port"),
    [
        (V1, b"203.0.113.9", b"443"),
        (V2, b"203.0.113.9", b"443"),
        (V1_IPV6, b"2001:db8::9", b"8443"),
    ],
    ids=["v1", "v2", "v1 of IPv6"],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
async def test_the_source_said_by_a_trusted_peer_is_the_client(
    box: Box,
    endpoint: Scripted,
    heads: list[bytes],
    header: bytes,
    address: bytes,
    port: bytes,
    step: int,
) -> None:
    await box.serve(endpoint, listener=BEHIND)
    wire = await box.client()
    whole = header + GET
    for start in range(0, len(whole), step):
        await wire.send(whole[start : start + step])
        await asyncio.sleep(0)
    head = await seen(endpoint, heads, wire)
    assert b"\r\nX-Forwarded-For: %b\r\n" % address in head
    assert b"\r\nX-Forwarded-Port: %b\r\n" % port in head
    assert b"PROXY" not in head
    await wire.send(GET)
    assert b"\r\nX-Forwarded-For: %b\r\n" % address in await seen(endpoint, heads, wire)


# ---- TLS ----


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def serve_tls(box: Box, endpoint: Scripted, authority: trustme.CA, **listener: Any) -> None:
    issued = authority.issue_cert("a", "127.0.0.1")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems).decode()
    key = issued.private_key_pem.bytes().decode()
    tls = ListenerTls(certificates=(Certificate(chain=chain, key=key),))
    await box.serve(endpoint, listener={"tls": tls, **listener})
    if listener_of(box).tls_context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        listener_of(box).tls_context = context


async def tls_client(box: Box, authority: trustme.CA, header: bytes = b"") -> Wire:
    """A client that speaks TLS after `header`."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    sock = socket.create_connection(("127.0.0.1", box.port))
    sock.sendall(header)
    sock.setblocking(False)
    wire = Wire(*await asyncio.open_connection(sock=sock, ssl=context, server_hostname="a"))
    box.clients.append(wire)
    return wire


async def test_tls_begins_after_the_proxy_header(
    box: Box, endpoint: Scripted, heads: list[bytes], authority: trustme.CA
) -> None:
    await serve_tls(box, endpoint, authority, **BEHIND)
    wire = await tls_client(box, authority, V2)
    await wire.send(GET)
    head = await seen(endpoint, heads, wire)
    assert b"\r\nX-Forwarded-For: 203.0.113.9\r\n" in head
    assert b"\r\nX-Forwarded-Proto: https\r\n" in head
