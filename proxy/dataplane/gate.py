"""The way in for connections that something comes before: a PROXY header, a TLS handshake.

Other listeners leave accepting to the loop. Here the sockets are accepted by ourselves,
counted, and each is let in by a task that ends within the listener's `timeouts.header`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING

from proxy import stats
from proxy.dataplane import faults, tls_transport
from proxy.dataplane.answer import own_answer
from proxy.dataplane.downstream import Downstream
from proxy.policy import proxy_protocol
from proxy.policy.proxy_protocol import InvalidHeaderError, ProxyHeader, Said
from proxy.tasks import spawn

if TYPE_CHECKING:
    from proxy.dataplane.listener import ListenerLive
    from proxy.dataplane.plane import Plane
    from proxy.errors import Fault

BACKLOG = 4096
MOST_ENTERING = 1024
"""Connections of one listener that are on their way in at once."""
TURN = 64
"""Accepted in one go; then it is the others' turn."""
SLOW_S = 1.0
"""Where all places are taken, one that has been here for longer than this is sent away."""
PAUSE_S = 0.1
"""When there is no place or no descriptor, nothing is accepted for so long."""
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_GONE = {errno.EAGAIN, errno.EWOULDBLOCK}
_NO_LINGER = struct.pack("ii", 1, 0)


class Arrival:
    """One connection on its way in; what is known of it so far."""

    __slots__ = (
        "address",
        "client_key",
        "has_transport",
        "is_in",
        "is_secure",
        "is_trusted",
        "port",
        "refusal",
        "since",
        "sock",
        "task",
    )

    def __init__(self, sock: socket.socket, address: str, port: int, since: float) -> None:
        self.sock = sock
        self.address = address
        """Of the client; empty for a peer on a unix socket."""
        self.port = port
        """That the client connected to."""
        self.is_secure = False
        self.is_trusted = True
        """Whether the address may be looked up among the trusted ones."""
        self.since = since
        self.client_key = 0
        """What it is counted by among its client's connections; 0 = it is not."""
        self.has_transport = False
        """Of TLS, which closes the socket."""
        self.refusal: Fault | None = None
        """What it is told instead of being served."""
        self.is_in = False
        """The client's connection has taken over: sock and counts are its own."""
        self.task: asyncio.Task[None] | None = None


class Gate:
    def __init__(self, plane: Plane, listener: ListenerLive) -> None:
        self._plane = plane
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None
        self.arrivals: dict[Arrival, None] = {}
        """In the order they came."""

    def open(self, sock: socket.socket) -> None:
        """Accept on `sock`, which is ours from now on."""
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._sock = sock
        self._loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Accept nothing more; those on their way in go on."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def abort(self) -> None:
        """End everything here."""
        self.close()
        for arrival in list(self.arrivals):
            if arrival.task is not None:
                arrival.task.cancel()

    # ---- accepting ----

    def _accept(self) -> None:
        if len(self.arrivals) >= MOST_ENTERING and not self._make_place():
            self._rest()
            return
        for _ in range(min(TURN, MOST_ENTERING - len(self.arrivals))):
            try:
                sock = self._sock.accept()[0] if self._sock is not None else None
            except OSError as error:
                if error.errno in _GONE:
                    return
                if error.errno in _EXHAUSTED:
                    self._listener.count(stats.L_PAUSES)
                    self._rest()
                    return
                continue  # that client has gone already
            if sock is None:
                return
            self.admit(sock)

    def _make_place(self) -> bool:
        """Send the one away that has been here for longest, if that is long."""
        oldest = next(iter(self.arrivals))
        if self._loop.time() - oldest.since < SLOW_S or oldest.task is None:
            return False
        del self.arrivals[oldest]
        oldest.task.cancel()
        self._listener.count_refused("gate")
        return True

    def _rest(self) -> None:
        """Look away for a moment: the kernel keeps those who wait, and asking again would spin."""
        if self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._pause = self._loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._pause = None
        if self._sock is not None:
            self._loop.add_reader(self._sock.fileno(), self._accept)

    def admit(self, sock: socket.socket) -> None:
        """Count an accepted socket, and begin to let it in."""
        if not self._listener.enter(sock):
            reset(sock)
            return
        try:
            sock.setblocking(False)
            peer, name = sock.getpeername(), sock.getsockname()
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # gone already
            sock.close()
            self._listener.leave(0)
            return
        address, port = self._listener.names(peer, name)
        arrival = Arrival(sock, address, port, self._loop.time())
        self.arrivals[arrival] = None
        arrival.task = spawn(self._let_in(arrival), name="gate", report=self._plane.report)
        arrival.task.add_done_callback(lambda _: self._forget(arrival))

    def _forget(self, arrival: Arrival) -> None:
        # Not at the task's end: one that is cancelled before its first step never gets there.
        self.arrivals.pop(arrival, None)
        if not arrival.is_in:
            if not arrival.has_transport:  # which says why it ends, and ends by itself
                reset(arrival.sock)
            self._listener.leave(arrival.client_key)
        self._plane.look_whether_empty()

    # ---- letting in ----

    async def _let_in(self, arrival: Arrival) -> None:
        listener = self._listener
        reason = "proxy_protocol"
        try:
            async with asyncio.timeout(listener.spec.header_s):
                if listener.wants_header(arrival.address):
                    _apply(await _read_header(arrival.sock), arrival)
                arrival.refusal = listener.enter_client(arrival)
                reason = "tls"
                await self._connect(arrival)
        except (OSError, InvalidHeaderError, EOFError):  # TimeoutError is an OSError
            if arrival.refusal is None:
                listener.count_refused(reason)

    async def _connect(self, arrival: Arrival) -> None:
        listener = self._listener
        make = partial(Downstream, self._plane, listener, arrival)
        if listener.spec.tls is None:
            await self._loop.connect_accepted_socket(make, arrival.sock)
            return
        if listener.tls_context is None or arrival.refusal is not None:
            raise ConnectionAbortedError  # never in clear what was to be secret
        arrival.is_secure = True
        arrival.has_transport = True
        await tls_transport.accept(arrival.sock, listener.tls_context, make, self._plain_answer)

    def _plain_answer(self) -> bytes:
        """To a client that speaks plain HTTP where TLS is spoken."""
        self._listener.count_bad()
        request_id, _ = self._plane.ids.next()
        wall = self._plane.clock.wall
        return own_answer(faults.PLAIN_HTTP, request_id, None, keep_alive=False, wall=wall)


def reset(sock: socket.socket) -> None:
    """Close at once and leave nothing behind, neither here nor in the kernel."""
    try:
        if sock.family != socket.AF_UNIX and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    except OSError:
        pass
    sock.close()


def _apply(header: ProxyHeader, arrival: Arrival) -> None:
    if header.said is Said.ADDRESS:
        arrival.address = header.source
        arrival.port = header.port
    elif header.said is Said.NOTHING:
        # Somebody stands behind the peer: what he says of himself must not pass for its word.
        arrival.is_trusted = False
    arrival.is_secure = header.has_tls


async def _read_header(sock: socket.socket) -> ProxyHeader:
    """Take the PROXY header off `sock`, and not a byte that follows it."""
    taken = b""
    while True:
        try:
            ahead = sock.recv(proxy_protocol.LARGEST, socket.MSG_PEEK)
        except BlockingIOError:
            await _readable(sock)
            continue
        if not ahead:
            raise EOFError
        header = proxy_protocol.parse(taken + ahead)
        if header is not None:
            sock.recv(header.size - len(taken))
            return header
        taken += sock.recv(len(ahead))  # all of it is the header's


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(sock.fileno(), _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock.fileno())


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
