"""One address we accept on: its open sockets, its limits, and how it sees its clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from proxy import stats
from proxy.dataplane import client_certificate, faults, tls
from proxy.dataplane.downstream import Downstream
from proxy.dataplane.forwarding import Origin
from proxy.dataplane.gate import BACKLOG, Arrival, Gate
from proxy.errors import Fault
from proxy.http1 import encode
from proxy.model import Listener, ListenerTls
from proxy.policy.trust import TrustedPeers

if TYPE_CHECKING:
    from proxy.dataplane.plane import Plane

NOBODY = "0.0.0.0"
_LIMIT = stats.REFUSALS.index("limit")
_DESCRIPTORS = stats.REFUSALS.index("descriptors")
_CLIENT_LIMIT = stats.REFUSALS.index("client_limit")


class ListenerLive:
    def __init__(self, plane: Plane, spec: Listener, words: memoryview) -> None:
        self._plane = plane
        self._words = words
        self._server: asyncio.Server | None = None
        self._gate: Gate | None = None
        self._sock: socket.socket | None = None
        self.tls_context: ssl.SSLContext | None = None
        self.marks = encode.VIA
        """Lines that are in the head of every answer here."""
        self.open = 0
        self.turned_away = 0
        """Connections that are told why they are not served."""
        self.is_leaving = False
        self._most = self._most_per_client = 0
        self._key = plane.door.key(spec.bind.encode())
        self._tls: ListenerTls | None = None
        self.adopt(spec)

    def adopt(self, spec: Listener) -> None:
        """Take over changed settings; connections that are open keep theirs where they must."""
        self.spec = spec
        self._adopt_tls(spec.tls)
        self._peers = TrustedPeers(spec.trusted_proxies)
        door = self._plane.door
        if bool(spec.max_connections) != bool(self._most):
            door.add(self._key, self.open if spec.max_connections else -self.open)
        is_counting, self._most_per_client = self._most_per_client, spec.max_per_client
        self._most = spec.max_connections
        if bool(is_counting) != bool(self._most_per_client):
            self._count_clients(wanted=bool(self._most_per_client))

    def _adopt_tls(self, wanted: ListenerTls | None) -> None:
        """Have the next handshake be as is wanted; nothing is built anew where it says the same."""
        hsts = "" if wanted is None else wanted.hsts
        self.marks = encode.VIA
        if hsts:
            self.marks += b"Strict-Transport-Security: %b\r\n" % hsts.encode()
        alike = None if wanted is None else replace(wanted, hsts="")
        if alike == self._tls:
            return
        if alike is None:
            self._tls = self.tls_context = None
            return
        try:
            self.tls_context = tls.server_context(alike)
        except (OSError, ValueError) as error:  # the supervisor has checked: what was there stays
            self._plane.report("tls", error)
        else:
            self._tls = alike

    # ---- accepting ----

    @property
    def _needs_gate(self) -> bool:
        return self.spec.tls is not None or self.spec.proxy_protocol

    async def listen(self, sock: socket.socket) -> None:
        self._sock = sock.dup()
        if self._needs_gate:
            self._gate = self._gate or Gate(self._plane, self)
            self._gate.open(sock)
            return
        loop = asyncio.get_running_loop()
        make = self._downstream
        if sock.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(make, sock=sock, backlog=BACKLOG)
        else:
            self._server = await loop.create_server(make, sock=sock, backlog=BACKLOG)

    async def listen_anew(self) -> None:
        """Accept in the other way when the settings now ask for it; who is queued stays so."""
        if self._sock is not None and self._needs_gate == (self._server is not None):
            self.stop_listening()
            sock, self._sock = self._sock, None
            await self.listen(sock)

    def stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._gate is not None:
            self._gate.close()

    def close(self) -> None:
        """Stop at once, whoever is queued."""
        self.stop_listening()
        if self._gate is not None:
            self._gate.abort()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    async def accept_rest(self) -> None:
        """Take what the kernel has queued meanwhile: closing the socket would reset it."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        waiting: list[socket.socket] = []
        with sock, contextlib.suppress(OSError):  # BlockingIOError: there is no more
            sock.setblocking(False)
            while True:
                waiting.append(sock.accept()[0])
        for accepted in waiting:
            if self._needs_gate and self._gate is not None:
                self._gate.admit(accepted)
                continue
            try:
                loop = asyncio.get_running_loop()
                await loop.connect_accepted_socket(self._downstream, accepted)
            except OSError:
                accepted.close()

    def _downstream(self) -> Downstream:
        return Downstream(self._plane, self)

    # ---- who may come in ----

    def admit(self, connection: Downstream, arrival: Arrival | None) -> Fault | None:
        """Count a new connection; or what to tell it instead."""
        if arrival is None:
            refusal = self._admit_plain(connection)
        else:  # the gate has counted it
            arrival.is_in = True
            refusal = arrival.refusal
            connection.client_key = arrival.client_key
            if refusal is not None:
                self.leave(0)
        if refusal is None:
            connection.is_admitted = True
            self.count(stats.L_ACCEPTED)
        else:
            self.turned_away += 1
        return refusal

    def _admit_plain(self, connection: Downstream) -> Fault | None:
        sock = connection.transport.get_extra_info("socket")
        if not self.enter(sock):
            return faults.TOO_MANY_CONNECTIONS
        if self._most_per_client:
            connection.client_key = self._client_key(connection.origin)
            if connection.client_key and not self._enter_client(connection.client_key):
                connection.client_key = 0
                self.leave(0)
                return faults.TOO_MANY_OF_CLIENT
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return None

    def enter(self, sock: socket.socket | None) -> bool:
        """Count a connection; False when the listener has as many as it may, or the process."""
        if self._plane.is_short(sock):
            self.count(stats.L_REFUSED + _DESCRIPTORS)
            return False
        if self._most and not self._plane.door.enter(self._key, self._most):
            self.count(stats.L_REFUSED + _LIMIT)
            return False
        self.open += 1
        return True

    def enter_client(self, arrival: Arrival) -> Fault | None:
        """Count a connection at the gate among its client's; or what to tell it instead."""
        if not self._most_per_client or arrival.client_key:
            return None
        key = self._client_key(self._origin(arrival))
        if key and not self._enter_client(key):
            return faults.TOO_MANY_OF_CLIENT
        arrival.client_key = key
        return None

    def _enter_client(self, key: int) -> bool:
        if self._plane.door.enter(key, self._most_per_client):
            return True
        self.count(stats.L_REFUSED + _CLIENT_LIMIT)
        return False

    def left(self, connection: Downstream) -> None:
        if connection.is_admitted:
            self.leave(connection.client_key)
        else:
            self.turned_away -= 1

    def leave(self, client_key: int) -> None:
        self.open -= 1
        door = self._plane.door
        if self._most:
            door.add(self._key, -1)
        if client_key and self._most_per_client:
            door.add(client_key, -1)

    def _client_key(self, origin: Origin) -> int:
        """What a client's connections are counted by; 0 for those that stand for many clients."""
        if origin.trusted or not origin.address:
            return 0
        return self._plane.door.key(self.spec.bind.encode() + b"\0" + network_of(origin.address))

    def _count_clients(self, *, wanted: bool) -> None:
        """Count by client those that are in already, or forget these counts."""
        inside: list[Downstream | Arrival] = [
            each for each in self._plane.connections if each.listener is self and each.is_admitted
        ]
        if self._gate is not None:
            inside += self._gate.arrivals
        for each in inside:
            if wanted:
                origin = each.origin if isinstance(each, Downstream) else self._origin(each)
                each.client_key = self._client_key(origin)
            if each.client_key:
                self._plane.door.add(each.client_key, 1 if wanted else -1)
            if not wanted:
                each.client_key = 0

    # ---- what is counted ----

    @property
    def entering(self) -> int:
        return 0 if self._gate is None else len(self._gate.arrivals)

    def count(self, word: int) -> None:
        self._words[self.spec.slot + word] += 1

    def count_refused(self, reason: str) -> None:
        self.count(stats.L_REFUSED + stats.REFUSALS.index(reason))

    def count_bad(self) -> None:
        self.count(stats.L_BAD_REQUESTS)

    def gauge(self, active: int, idle: int, tunnels: int) -> None:
        words, slot = self._words, self.spec.slot
        words[slot + stats.L_ACTIVE] = active
        words[slot + stats.L_IDLE] = idle
        words[slot + stats.L_TUNNEL] = tunnels
        words[slot + stats.L_ENTERING] = self.entering

    # ---- how clients are seen ----

    def wants_header(self, address: str) -> bool:
        """Whether a PROXY header comes first, by the peer's address."""
        return self.spec.proxy_protocol and self._peers.trusts(address)

    def origin(self, transport: asyncio.Transport, arrival: Arrival | None) -> Origin:
        if arrival is not None:
            return self._origin(
                arrival, client_certificate.lines(transport.get_extra_info("ssl_object"))
            )
        peer = transport.get_extra_info("peername")
        address, port = self.names(peer, transport.get_extra_info("sockname"))
        return Origin(address, port, b"http", self._peers)

    def _origin(self, arrival: Arrival, certificate: bytes = b"") -> Origin:
        proto = b"https" if arrival.is_secure else b"http"
        origin = Origin(arrival.address, arrival.port, proto, self._peers, certificate)
        if not arrival.is_trusted:
            origin.trusted = False
        return origin

    def names(self, peer: Any, name: Any) -> tuple[str, int]:
        """The address of a connection's peer, and our port."""
        # A TCP client that is gone already has no name any more. It must not pass for a peer on
        # a unix socket, who may be trusted.
        nobody = "" if self.spec.bind.startswith("unix:") else NOBODY
        address = peer[0] if isinstance(peer, tuple) else nobody
        usual = 80 if self.spec.tls is None else 443
        return address, name[1] if isinstance(name, tuple) else usual


def network_of(address: str) -> bytes:
    """An IPv4 address, or the first half of an IPv6 one: a client has all of the other half."""
    if ":" not in address:
        return address.encode()
    return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])[:8]
