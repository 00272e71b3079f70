"""PROXY headers: however they are cut, the same is said, of bytes that are the header's alone."""

from __future__ import annotations

import struct
from collections.abc import Hashable
from ipaddress import ip_address

from proxy.policy.proxy_protocol import LARGEST, InvalidHeaderError, ProxyHeader, Said, parse

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V4 = bytes([203, 0, 113, 9, 198, 51, 100, 1]) + struct.pack("!HH", 40_000, 443)
_TLS = b"\x20\x00\x05\x01\x00\x00\x00\x00"
A_WHILE = 60_000
TOKENS = (
    *(b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"203.0.113.9 ", b"::1 ", b"::ffff:1.2.3.4 "),
    *(
        b"443",
        b"0",
        b"65535\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b" ",
        b"%1",
        b"01",
        _SIGNATURE,
        b"\x21\x11",
    ),
    *(b"\x20\x00\x00\x00", b"\x21\x21\x00\x24", b"\x21\x31\x00\xd8", b"\x00\x0c", _V4, _TLS),
    b"\x03\x00\x04\x00\x00\x00\x00",
)


def seeds() -> list[bytes]:
    return [
        b"PROXY TCP4 203.0.113.9 198.51.100.1 40000 443\r\nGET / HTTP/1.1\r\n",
        b"PROXY TCP6 2001:db8::9 2001:db8::1 40000 8443\r\n",
        b"PROXY UNKNOWN whatever\r\n",
        _SIGNATURE + b"\x21\x11\x00\x0c" + _V4 + b"GET",
        _SIGNATURE + b"\x21\x11\x00\x14" + _V4 + _TLS,
        _SIGNATURE + b"\x20\x00\x00\x00",
        _SIGNATURE + b"\x21\x21\x00\x24" + bytes(36),
        _SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216),
        _SIGNATURE + b"\x21\x11\x00\x13" + _V4 + b"\x03\x00\x04\x00\x00\x00\x00",
    ]


def run(data: bytes) -> Hashable:
    said = _said(data)
    if isinstance(said, ProxyHeader):
        _check(said, data)
    decided: ProxyHeader | str | None = None
    for size in _sizes(len(data)):
        now = _said(data[:size])
        if decided is None:
            decided = now
        elif isinstance(decided, ProxyHeader):
            assert now == decided, "what follows a header changes it"
        else:
            assert isinstance(now, str), "what was no header has become one"
    if said is None:
        assert len(data) < LARGEST, "it waits for a header that is too long"
    return said if isinstance(said, str) else (said and (said.said, said.has_tls, said.size > 60))


def _sizes(whole: int) -> list[int]:
    """Every place among the first, where all that matters stands, and some behind."""
    return [*range(min(whole, 240)), *range(240, whole, 97), whole]


def _said(data: bytes) -> ProxyHeader | str | None:
    try:
        return parse(data)
    except InvalidHeaderError as error:
        return str(error)


def _check(header: ProxyHeader, data: bytes) -> None:
    assert header.size <= min(len(data), LARGEST)
    assert parse(data[: header.size]) == header, "it rests on bytes that are not its own"
    if header.said is Said.ADDRESS:
        assert str(ip_address(header.source)) == header.source
        assert 0 <= header.port <= 65_535
    else:
        assert (header.source, header.port) == ("", 0)
