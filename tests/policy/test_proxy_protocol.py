"""PROXY headers: every form of both versions, whole and byte by byte, and what is none."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.proxy_protocol import (
    LARGEST,
    InvalidHeaderError,
    ProxyHeader,
    Said,
    crc32c,
    parse,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = bytes([203, 0, 113, 9, 198, 51, 100, 1]) + struct.pack("!HH", 40_000, 443)
V6 = IPv6Address("2001:db8::9").packed + IPv6Address("2001:db8::1").packed + b"\x9c\x40\x20\xfb"
UNIX = b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")
LONGEST = b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n"


def v2(body: bytes = b"", *, command: int = 0x21, family: int = 0x11) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(body)) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def summed(addresses: bytes, *more: bytes) -> bytes:
    """A header with the checksum between its other extensions."""
    zeroed = v2(addresses + tlv(0x04, b"pad") + tlv(0x03, bytes(4)) + b"".join(more))
    where = 16 + len(addresses) + 6 + 3
    return zeroed[:where] + struct.pack("!I", crc32c(zeroed)) + zeroed[where + 4 :]


def said(header: ProxyHeader) -> tuple[Said, str, int, bool]:
    return header.said, header.source, header.port, header.has_tls


NOTHING = (Said.NOTHING, "", 0, False)
ITSELF = (Said.ITSELF, "", 0, False)
CLIENT = (Said.ADDRESS, "203.0.113.9", 443, False)
CLIENT6 = (Said.ADDRESS, "2001:db8::9", 8443, False)

VALID = {
    "TCP4": (b"PROXY TCP4 203.0.113.9 198.51.100.1 40000 443\r\n", CLIENT),
    "TCP6": (b"PROXY TCP6 2001:DB8::9 2001:db8::1 40000 8443\r\n", CLIENT6),
    "the longest TCP6": (
        b"PROXY TCP6 %b %b 65535 65535\r\n" % (b":".join([b"ffff"] * 8), b":".join([b"ffff"] * 8)),
        (Said.ADDRESS, ":".join(["ffff"] * 8), 65_535, False),
    ),
    "TCP6 of an IPv4 client": (
        b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:198.51.100.1 0 443\r\n",
        CLIENT,
    ),
    "UNKNOWN": (b"PROXY UNKNOWN\r\n", NOTHING),
    "UNKNOWN with words": (b"PROXY UNKNOWN 1.2.3.4 and more\r\n", NOTHING),
    "the longest line": (LONGEST, NOTHING),
    "version 2, IPv4": (v2(V4), CLIENT),
    "version 2, IPv6": (v2(V6, family=0x21), CLIENT6),
    "version 2, IPv6 of an IPv4 client": (
        v2(b"\0" * 10 + b"\xff\xff" + V4[:4] + bytes(16) + V4[8:], family=0x21),
        CLIENT,
    ),
    "version 2, unix": (v2(UNIX, family=0x31), NOTHING),
    "version 2, unspecified": (v2(family=0), NOTHING),
    "version 2, unspecified with bytes": (v2(b"whatever", family=0), NOTHING),
    "local": (v2(command=0x20, family=0), ITSELF),
    "local with addresses": (v2(V4, command=0x20), ITSELF),
    "local of an unknown family": (v2(b"\0\0", command=0x20, family=0x77), ITSELF),
    "extensions": (v2(V4 + tlv(0x02, b"a.example") + tlv(0xE0, b"")), CLIENT),
    "a checksum": (summed(V4), CLIENT),
    "a checksum, and more behind it": (summed(V4, tlv(0xEA, b"x" * 300)), CLIENT),
    "TLS at the balancer": (v2(V4 + tlv(0x20, b"\x01\0\0\0\0")), (*CLIENT[:3], True)),
    "no TLS at the balancer": (v2(V4 + tlv(0x20, b"\x00\0\0\0\0")), CLIENT),
    "the largest": (v2(V4 + tlv(0x04, bytes(LARGEST - 16 - 12 - 3))), CLIENT),
}

INVALID = {
    "HTTP": b"GET / HTTP/1.1\r\n",
    "TLS": b"\x16\x03\x01\x02\x00",
    "lower case": b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
    "another word": b"PROXYTCP4 1.2.3.4 1.2.3.4 1 1\r\n",
    "no family": b"PROXY \r\n",
    "UDP4": b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
    "a family that only begins so": b"PROXY UNKNOWNS\r\n",
    "two spaces": b"PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n",
    "a space at the end": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n",
    "a tab": b"PROXY TCP4\t1.2.3.4 1.2.3.4 1 1\r\n",
    "a word too many": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n",
    "a word too few": b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
    "bare LF": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n",
    "bare CR": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\rX",
    "CR before the end": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\r\n",
    "LF in the middle": b"PROXY UNKNOWN \n \r\n",
    "a zero in front": b"PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n",
    "an octal address": b"PROXY TCP4 1.2.3.4 1.2.3.010 1 1\r\n",
    "three numbers": b"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n",
    "256": b"PROXY TCP4 1.2.3.256 1.2.3.4 1 1\r\n",
    "a network": b"PROXY TCP4 1.2.3.0/24 1.2.3.4 1 1\r\n",
    "a name": b"PROXY TCP4 localhost 1.2.3.4 1 1\r\n",
    "IPv6 in TCP4": b"PROXY TCP4 ::1 ::1 1 1\r\n",
    "IPv4 in TCP6": b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
    "a scope": b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
    "brackets": b"PROXY TCP6 [::1] ::1 1 1\r\n",
    "two gaps": b"PROXY TCP6 1::2::3 ::1 1 1\r\n",
    "not ASCII": b"PROXY TCP4 1.2.3.\xb2 1.2.3.4 1 1\r\n",
    "port with a zero in front": b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
    "port too high": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
    "port with a sign": b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n",
    "empty port": b"PROXY TCP4 1.2.3.4 1.2.3.4  1\r\n",
    "NUL": b"PROXY TCP4 1.2.3.4\0 1.2.3.4 1 1\r\n",
    "a line too long": LONGEST[:-2] + b"f\r\n",
    "a line without an end": b"PROXY UNKNOWN " + b"f" * 200,
    "a signature with a slip": SIGNATURE[:-1] + b"\r" + v2(V4)[12:],
    "version 1 in binary": v2(V4, command=0x11),
    "version 3": v2(V4, command=0x31),
    "an unknown command": v2(V4, command=0x22),
    "UDP over IPv4": v2(V4, family=0x12),
    "UDP over IPv6": v2(V6, family=0x22),
    "unix datagrams": v2(UNIX, family=0x32),
    "IPv4 without a transport": v2(V4, family=0x10),
    "TCP without a family": v2(V4, family=0x01),
    "an unknown family": v2(V4, family=0x41),
    "too short for IPv4": v2(V4[:-1]),
    "too short for IPv6": v2(V4, family=0x21),
    "too short for unix": v2(UNIX[:-1], family=0x31),
    "nothing": v2(),
    "an extension cut off": v2(V4 + b"\x04\x00\x05abcd"),
    "an extension cut off in its head": v2(V4 + b"\x04\x00"),
    "a wrong checksum": v2(V4 + tlv(0x03, b"\0\0\0\0")),
    "a long checksum": v2(V4 + tlv(0x03, b"\0" * 5)),
    "one bit of a checked header": summed(V4)[:16] + b"\xca" + summed(V4)[17:],
    "a checksum behind unix addresses": v2(UNIX + tlv(0x03, b"\0\0\0\0"), family=0x31),
    "too large": v2(V4 + bytes(LARGEST)),
    "the largest length": SIGNATURE + b"\x21\x11\xff\xff",
}


@pytest.mark.parametrize("case", VALID)
def test_a_header_says_who_the_client_is_and_where_it_ends(case: str) -> None:
    raw, expected = VALID[case]
    for behind in (b"", b"G", b"\r\n", b"GET / HTTP/1.1\r\n\r\n", raw):
        header = parse(raw + behind)
        assert header is not None
        assert said(header) == expected
        assert header.size == len(raw)


@pytest.mark.parametrize("case", VALID)
def test_a_header_that_has_not_arrived_whole_is_waited_for(case: str) -> None:
    raw, _ = VALID[case]
    for end in range(len(raw)):
        assert parse(raw[:end]) is None, raw[:end]


@pytest.mark.parametrize("case", INVALID)
def test_anything_else_is_refused(case: str) -> None:
    with pytest.raises(InvalidHeaderError):
        parse(INVALID[case])


@pytest.mark.parametrize("case", INVALID)
def test_what_is_refused_whole_is_never_believed_in_pieces(case: str) -> None:
    raw = INVALID[case]
    for end in range(len(raw) + 1):
        try:
            assert parse(raw[:end]) is None
        except InvalidHeaderError:
            return
    raise AssertionError("it was waited for in vain")


def test_the_checksum_is_that_of_the_rfc() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720 appendix B.4


PORTS = st.integers(0, 65_535)


@given(st.ip_addresses(), st.data())
def test_what_a_balancer_writes_is_what_we_read(
    source: IPv4Address | IPv6Address, data: st.DataObject
) -> None:
    target = data.draw(st.ip_addresses(v=source.version))
    ports = data.draw(st.tuples(PORTS, PORTS))
    mapped = source.ipv4_mapped if isinstance(source, IPv6Address) else None
    expected = (Said.ADDRESS, str(mapped or source), ports[1], False)
    line = f"PROXY TCP{source.version} {source} {target} {ports[0]} {ports[1]}\r\n".encode()
    packed = source.packed + target.packed + struct.pack("!HH", *ports)
    family = 0x11 if source.version == 4 else 0x21
    for raw in (line, v2(packed, family=family), v2(packed, family=family) + b"x"):
        header = parse(raw)
        assert header is not None
        assert said(header) == expected


@given(st.binary(max_size=200), st.sampled_from([b"", b"PROXY ", SIGNATURE, v2(V4)[:16]]))
def test_no_bytes_cause_anything_but_the_documented_error(noise: bytes, begin: bytes) -> None:
    raw = begin + noise
    try:
        header = parse(raw)
    except InvalidHeaderError:
        return
    if header is not None:
        assert 0 < header.size <= len(raw)
        assert header.said is not Said.ADDRESS or ip_address(header.source)
