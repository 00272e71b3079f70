"""The address of an endpoint: `host:port`, `[v6]:port` or `unix:/path`."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address


@dataclass(frozen=True, slots=True)
class UnixPath:
    path: str


@dataclass(frozen=True, slots=True)
class HostPort:
    host: str
    port: int


def parse(address: str) -> UnixPath | HostPort:
    """Take an address apart; ValueError with a sentence when it is none."""
    if address.startswith("unix:"):
        return _unix(address)
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{address!r} is not an address ({_EXPECTED})")
    return HostPort(_host(address, host), int(port))


_EXPECTED = "expected host:port, [v6]:port or unix:/path"


def _unix(address: str) -> UnixPath:
    path = address.removeprefix("unix:")
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{address!r} is not an address (the path of unix: must begin with /)")
    return UnixPath(path)


def _host(address: str, host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return str(IPv6Address(host[1:-1]))  # its ValueError is a sentence already
    if not all(char.isalnum() or char in "-._" for char in host):
        raise ValueError(f"{address!r} is not an address ({_EXPECTED})")
    return host
