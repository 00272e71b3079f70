"""Where the admin API listens: reading `admin.bind`, opening its sockets, saying why not."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BACKLOG = 128
Address = tuple[Any, ...]
"""As the socket module has it: host and port, and two more for v6."""

_NOT_ON_THIS_MACHINE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    host: str = ""
    """Lower case, a v6 address without brackets; empty for a unix socket."""
    port: int = 0
    path: str = ""

    @property
    def is_unix(self) -> bool:
        return bool(self.path)


def parse(text: str) -> Bind:
    """Read `host:port`, `[v6]:port` or `unix:/path`; ValueError with a sentence."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path:
            raise ValueError(f"{text!r} has no path (expected unix:/path)")
        return Bind(path=path)
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"{text!r} is no address (expected host:port, [v6]:port or unix:/path)")
    return Bind(host=host.strip("[]").lower(), port=int(port))


@dataclass(frozen=True, slots=True)
class SocketFile:
    """The file of a unix socket that we made, and nobody else's."""

    path: Path
    identity: tuple[int, int]

    @classmethod
    def of(cls, path: str) -> SocketFile:
        return cls(Path(path), _identity(Path(path)))

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if _identity(self.path) == self.identity:
                self.path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def open_sockets(bind: Bind) -> list[socket.socket]:
    """Open what `bind` names; OSError with a sentence when it cannot be had."""
    if bind.is_unix:
        return [_open_unix(bind.path)]
    try:
        found = socket.getaddrinfo(bind.host, bind.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _refused(error, f"{bind.host}:{bind.port}") from error
    addresses: dict[tuple[socket.AddressFamily, Address], None] = {}
    for family, _, _, _, address in found:
        addresses[family, address] = None
    return _open_each(list(addresses))


def address_of(sock: socket.socket) -> str:
    """Return a listening socket's address in the notation of `parse`."""
    name = sock.getsockname()
    match sock.family:
        case socket.AF_UNIX:
            return f"unix:{name}"
        case socket.AF_INET6:
            return f"[{name[0]}]:{name[1]}"
        case _:
            return f"{name[0]}:{name[1]}"


def _open_each(
    addresses: list[tuple[socket.AddressFamily, Address]],
) -> list[socket.socket]:
    """Open all addresses of a name; those that this machine lacks may fail while one is left."""
    opened: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in addresses:
        try:
            opened.append(_open_tcp(family, _on_port_of(opened, address)))
        except OSError as error:
            if error.errno not in _NOT_ON_THIS_MACHINE:
                close_all(opened)
                raise
            missing = error
    if missing is not None and not opened:
        raise missing
    return opened


def _on_port_of(opened: list[socket.socket], address: Address) -> Address:
    # Port 0 is drawn once: a name's other addresses get the same port as its first.
    if address[1] or not opened:
        return address
    return (address[0], opened[0].getsockname()[1], *address[2:])


def close_all(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _open_tcp(family: socket.AddressFamily, address: Address) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _refused(error, f"{address[0]}:{address[1]}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _refused(error, f"{address[0]}:{address[1]}") from error
    sock.setblocking(False)
    return sock


def _open_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_way(path)
        # Nobody else may connect, not even in the moment before a chmod.
        mask = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(mask)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _refused(error, f"unix:{path}") from error
    sock.setblocking(False)
    return sock


def _make_way(path: str) -> None:
    """Remove the socket file that a process which is gone has left; nothing else."""
    try:
        mode = Path(path).lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "a file that is no socket is in the way")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as caller:
        caller.settimeout(1.0)
        try:
            caller.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
    raise OSError(errno.EADDRINUSE, "another process answers on it")


def _refused(error: OSError, where: str) -> OSError:
    reason = (error.strerror or str(error)).lower()
    return OSError(error.errno, f"the admin API cannot listen on {where}: {reason}")
