"""The PROXY protocol's header, versions 1 and 2: what a balancer says of the client behind it.

After the specification that comes with HAProxy (proxy-protocol.txt, sections 2.1 and 2.2).
Whoever can send such a header can be anybody, so it is asked of trusted peers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv6Address

LARGEST = 4096
"""Bytes of a header. The addresses take 232 at most, the rest is extensions."""
LONGEST_LINE = 107
"""Of version 1, with its end (section 2.1)."""

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = 16
"""Bytes of version 2 up to the length of what follows."""
_LINE = b"PROXY "
_FAMILIES = {0x11: 4, 0x21: 16}
"""Size of an address by family and transport: TCP over IPv4 and over IPv6."""
_UNIX = 0x31
_UNIX_SIZE = 216
_CRC32C = 0x03
_SSL = 0x20
_HAS_TLS = 0x01


class Said(Enum):
    """What the header says of the client."""

    ADDRESS = "address"
    NOTHING = "nothing"
    """Somebody is behind the peer, but it cannot say who."""
    ITSELF = "itself"
    """The peer speaks for itself, a health check of a balancer for instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyHeader:
    size: int
    """Bytes; what follows them is the client's."""
    said: Said
    source: str = ""
    """The client's address, plain; IPv4-mapped IPv6 is IPv4."""
    port: int = 0
    """That the client connected to."""
    has_tls: bool = False
    """The client came by TLS, which ended at the peer."""


class InvalidHeaderError(Exception):
    """It is no PROXY header; the message says why."""


def parse(data: bytes) -> ProxyHeader | None:
    """The header that `data` begins with, or None when its end has not come yet.

    None also says that all of `data` belongs to the header. Raises InvalidHeaderError.
    """
    if data.startswith(_SIGNATURE[: len(data)]):
        return _binary(data)
    if data.startswith(_LINE[: len(data)]):
        return _line(data)
    raise InvalidHeaderError("it begins with something else")


# ---- version 1 ----


def _line(data: bytes) -> ProxyHeader | None:
    line, end, _ = data[:LONGEST_LINE].partition(b"\r\n")
    if not end:
        if len(data) >= LONGEST_LINE:
            raise InvalidHeaderError("its line is too long")
        if b"\n" in line or b"\r" in line[:-1]:
            raise InvalidHeaderError("its line has no proper end")
        return None
    if b"\r" in line or b"\n" in line:
        raise InvalidHeaderError("its line has no proper end")
    size = len(line) + 2
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":  # whatever follows is ignored
        return ProxyHeader(size=size, said=Said.NOTHING)
    if len(words) != 6 or words[1] not in {b"TCP4", b"TCP6"}:
        raise InvalidHeaderError("its line has another form")
    read = _ipv4 if words[1] == b"TCP4" else _ipv6
    source, _ = read(words[2]), read(words[3])
    _, port = _port(words[4]), _port(words[5])
    return ProxyHeader(size=size, said=Said.ADDRESS, source=source, port=port)


def _ipv4(word: bytes) -> str:
    try:
        return str(IPv4Address(word.decode("ascii")))  # refuses leading zeros
    except ValueError:
        raise InvalidHeaderError("it has a wrong IPv4 address") from None


def _ipv6(word: bytes) -> str:
    try:
        text = word.decode("ascii")
        if "%" in text:
            raise InvalidHeaderError("it has an IPv6 address with a scope")
        return _plain(IPv6Address(text))
    except ValueError:
        raise InvalidHeaderError("it has a wrong IPv6 address") from None


def _plain(address: IPv6Address) -> str:
    return str(address.ipv4_mapped or address)


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (word[:1] == b"0" and word != b"0"):
        raise InvalidHeaderError("it has a wrong port")
    port = int(word)
    if port > 65_535:
        raise InvalidHeaderError("it has a wrong port")
    return port


# ---- version 2 ----


def _binary(data: bytes) -> ProxyHeader | None:
    if len(data) < _FIXED:
        return None
    size = _FIXED + int.from_bytes(data[14:16])
    if size > LARGEST:
        raise InvalidHeaderError("it is too long")
    command = data[12]
    if command not in {0x20, 0x21}:
        raise InvalidHeaderError("it has an unknown version or command")
    if len(data) < size:
        return None
    header = data[:size]
    if command == 0x20:
        return ProxyHeader(size=size, said=Said.ITSELF)  # the rest is to be ignored
    return _relayed(header, header[13])


def _relayed(header: bytes, family: int) -> ProxyHeader:
    size = len(header)
    if family in _FAMILIES:
        width = _FAMILIES[family]
        extensions = _FIXED + 2 * width + 4
        has_tls = _read_extensions(header, extensions)
        return ProxyHeader(
            size=size,
            said=Said.ADDRESS,
            source=_packed(header[_FIXED : _FIXED + width]),
            port=int.from_bytes(header[extensions - 2 : extensions]),
            has_tls=has_tls,
        )
    if family == _UNIX:
        has_tls = _read_extensions(header, _FIXED + _UNIX_SIZE)
        return ProxyHeader(size=size, said=Said.NOTHING, has_tls=has_tls)
    if family == 0:  # what follows has no known form
        return ProxyHeader(size=size, said=Said.NOTHING)
    raise InvalidHeaderError("it has an unknown family or transport")


def _packed(address: bytes) -> str:
    if len(address) == 4:
        return str(IPv4Address(address))
    return _plain(IPv6Address(address))


def _read_extensions(header: bytes, start: int) -> bool:
    """Check what follows the addresses: type, length, value; whether it tells of TLS."""
    if len(header) < start:
        raise InvalidHeaderError("it is too short for its addresses")
    has_tls = False
    while start < len(header):
        value = start + 3
        end = value + int.from_bytes(header[start + 1 : value])
        if value > len(header) or end > len(header):
            raise InvalidHeaderError("one of its extensions is cut off")
        kind = header[start]
        if kind == _CRC32C:
            _verify(header, value, end)
        elif kind == _SSL:
            has_tls = end > value and bool(header[value] & _HAS_TLS)
        start = end
    return has_tls


def _verify(header: bytes, start: int, end: int) -> None:
    """Compare the checksum, which was made with zeros in its place."""
    zeroed = header[:start] + bytes(end - start) + header[end:]
    if end - start != 4 or int.from_bytes(header[start:end]) != crc32c(zeroed):
        raise InvalidHeaderError("its checksum is wrong")


def crc32c(data: bytes) -> int:
    """The checksum of RFC 4960 appendix B; zlib has only the other polynomial."""
    table = _crc32c_table()
    remainder = 0xFFFF_FFFF
    for byte in data:
        remainder = remainder >> 8 ^ table[(remainder ^ byte) & 0xFF]
    return remainder ^ 0xFFFF_FFFF


@cache
def _crc32c_table() -> tuple[int, ...]:
    table = []
    for entry in range(256):
        remainder = entry
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F6_3B78 if remainder & 1 else 0)
        table.append(remainder)
    return tuple(table)
