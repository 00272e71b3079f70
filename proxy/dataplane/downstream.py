"""One client connection: requests in the order they came, answers in the same order."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, cast

from proxy.dataplane import faults, patience
from proxy.dataplane.answer import own_answer
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.forwarding import Origin
from proxy.errors import Fault
from proxy.http1 import target
from proxy.http1.encode import VIA, VIA_END
from proxy.http1.headers import CRLF, Fields
from proxy.http1.message import Malformed, RequestHead
from proxy.http1.parser import RequestParser

if TYPE_CHECKING:
    from proxy.dataplane.decision import Decision
    from proxy.dataplane.gate import Arrival
    from proxy.dataplane.listener import ListenerLive
    from proxy.dataplane.live import ServiceLive
    from proxy.dataplane.plane import Plane

MAX_PIPELINED = 128
"""Requests that wait for their turn; what came behind them is kept as it came, unread."""
OWN_AT_ONCE = 64
"""Requests of one read that we answer ourselves before it is the turn of others."""
CALM_S = 5.0
"""A connection at rest is looked at so often, if nothing is due before."""
DOZE_S = 2.0
"""A connection that has rested for so long gives up what it remembers for speed."""
LINGER_S = 2.0
"""After a last answer the client may still be sending: closing at once would reset
the connection and could take the answer with it (RFC 9112 section 9.6)."""
MAX_DISCARDED = 16 * 1024 * 1024
"""Bytes of a request body read and dropped after an early answer."""
HALF_CLOSED_S = 1.0
"""A client that only closed its side for sending cannot be told from one that is gone;
after this time without a byte of the answer it counts as gone, as it does with nginx."""
MAX_TURNED_AWAY = 64
"""Clients of a listener that hear at the same time why they are not served: each lingers."""
MAX_EARLY = 64 * 1024
"""Bytes kept that a client sent behind a request for an upgrade."""

_NO_LINGER = struct.pack("ii", 1, 0)


class Downstream(asyncio.Protocol):
    __slots__ = (
        "_advancing",
        "_arrival",
        "_discarded",
        "_early",
        "_last_words",
        "_own_answers",
        "_parsing",
        "_reading_paused",
        "_waiting",
        "calm_until",
        "client_key",
        "current",
        "eof_since",
        "head_since",
        "is_admitted",
        "is_ending",
        "is_paused",
        "is_secure",
        "known",
        "known_cookie",
        "known_service",
        "linger_until",
        "listener",
        "marks",
        "marks_end",
        "origin",
        "parser",
        "plane",
        "rested_since",
        "taken_at",
        "transport",
        "untaken",
    )

    def __init__(
        self, plane: Plane, listener: ListenerLive, arrival: Arrival | None = None
    ) -> None:
        # fixed
        self.plane = plane
        self.listener = listener
        self.is_secure = False
        self._arrival = arrival  # what the gate knows of it, until the connection is made
        self.is_admitted = False  # counted among the listener's connections
        self.client_key = 0  # what it is counted by among its client's; 0 = it is not
        # per connection
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # set before any use
        self.origin: Origin = None  # type: ignore[assignment] # the same
        spec = listener.spec
        self.parser = RequestParser(self, spec.max_header, spec.max_headers)
        self.marks = VIA  # lines in the head of every answer
        self.marks_end = VIA_END  # the same, and the end of the head
        self.is_ending = False  # nothing new is begun
        self.is_paused = False  # the client reads slower than the endpoint sends
        # Between requests it may rest for `idle`; before the first one it has the time of a head.
        self.rested_since = plane.clock.now - max(0.0, spec.idle_s - spec.header_s)
        self.linger_until = 0.0
        self.eof_since = 0.0  # the client has closed its side for sending
        self.known: Decision | None = None  # on the request before, and what it rested on
        self.known_cookie: bytes | None = None
        self.known_service: ServiceLive | None = None
        self.calm_until = 0.0  # at rest, and nothing is due before
        self._reading_paused = False
        self._own_answers = 0  # of what was read in this turn
        self.untaken = -1  # bytes written that it had yet to take when that was last asked
        self.taken_at = 0.0  # when they were seen to be fewer
        self._advancing = False
        # per exchange
        self.current: Exchange | None = None  # being answered
        self._parsing: Exchange | None = None  # being read
        self._waiting: deque[Exchange] | None = None
        self._last_words: Fault | None = None  # to be said when the others are answered
        self._early = b""
        self._discarded = 0
        self.head_since = 0.0

    # ---- called by the loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        arrival, self._arrival = self._arrival, None
        listener = self.listener
        if arrival is not None:
            self.is_secure = arrival.is_secure
            if listener.marks is not VIA:
                self.marks = listener.marks
                self.marks_end = self.marks + CRLF
        self.origin = listener.origin(self.transport, arrival)
        refusal = listener.admit(self, arrival)
        self.plane.connections.add(self)
        if refusal is not None:
            self._turn_away(refusal)
        elif (
            arrival is not None and listener.is_leaving
        ):  # it comes out of the gate after the others have rested
            self.is_ending = True
            self.head_since = self.plane.clock.now

    def _turn_away(self, refusal: Fault) -> None:
        """Say why it is not served, unless so many are being told that it would cost too much."""
        self.is_ending = True
        is_short = self.plane.is_short(self.transport.get_extra_info("socket"))
        if is_short or self.listener.turned_away > MAX_TURNED_AWAY:
            self.transport.abort()
        else:
            self._say_last(refusal)

    def data_received(self, data: bytes) -> None:
        if self.linger_until:
            self._discard(len(data))
            self._give_way()
            return
        exchange = self.current
        if self._early or (exchange is not None and exchange.head.upgrade is not None):
            self._keep_early(data)  # the endpoint has yet to say whose bytes these are
            return
        try:
            while (
                (early := self.parser.feed(data))
                and self.current is None
                and not self._waiting
                and not self.parser.is_held
            ):
                data = early  # we refused the upgrade ourselves: these are requests
        except Malformed as bad:
            self._say_last(faults.malformed(bad.status, bad.sentence))
            early = b""
        except Exception as error:  # noqa: BLE001 - a bug must not take the worker along
            self.plane.report("downstream", error)
            self.abort()
            return
        if early:
            self._keep_early(early)
        exchange = self.current
        if exchange is not None:
            exchange.flush_request()
        if self.parser.head_started and not self.head_since:
            self.head_since = self.plane.clock.now
            self.calm_until = 0.0
        if self.parser.is_held:
            self._give_way()

    def eof_received(self) -> bool:
        """Go on answering a client that only closed its side for sending."""
        if self._parsing is not None or (self.current is None and not self._waiting):
            return False  # in the middle of a request, or nothing to answer
        self.is_ending = True
        self.eof_since = time.monotonic()  # the judge asks how long it was patient
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.plane.forget(self)
        self.is_ending = True
        if self.current is not None:
            self.current.client_gone()
        if self._waiting:
            self._waiting.clear()
        self.current = self._parsing = None

    def pause_writing(self) -> None:
        self.is_paused = True
        exchange = self.current
        if exchange is not None and exchange.upstream is not None:
            exchange.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_paused = False
        self.rested_since = self.plane.clock.now  # it reads, if slowly
        self.untaken = -1
        exchange = self.current
        if exchange is None:
            self._advance()
        elif exchange.upstream is not None:
            exchange.touched = self.plane.clock.now
            exchange.upstream.transport.resume_reading()

    # ---- called by the parser ----

    def request_head(self, head: RequestHead) -> None:
        self.head_since = 0.0
        target.settle(head)
        exchange = Exchange(self.plane, self, head)
        self._parsing = exchange
        # A connection that is to end still answers what had begun to arrive before. One that does
        # not read the answers it has gets no more of them: they would gather here.
        if self.current is None and not self.is_paused and not self._is_over():
            self.current = exchange
            exchange.start()
        else:
            self._wait(exchange)

    def request_body(self, data: bytes) -> None:
        exchange = self._parsing
        if exchange is None:
            return
        if exchange.is_done:
            self._discard(len(data))
        else:
            exchange.request_body(data)

    def request_end(self, trailers: Fields | None) -> None:
        exchange, self._parsing = self._parsing, None
        if exchange is not None and not exchange.is_done:
            exchange.request_end(trailers)
        elif self.current is None and not self._waiting:
            self.rested_since = self.plane.clock.now
            self._discarded = 0
            if self.is_ending and not self.linger_until:
                self._end()

    # ---- called by exchanges ----

    def write(self, data: bytes) -> None:
        try:
            self.transport.write(data)
        except RuntimeError:  # uvloop's word for closing: nobody is there to read it
            return

    def write_own(self, answer: bytes) -> None:
        """Write an answer of our own: a whole one, with Via in its head."""
        if self.marks is not VIA:
            answer = answer.replace(VIA, self.marks, 1)
        self.write(answer)

    def abort(self) -> None:
        self.is_ending = True
        exchange = self.current
        if exchange is not None and exchange.head.version_1_0 and exchange.is_started:
            self._reset()
        self.transport.abort()

    def _reset(self) -> None:
        """Have the connection reset: where an answer ends with it, a mere end would look whole."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)

    def pause_body(self) -> None:
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_body(self) -> None:
        if (
            self._reading_paused
            and not self._waiting
            and not self._early
            and not self.transport.is_closing()
        ):
            self._reading_paused = False
            self.transport.resume_reading()
            if self.head_since:  # what is missing of that head could not come
                self.head_since = self.plane.clock.now

    @property
    def is_unread(self) -> bool:
        """Nothing is read from the client, so its leaving goes unnoticed."""
        return self._reading_paused

    @property
    def ends_here(self) -> bool:
        """The answer being given is the last one: nothing waits behind it."""
        return self.is_ending and not self._waiting and self._last_words is None

    def take_early(self) -> bytes:
        early, self._early = self._early, b""
        return early

    def exchange_done(self, exchange: Exchange) -> None:
        """Answer the next request in line, or rest, or close."""
        self.current = None
        self.rested_since = self.plane.clock.now
        self.calm_until = 0.0
        if not exchange.keep_alive:
            self._end()
        elif self._waiting or self._last_words is not None or self._early or self._reading_paused:
            self._advance()
        elif self.is_ending:
            self._end()

    def note_own_answer(self) -> None:
        """Hold what is pipelined without end and costs no endpoint a thing."""
        self._own_answers += 1
        if self._own_answers >= OWN_AT_ONCE:
            self.parser.is_held = True

    # ---- inside ----

    def _give_way(self) -> None:
        """Read on when the others have had their turn: the loop would read 32 times in a row."""
        if not self._waiting and not self.transport.is_closing():
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._own_answers = 0
        self.parser.is_held = False
        transport = self.transport
        if transport.is_closing() or transport.get_protocol() is not self:
            return  # a tunnel has seen to its reading
        if not self._reading_paused:
            transport.resume_reading()
        if self.current is None:
            self._advance()

    def _wait(self, exchange: Exchange) -> None:
        """Queue a pipelined request, and read no more until its turn has come."""
        if self._waiting is None:
            self._waiting = deque()
        if self.is_ending:
            exchange.is_done = True
            return
        self._waiting.append(exchange)
        if len(self._waiting) >= MAX_PIPELINED:
            self.parser.is_held = True
        self.pause_body()

    def _advance(self) -> None:
        if self._advancing:
            return  # an answer of our own ended at once: the loop below goes on
        self._advancing = True
        waiting = self._waiting
        while waiting and self.current is None and not self.is_paused and not self._is_over():
            exchange = self.current = waiting.popleft()
            exchange.start()
            exchange.flush_request()
        self._advancing = False
        if waiting or self.current is not None or self._is_over():
            if not waiting and not self.linger_until:
                self.resume_body()
            return
        if self._last_words is not None:
            self._say_last(self._last_words)
        elif self.is_ending:
            self._end()
        else:
            self.parser.is_held = False
            early = self.take_early()
            self.resume_body()
            if early:  # behind an upgrade that was refused, or too many to be read at once
                self.data_received(early)

    def _is_over(self) -> bool:
        """The last answer has been written: nothing more may be started."""
        return self.linger_until > 0 or self.transport.is_closing()

    def _keep_early(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > MAX_EARLY:
            self.pause_body()

    def _discard(self, size: int) -> None:
        self._discarded += size
        self.parser.is_held = True  # it is of no use to anybody, so the others come first
        if self._discarded > MAX_DISCARDED:
            self.abort()

    def _say_last(self, fault: Fault) -> None:
        """Answer ourselves, once the others are answered, and close."""
        self.is_ending = True
        if self.linger_until:
            return  # the last word has been said
        if self.current is not None or self._waiting:
            exchange = self._parsing
            if exchange is not None and exchange is self.current and not exchange.is_done:
                self._parsing = None
                self.listener.count_bad()
                self._fail_reading(exchange, fault)
                return
            self._last_words = fault
            self.pause_body()
            return
        self._last_words = None
        if self._parsing is not None and self._parsing.is_done:
            self._linger()  # the rest of a body whose request has its answer already
            return
        if self.is_admitted:
            self.listener.count_bad()
        _, request_id = self.origin.lines(_NO_HEAD, self.plane.ids)
        wall = self.plane.clock.wall
        self.write_own(own_answer(fault, request_id, None, keep_alive=False, wall=wall))
        if self.plane.access_log is not None:
            self.plane.access_log.add_refused(self, fault, request_id)
        self._linger()

    @staticmethod
    def _fail_reading(exchange: Exchange, fault: Fault) -> None:
        """The body of the request being answered is malformed."""
        if exchange.is_started:
            exchange.abandon()
        else:
            exchange.refuse(fault, close=True)

    def _end(self) -> None:
        self.is_ending = True
        if self._parsing is not None or self._reading_paused:
            self._linger()  # the client may still be sending
        else:
            self.transport.close()

    def _linger(self) -> None:
        transport = self.transport
        if transport.is_closing():
            return
        self.linger_until = self.plane.clock.now + LINGER_S
        self.calm_until = 0.0
        if transport.can_write_eof():
            transport.write_eof()
        if self._reading_paused:
            self._reading_paused = False
            transport.resume_reading()

    def rest(self) -> None:
        """Close the connection as soon as nothing is lost by it."""
        self.is_ending = True
        if (
            self.current is None
            and self._parsing is None
            and not self._waiting
            and not self._early
            and not self.linger_until
            and self.parser.is_between
        ):
            self.transport.close()

    def sweep(self, now: float) -> None:
        current = self.current
        if self.linger_until:
            self._sweep_lingering(now)
        elif current is not None:
            if self.eof_since and now - self.eof_since > HALF_CLOSED_S and current.is_waiting:
                self.abort()
            else:
                patience.sweep(current, now)
        elif self._parsing is not None:
            if now - self.rested_since > self.listener.spec.idle_s:
                self.abort()
        elif self.head_since and not self._waiting:
            if now - self.head_since > self.listener.spec.header_s:
                self.head_since = 0.0
                self._say_last(faults.HEAD_TOO_SLOW)
        else:
            self._sweep_resting(now)

    def _sweep_resting(self, now: float) -> None:
        spec = self.listener.spec
        rested_s = now - self.rested_since
        if rested_s <= min(DOZE_S, spec.idle_s / 2):
            return
        if self.transport.get_write_buffer_size():
            if patience.is_deaf(self, self.rested_since, now):
                self.abort()  # closing would wait for ever
        elif self.transport.is_closing():
            if rested_s > spec.idle_s:
                self.abort()
        elif rested_s > spec.idle_s:
            self.transport.close()
        elif rested_s > DOZE_S:
            if self.parser.is_between and not self.parser.is_asleep:
                self.parser.sleep()
                self.known = self.known_cookie = self.known_service = None
            self.calm_until = min(now + CALM_S, self.rested_since + spec.idle_s)

    def _sweep_lingering(self, now: float) -> None:
        is_written = self.transport.get_write_buffer_size() == 0
        if now > self.linger_until and (
            is_written or patience.is_deaf(self, self.rested_since, now)
        ):
            self.transport.abort()


_NO_HEAD = RequestHead(b"", b"", [])
