"""One address we accept on: its open sockets, its limits, and how it sees its clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from proxy import stats
from proxy.dataplane.downstream import Downstream
from proxy.dataplane.forwarding import Origin
from proxy.model import Listener
from proxy.policy.trust import TrustedPeers

if TYPE_CHECKING:
    from proxy.dataplane.plane import Plane

BACKLOG = 4096
NOBODY = "0.0.0.0"


class ListenerLive:
    def __init__(self, plane: Plane, spec: Listener, words: memoryview, workers: int) -> None:
        self._plane = plane
        self._words = words
        self._workers = workers
        self._server: asyncio.Server | None = None
        self._sock: socket.socket | None = None
        self.open = 0
        self.adopt(spec)

    def adopt(self, spec: Listener) -> None:
        """Take over changed settings; connections that are open keep theirs where they must."""
        self.spec = spec
        self._peers = TrustedPeers(spec.trusted_proxies)
        # The limit is for all workers together; each keeps its share of it.
        limit = spec.max_connections
        self._limit = -(-limit // self._workers) if limit else 0

    async def listen(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        make = self._downstream
        self._sock = sock.dup()
        if sock.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(make, sock=sock, backlog=BACKLOG)
        else:
            self._server = await loop.create_server(make, sock=sock, backlog=BACKLOG)

    def stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def close(self) -> None:
        """Stop at once, whoever is queued."""
        self.stop_listening()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    async def accept_rest(self) -> None:
        """Take what the kernel has queued meanwhile: closing the socket would reset it."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        loop = asyncio.get_running_loop()
        waiting: list[socket.socket] = []
        with sock, contextlib.suppress(OSError):  # BlockingIOError: there is no more
            sock.setblocking(False)
            while True:
                waiting.append(sock.accept()[0])
        for accepted in waiting:
            try:
                await loop.connect_accepted_socket(self._downstream, accepted)
            except OSError:
                accepted.close()

    def _downstream(self) -> Downstream:
        return Downstream(self._plane, self)

    def admit(self, connection: Downstream) -> bool:
        """Count a new connection; False when the listener has as many as it may."""
        words, slot = self._words, self.spec.slot
        if self._limit and self.open >= self._limit:
            words[slot + stats.L_REFUSED] += 1
            return False
        words[slot + stats.L_ACCEPTED] += 1
        self.open += 1
        sock = connection.transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return True

    def left(self) -> None:
        self.open -= 1

    def count_bad(self) -> None:
        self._words[self.spec.slot + stats.L_BAD_REQUESTS] += 1

    def gauge(self, active: int, idle: int, tunnels: int) -> None:
        words, slot = self._words, self.spec.slot
        words[slot + stats.L_ACTIVE] = active
        words[slot + stats.L_IDLE] = idle
        words[slot + stats.L_TUNNEL] = tunnels

    def origin(self, transport: asyncio.Transport) -> Origin:
        peer = transport.get_extra_info("peername")
        name = transport.get_extra_info("sockname")
        # A TCP client that is gone already has no name any more. It must not pass for a peer on
        # a unix socket, who may be trusted.
        nobody = "" if self.spec.bind.startswith("unix:") else NOBODY
        address = peer[0] if isinstance(peer, tuple) else nobody
        port = name[1] if isinstance(name, tuple) else 80
        return Origin(address, port, b"http", self._peers)
