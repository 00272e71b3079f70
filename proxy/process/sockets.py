"""Listening sockets, found by name: opened once by the supervisor and held by it.

For TCP every worker slot has a socket of its own (SO_REUSEPORT), so that the kernel
spreads connections; a unix socket is shared by all. Because the supervisor keeps
them open, a worker that dies takes no queued connection with it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from proxy.model import Snapshot

BACKLOG = 4096


class SocketTable:
    """The open listening sockets, by the listener's address and the worker's slot."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._open: dict[str, list[socket.socket]] = {}

    def open_for(self, snapshot: Snapshot) -> list[str]:
        """Open what `snapshot` needs and is not open; a sentence for each that cannot be.

        When there is one, nothing new is kept open.
        """
        opened: dict[str, list[socket.socket]] = {}
        problems = []
        for listener in snapshot.listeners:
            if listener.bind in self._open or listener.bind in opened:
                continue
            try:
                opened[listener.bind] = open_listener(listener.bind, self._slots)
            except OSError as error:
                problems.append(f"cannot listen on {listener.bind}: {_words(error)}")
        if problems:
            for bind, sockets in opened.items():
                _close(bind, sockets)
            return problems
        self._open.update(opened)
        return []

    def close_all_but(self, snapshot: Snapshot) -> None:
        """Close the sockets of listeners that `snapshot` does not list."""
        wanted = {listener.bind for listener in snapshot.listeners}
        for bind in [b for b in self._open if b not in wanted]:
            _close(bind, self._open.pop(bind))

    def close_all(self) -> None:
        for bind, sockets in self._open.items():
            _close(bind, sockets)
        self._open.clear()

    def of_slot(self, slot: int) -> dict[str, socket.socket]:
        """The sockets of a worker slot by the listener's address."""
        return {b: sockets[slot % len(sockets)] for b, sockets in self._open.items()}


def open_listener(bind: str, count: int) -> list[socket.socket]:
    """`count` sockets listening on a TCP address, or one on a unix path; OSError."""
    if bind.startswith("unix:"):
        return [_open_unix(bind[5:])]
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = socket.getaddrinfo(
        host, int(port), family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0][4]
    # SO_REUSEPORT would share the port with any other program of this user that asks for
    # it, a second proxy for instance; binding once without it finds that out.
    _bound(family, address, shared=False).close()
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = _bound(family, address, shared=True)
            sockets.append(sock)
            sock.listen(BACKLOG)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bound(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        if not shared:
            sock.listen(1)  # two sockets may be bound alike, only one of them can listen
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(path: str) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        os.chmod(path, 0o666)  # noqa: PTH101, S103 - who may connect is what the folder's mode says
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on any more."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - no Path needed for one look
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(17, "the path exists and is no socket")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(1.0)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)  # noqa: PTH108
        return
    except BlockingIOError:  # its queue is full: somebody lives there, who is only busy
        pass
    finally:
        probe.close()
    raise OSError(98, "another program listens on it")


def _close(bind: str, sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
    if bind.startswith("unix:"):
        with contextlib.suppress(OSError):
            os.unlink(bind[5:])  # noqa: PTH108


def _words(error: OSError) -> str:
    words = (error.strerror or str(error)).lower()
    if error.errno == 98:
        words = "the address is in use by another program"
    elif error.errno == 13:
        words = "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)"
    elif error.errno == 99:
        words = "this machine has no such address"
    return words
