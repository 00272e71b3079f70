"""One exchange: a client's request, the endpoint that answers it, and the answer's way back.

The life of an exchange: started (decided, leased) -> the request flows out ->
the answer flows back -> done. It is driven by callbacks of the client's and the
endpoint's connection; both write what they gathered once per read (`flush_*`).
"""

from __future__ import annotations

import time
from math import log2
from typing import TYPE_CHECKING

from proxy import stats
from proxy.dataplane import attempts, faults, judged, lease, limits, retry
from proxy.dataplane.answer import NOBODYS, own_answer, redirection
from proxy.dataplane.decision import Decision, decide
from proxy.dataplane.event_stream import EventStream, may_end_early
from proxy.dataplane.trail import Trail, count_end, retry_failed
from proxy.dataplane.tunnel import Tunnel, borders_of
from proxy.dataplane.upstream_tls import fault_of_loss
from proxy.errors import Fault, Retry
from proxy.http1 import encode
from proxy.http1.headers import Fields, agrees
from proxy.http1.message import RequestHead, ResponseHead
from proxy.http1.parser import WholeAnswer

if TYPE_CHECKING:
    from proxy.dataplane.downstream import Downstream
    from proxy.dataplane.farewell import Farewell
    from proxy.dataplane.live import EndpointLive, PoolLive, ServiceLive
    from proxy.dataplane.plane import Plane
    from proxy.dataplane.upstream import Upstream
    from proxy.model import Redirect

BUFFERED = 64 * 1024
"""Bytes of a request body kept while its endpoint is being connected to."""

UNREAD = 16 * 1024
"""Bytes of a body that endpoints read and drop to keep a connection after a refusal."""

CLIENT_GONE = 499
# Module globals are one look-up, attributes of a module are two.
_DURATION_US, _DURATION_BINS = stats.P_DURATION_US, stats.P_DURATION_BINS
_BYTES_OUT, _IN_FLIGHT = stats.P_BYTES_OUT, stats.P_IN_FLIGHT
_LAST_BIN, _BINS_PER_OCTAVE = stats.BINS - 1, stats.BINS_PER_OCTAVE
_FIRST_EDGE_S = stats.FIRST_EDGE_S
_KIND_INDEX = {kind: index for index, kind in enumerate(stats.FAILURE_KINDS)}


class Exchange:
    __slots__ = (
        "_chunked",
        "_lines",
        "_out",
        "_reply",
        "admitted",
        "body_sent",
        "bytes_in",
        "bytes_out",
        "client",
        "decision",
        "endpoint",
        "farewell",
        "head",
        "is_answered",
        "is_done",
        "is_paused",
        "is_started",
        "is_timed",
        "is_told",
        "is_whole",
        "keep_alive",
        "keeps_upstream",
        "kind",
        "must_close_upstream",
        "pending_since",
        "plane",
        "pool",
        "request_done",
        "request_id",
        "service",
        "started",
        "status",
        "stream",
        "switch",
        "to_end",
        "touched",
        "trail",
        "tried",
        "tunnel",
        "upstream",
    )

    def __init__(self, plane: Plane, client: Downstream, head: RequestHead) -> None:
        # fixed
        self.plane = plane
        self.client = client
        self.head = head
        self.keep_alive = head.keep_alive
        self.started = 0.0
        self.touched = 0.0
        self.request_id = b""
        self._lines = b""
        # where it goes
        self.service: ServiceLive | None = None
        self.decision: Decision | None = None
        self.pool: PoolLive | None = None
        self.endpoint: EndpointLive | None = None
        self.upstream: Upstream | None = None
        self.tried: set[EndpointLive] | None = None
        self.trail: Trail | None = None
        self.pending_since = 0.0  # while it waits for a connection
        self.admitted: ServiceLive | None = None  # the service among whose exchanges it counts
        self.kind = stats.REQUEST
        self.farewell: Farewell | None = None
        # the request's side
        self._out: list[bytes] = []
        self.bytes_in = 0
        self.body_sent = False
        self.request_done = False
        self.is_paused = False  # the endpoint reads slower than the client sends
        # the answer's side
        self._reply: list[bytes] = []
        self._chunked = False
        self.status = 0
        self.bytes_out = 0
        self.to_end = False
        self.is_started = False  # the final answer's head has come
        self.is_told = False  # and is on its way to the client
        self.is_answered = False  # the final answer is whole
        self.keeps_upstream = False
        self.must_close_upstream = False
        self.switch: ResponseHead | None = None
        self.tunnel: Tunnel | None = None
        self.stream: EventStream | None = None
        self.is_done = False
        # for the judge
        self.is_whole = False  # the endpoint's answer came at once, so its end is its head
        self.is_timed = False  # its latency is entered already, since it took so long

    # ---- the beginning ----

    def start(self) -> None:
        """Decide where the request goes, and send it on its way; once more after a hold."""
        plane, head, client = self.plane, self.head, self.client
        self.started = time.monotonic()
        self.touched = plane.clock.now
        self._lines, self.request_id = client.origin.lines(head, plane.ids)
        if client.listener.spec.redirect is not None:
            self._redirect(client.listener.spec.redirect)
            return
        service = plane.table.find(head.host, head.target)
        if service is None:
            client.listener.count_bad()
            self.refuse(faults.NO_ROUTE)
            return
        self.service = service
        limit = service.spec.max_body
        if limit and (head.length > limit or self.bytes_in > limit):
            self.refuse(faults.BODY_TOO_LARGE, close=True)
            return
        if service.hold is not None and service.hold.takes(self):
            return
        if service.is_limited and not limits.admit(self, service):
            return
        self._decide(service, head)
        attempts.begin(self, None)

    def _redirect(self, redirect: Redirect) -> None:
        """Send the client to https; it belongs to no service."""
        if not self.head.host:  # only HTTP/1.0 may say none
            self.client.listener.count_bad()
            self.refuse(faults.NO_HOST)
            return
        self.status = redirect.status
        keep_alive = self._begin_own()
        wall = self.plane.clock.wall
        self.client.write_own(
            redirection(redirect, self.request_id, self.head, keep_alive=keep_alive, wall=wall)
        )
        self._finish()

    def _decide(self, service: ServiceLive, head: RequestHead) -> None:
        client, clock = self.client, self.plane.clock
        known = client.known
        if (
            known is not None
            and known.until > clock.wall
            and client.known_cookie is head.cookie  # the very same object: the head was known
            and client.known_service is service  # of the same snapshot
        ):
            self.decision = known
            return
        address = client.origin.client(head)
        decision = self.decision = decide(service, head, address, clock.now, clock.wall)
        if decision.until:
            client.known = decision
            client.known_cookie = head.cookie
            client.known_service = service
        else:
            client.known = None

    def enter(self, endpoint: EndpointLive) -> None:
        self.endpoint = endpoint
        self.pool = pool = endpoint.pool
        pool.words[pool.slot + _IN_FLIGHT + self.kind] += 1
        endpoint.busy += 1
        endpoint.taken += 1

    def leave(self) -> None:
        endpoint, pool = self.endpoint, self.pool
        if endpoint is None or pool is None:
            return
        self.endpoint = None
        pool.words[pool.slot + _IN_FLIGHT + self.kind] -= 1
        endpoint.busy -= 1
        if endpoint.gone:
            endpoint.publish()  # no sweep comes by there any more

    def _become(self, kind: int) -> None:
        pool = self.pool
        if pool is not None and self.endpoint is not None:
            base = pool.slot + stats.P_IN_FLIGHT
            pool.words[base + self.kind] -= 1
            pool.words[base + kind] += 1
        self.kind = kind
        self._judge_answer()  # by its head: it may go on for hours

    def attach(self, connection: Upstream) -> None:
        """Send over this connection; the head goes before what the client sent meanwhile."""
        self.upstream = connection
        connection.exchange = self
        head, decision, pool, service = self.head, self.decision, self.pool, self.service
        assert decision is not None and pool is not None, "leased after the decision"  # noqa: PT018
        assert service is not None, "leased after the decision"
        connection.parser.expect(self, is_head=head.method == b"HEAD")
        self.touched = self.plane.clock.now
        if self.client.is_paused:  # it has yet to read the answer before this one
            connection.transport.pause_reading()
        write = encode.request_head if service.rules is None else service.rules.request_head
        self._out.insert(0, write(head, decision.cookie, self._lines + pool.passed))
        if not self.request_done:
            self.client.resume_body()

    def connect(self) -> None:
        attempts.connect(self)

    def connect_failed(self, fault: Fault) -> None:
        attempts.connect_failed(self, fault)

    # ---- the request, from the client ----

    def request_body(self, data: bytes) -> None:
        self.bytes_in += len(data)
        self.touched = self.plane.clock.now
        service = self.service
        limit = 0 if service is None else service.spec.max_body
        if limit and self.bytes_in > limit:
            self._body_too_large()
            return
        pieces = encode.chunk(data) if self.head.chunked else (data,)
        self._out += pieces
        if self.trail is not None:
            self.trail.keep(pieces)
        if self.upstream is None:
            self._keep_body(len(data))

    def _keep_body(self, size: int) -> None:
        """Bound what is kept of a body that has nowhere to go yet."""
        service = self.service
        if self.decision is None and service is not None and service.hold is not None:
            service.hold.grew(self, size)
        elif self.bytes_in > BUFFERED:
            self.client.pause_body()

    def _body_too_large(self) -> None:
        if self.is_started:
            self.abandon()
        else:
            self.refuse(faults.BODY_TOO_LARGE, close=True)

    def request_end(self, trailers: Fields | None) -> None:
        if self.head.chunked:
            if trailers:
                trailers = self._kept_trailers(trailers)
            last = encode.last_chunk(trailers)
            self._out.append(last)
            if self.trail is not None:
                self.trail.keep((last,))
        self.request_done = True
        self.touched = self.plane.clock.now

    def _kept_trailers(self, trailers: Fields) -> Fields:
        """What the service's header rules leave of them; a request in line has no service yet."""
        service = self.service or self.plane.table.find(self.head.host, self.head.target)
        if service is None or service.rules is None:
            return trailers
        return service.rules.kept(trailers)

    def keep_for_retry(self) -> None:
        """Keep the body, as far as it is short, for the case that it must be sent again."""
        trail = self.trail = Trail()
        trail.kept = []
        trail.keep(self._out)  # a pipelined request's has come before its turn

    def rewind(self) -> None:
        """Be as before the first attempt: nothing was sent, and nothing of an answer has come."""
        self._drop_upstream()
        trail = self.trail
        self._out = [] if trail is None or trail.kept is None else list(trail.kept)
        self._reply = []
        self.body_sent = False
        self.is_paused = False
        self.keeps_upstream = self.must_close_upstream = False
        self.touched = self.plane.clock.now

    def flush_request(self) -> None:
        """Write what was gathered for the endpoint."""
        upstream = self.upstream
        out = self._out
        if upstream is None or not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        self._out = []
        if self.bytes_in or (self.head.chunked and self.request_done):  # an end alone, too
            self.body_sent = True
        try:
            upstream.transport.write(data)
        except RuntimeError:  # uvloop's word for closing; connection_lost will tell us
            return

    def pause_request(self) -> None:
        self.is_paused = True
        if self.tunnel is None:
            self.client.pause_body()

    def resume_request(self) -> None:
        self.is_paused = False
        self.touched = self.plane.clock.now
        if self.tunnel is None:
            self.client.resume_body()

    # ---- the answer, from the endpoint ----

    def response_interim(self, head: ResponseHead) -> None:
        self.touched = self.plane.clock.now
        if head.status == 101:
            wanted, switched = self.head.upgrade, head.upgrade
            if wanted is not None and switched is not None and agrees(switched, wanted):
                self.switch = head  # else `upgraded` finds none
        elif not self.head.version_1_0:
            self._reply.append(encode.interim_head(head))
            if self.trail is None:
                self.trail = Trail()
            self.trail.has_told = True

    def answer(self, whole: WholeAnswer) -> None:
        """Pass a whole answer on in one write: most answers are of this kind."""
        self.status = whole.status
        self.is_whole = True
        self.is_started = self.is_answered = True
        self.keeps_upstream = whole.keep_alive
        self.bytes_out = len(whole.body)
        decision, pool = self.decision, self.pool
        if (
            self._reply
            or not self.keep_alive
            or self.client.is_ending
            or self.head.version_1_0
            or decision is None
            or decision.must_bind
            or pool is None
            or pool.changes_answers
        ):
            reply = self._reply
            block = whole.block
            if pool is not None and pool.rules is not None:
                block = pool.rules.kept_lines(block)
            reply += (whole.line, block)
            if decision is not None and decision.must_bind:
                self._bind_client(decision, reply)
            if pool is not None and pool.exposed:
                reply.append(pool.exposed)
            reply.append(self.client.marks)
            self._end_head(reply)
            reply.append(whole.body)
            self.client.write(b"".join(reply))
        else:
            self.client.write(
                b"".join((whole.line, whole.block, self.client.marks_end, whole.body))
            )
        self._finish()

    def response_head(self, head: ResponseHead) -> None:
        if self.is_done:
            return
        self.touched = self.plane.clock.now
        self.status = status = head.status
        self.is_started = True
        self.keeps_upstream = head.keep_alive
        reply = self._reply
        self._judge_head()
        reply.append(encode.status_line(status, head.reason))
        pool = self.pool
        reply += head.fields if pool is None or pool.rules is None else pool.rules.kept(head.fields)
        if head.length is not None and not head.chunked and status != 204:
            reply.append(b"Content-Length: %d\r\n" % head.length)
        elif head.chunked or head.to_end:
            self._frame_open_end(head, reply)
        if head.special is not None:
            self._read_special(head, head.special, reply)
        decision = self.decision
        if decision is not None and decision.must_bind:
            self._bind_client(decision, reply)
        if pool is not None and pool.exposed:
            reply.append(pool.exposed)
        if self.keep_alive and not self.client.is_ending and not self.head.version_1_0:
            reply.append(self.client.marks_end)
        else:
            reply.append(self.client.marks)
            self._end_head(reply)
        if head.event_stream:
            self._become(stats.STREAM)
            if may_end_early(head) and self.upstream is not None:
                self.stream = EventStream(self)
                self.upstream.parser.redirect(self.stream)

    def _judge_head(self) -> None:
        if self.pool is not None:
            place = stats.latency_bin(time.monotonic() - self.started)
            judged.answered(self, self.pool, place)

    def _read_special(
        self, head: ResponseHead, special: dict[bytes, bytes], reply: list[bytes]
    ) -> None:
        if self.upstream is not None:
            self.upstream.note_keep_alive(special)
        reply += encode.special_fields(head, special, is_chunked=self._chunked)

    def _frame_open_end(self, head: ResponseHead, reply: list[bytes]) -> None:
        if self.head.method == b"HEAD":
            if head.chunked:
                reply.append(encode.CHUNKED)
            return
        self.to_end = head.to_end
        if head.status in {204, 304}:
            return
        if self.head.version_1_0:
            self.keep_alive = False
        else:
            self._chunked = True
            reply.append(encode.CHUNKED)

    def _end_head(self, reply: list[bytes]) -> None:
        if self.keep_alive and not self.client.ends_here:
            if self.head.version_1_0:
                reply.append(encode.KEEP_ALIVE)
        else:
            self.keep_alive = False
            reply.append(encode.CLOSE)
        reply.append(b"\r\n")

    def _bind_client(self, decision: Decision, reply: list[bytes]) -> None:
        service = self.service
        if service is not None and service.cookie is not None and decision.binding is not None:
            value = service.cookie.header(decision.binding, self.client.is_secure)
            reply += (b"Set-Cookie: ", value, b"\r\n")

    def response_body(self, data: bytes) -> None:
        if self.is_done:
            return
        self.touched = self.plane.clock.now
        self.bytes_out += len(data)
        if self._chunked:
            self._reply += encode.chunk(data)
        else:
            self._reply.append(data)

    def response_end(self, trailers: Fields | None) -> None:
        if self._chunked:
            pool = self.pool
            if trailers and pool is not None and pool.rules is not None:
                trailers = pool.rules.kept(trailers)
            self._reply.append(encode.last_chunk(trailers))
        self.is_answered = True

    def flush_reply(self) -> None:
        """Write what was gathered for the client; end the exchange when that was all."""
        if self.is_done:
            return
        reply = self._reply
        if reply:
            self.client.write(reply[0] if len(reply) == 1 else b"".join(reply))
            self._reply = []
            self.is_told = self.is_started
        if self.is_answered:
            self._finish()

    def upgraded(self, after: bytes) -> None:
        """Begin the tunnel; `after` is what the endpoint sent behind its 101."""
        switch, upstream, client = self.switch, self.upstream, self.client
        if self.is_done or upstream is None:
            return
        if switch is None:
            self.upstream_failed(faults.UPGRADE_UNASKED)
            return
        self.status = 101
        self.is_started = True
        self._judge_head()
        self._become(stats.TUNNEL)
        self.flush_request()
        borders = borders_of(switch)
        client.write(b"".join((*self._reply, self._upgrade_head(switch), after)))
        self.bytes_out += len(after)
        upstream.exchange = None
        if borders is not None and after:
            borders.feed(after)
        self.tunnel = Tunnel(self, client.transport, upstream.transport, borders)
        self.tunnel.begin(client.take_early())

    def _upgrade_head(self, switch: ResponseHead) -> bytes:
        pool = self.pool
        if pool is None or pool.rules is None:
            return encode.upgrade_head(switch)
        switch.fields = pool.rules.kept(switch.fields)
        return encode.upgrade_head(switch, pool.rules.added)

    # ---- the end ----

    def _finish(self) -> None:
        self.is_done = True
        upstream = self.upstream
        if upstream is not None:
            self.upstream = None
            if self.status < 400:
                upstream.endpoint.good += 1
            else:
                judged.note_error(self)
                self._judge_answer()
            if self._may_keep():
                if self.client.is_paused:  # that was this exchange's; the next one must hear
                    upstream.resume_reading()
                lease.give_back(upstream, self.plane.clock.now)
            else:
                upstream.exchange = None
                upstream.close()
        self.leave()
        self._count()
        self.client.exchange_done(self)

    def _may_keep(self) -> bool:
        """Whether the connection may serve another request.

        Not after a refused upload: the endpoint may have answered without reading it, and then
        it hangs up although it promised to stay; the next POST would meet that.
        """
        return (
            self.keeps_upstream
            and self.request_done
            and not self.must_close_upstream
            and not (self.bytes_in > UNREAD and self.status >= 300)
        )

    def _count(self) -> None:
        duration = time.monotonic() - self.started
        if self.admitted is not None:
            limits.leave(self)
        pool = self.pool
        if pool is not None:
            words, slot = pool.words, pool.slot
            status = self.status
            words[slot + (status // 100 if status < 600 else 5)] += 1
            words[slot + _DURATION_US] += int(duration * 1e6)
            place = 0
            if duration > _FIRST_EDGE_S:  # as stats.latency_bin, without the call
                place = min(_LAST_BIN, 1 + int(log2(duration / _FIRST_EDGE_S) * _BINS_PER_OCTAVE))
            words[slot + _DURATION_BINS + place] += 1
            words[slot + _BYTES_OUT] += self.bytes_out
            if self.bytes_in:
                words[slot + stats.P_BYTES_IN] += self.bytes_in
            if self.is_whole:
                judged.answered(self, pool, place)
            if self.trail is not None:
                count_end(self, pool)
        log = self.plane.access_log
        if log is not None:
            log.add(self, duration)

    def _judge_answer(self) -> None:
        """Whether the endpoint's answer speaks for it or against it.

        Not implemented (501) and version not supported (505) are about the request.
        """
        endpoint = self.endpoint
        if endpoint is None:
            return
        if self.status < 500 or self.status in {501, 505}:
            endpoint.good += 1
        else:
            endpoint.was_bad(self.started)

    def count_failure(self, fault: Fault) -> None:
        pool, endpoint = self.pool, self.endpoint
        if pool is None or fault.kind is None:
            return
        judged.failed(self, pool, fault.kind)
        pool.words[pool.slot + stats.P_FAILURES + _KIND_INDEX[fault.kind]] += 1
        if endpoint is not None and fault.retry is not Retry.ALWAYS:  # counted when it happened
            if self.kind == stats.REQUEST:
                endpoint.failed(self.started, self.plane.clock.now)
            else:  # it was judged by its head
                endpoint.words[endpoint.slot + stats.E_FAILURES] += 1

    def refuse(self, fault: Fault, *, close: bool = False) -> None:
        """Answer ourselves; nothing of another answer has been sent."""
        self._drop_upstream()
        retry_failed(self)
        self.status = fault.status
        if close:
            self.keep_alive = False
        service = self.service
        answer = own_answer(
            fault,
            self.request_id,
            self.head,
            keep_alive=self._begin_own(),
            wall=self.plane.clock.wall,
            own=NOBODYS if service is None else service.own,
        )
        self.client.write_own(answer)
        self.client.note_own_answer()
        self._finish()

    def _begin_own(self) -> bool:
        """Go over to an answer of our own; whether the connection is kept after it."""
        self.is_started = self.is_answered = True
        self.keep_alive = self.keep_alive and not self.client.ends_here
        return self.keep_alive

    def upstream_lost(self, exc: Exception | None) -> None:
        """The endpoint closed the connection, or it broke."""
        upstream, self.upstream = self.upstream, None
        if self.is_done or upstream is None:
            return
        upstream.exchange = None
        if self.tunnel is not None:
            return
        if self.to_end and exc is None:
            self.keeps_upstream = False
            self._judge_answer()
            self.response_end(None)
            self.flush_reply()
        elif self.is_started:
            self.upstream_failed(faults.ANSWER_CUT)
        elif attempts.may_send_again(self, upstream, exc):
            attempts.send_again(self)
        else:
            self.upstream_failed(*fault_of_loss(exc, was_kept=upstream.is_reused))

    def upstream_failed(self, fault: Fault, detail: str = "") -> None:
        """The endpoint failed: try elsewhere, answer for it, or break off what it began."""
        if self.is_done:
            return
        self.count_failure(fault)
        if detail and self.plane.note is not None:
            self.plane.note(self, fault, detail)
        if self.is_started and not self._withdraw():
            retry_failed(self)
            self.abandon(failed=True)
        elif not retry.after_failure(self, fault):
            self.refuse(fault, close=not self.request_done)

    def _withdraw(self) -> bool:
        """Forget an answer of which nothing was written yet; False when it is too late for that.

        The first read of it held the fault already, so the client can be told of it instead.
        """
        if self.is_told or self.kind != stats.REQUEST:
            return False
        self.is_started = self._chunked = self.to_end = False
        self.status = 0
        self._reply = []
        return True

    def abandon(self, *, failed: bool = False) -> None:
        """Break the client's connection off: half an answer must not look whole."""
        if self.is_done:
            return
        if not failed and not self.is_started:
            self.status = CLIENT_GONE
        self._drop_upstream()
        self.is_done = True
        self.leave()
        self._count()
        self.client.abort()

    def client_gone(self) -> None:
        """The client's connection is lost."""
        if self.is_done:
            return
        if not self.is_started:
            self.status = CLIENT_GONE
            judged.left(self, time.monotonic())
        self._drop_upstream()
        self.is_done = True
        self.leave()
        if self.started:
            self._count()

    def _drop_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.exchange = None
            upstream.abort()
        elif self.pending_since and self.endpoint is not None:
            self.endpoint.room.leave(self)

    def tunnel_closed(self) -> None:
        """Both ends of the tunnel are closed, or cut."""
        if self.is_done:
            return
        self.is_done = True
        upstream, self.upstream = self.upstream, None
        if upstream is not None:  # its own connection_lost goes to the tunnel
            upstream.endpoint.open.discard(upstream)
            upstream.endpoint.room.lost()
        self.leave()
        self._count()
        self.plane.forget(self.client)

    @property
    def is_waiting(self) -> bool:
        """Nothing is being written to the client: it waits for an answer or an event."""
        return not self.is_started or self.kind == stats.STREAM
