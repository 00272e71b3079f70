"""What the proxy tells endpoints about a request: who asked, by what way, and its id.

Most clients are not trusted, so that most of these lines are the same for every
request of a connection and are made once.
"""

from __future__ import annotations

from zlib import crc32

from proxy.http1.headers import TRACE
from proxy.http1.message import RequestHead
from proxy.policy.trust import TrustedPeers
from proxy.stats import JUDGE_BUCKETS

_MASK = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15
"""Odd, so that multiplying by it modulo 2^64 is a permutation: ids never repeat in a worker."""


class RequestIds:
    """Makes ids: 32 hex digits, also the trace id (W3C Trace Context level 1, section 3.2)."""

    __slots__ = ("_count", "_prefix")

    def __init__(self, seed: int) -> None:
        self._prefix = b"%016x" % ((seed >> 64) & _MASK or 1)
        self._count = seed & _MASK

    def next(self) -> tuple[bytes, bytes]:
        """A new request id, and the span id inside it."""
        self._count = (self._count + _ODD) & _MASK
        span = b"%016x" % (self._count or 1)
        return self._prefix + span, span


class Origin:
    """One client connection, as its endpoints shall see it."""

    __slots__ = ("_block", "_peers", "_port", "_proto", "address", "judge_bucket", "trusted")

    def __init__(self, peer: str, port: int, proto: bytes, peers: TrustedPeers) -> None:
        self.address = peer
        self.trusted = peers.trusts(peer)
        self.judge_bucket = crc32(peer.encode()) % JUDGE_BUCKETS
        self._peers = peers
        self._proto = proto
        self._port = b"%d" % port
        self._block = (
            b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Port: %d\r\n"
            % (
                peer.encode() or b"unknown",
                proto,
                port,
            )
        )

    def client(self, head: RequestHead) -> str:
        """Address of the client: the peer, or whom a trusted peer names."""
        if not self.trusted or head.special is None:
            return self.address
        forwarded = head.special.get(b"x-forwarded-for")
        if forwarded is None:
            return self.address
        return self._peers.client(self.address, forwarded.decode("latin-1"))

    def lines(self, head: RequestHead, ids: RequestIds) -> tuple[bytes, bytes]:
        """The lines to add to the request's head, and the request's id."""
        special = head.special
        if special is None:
            request_id, span = ids.next()
            return (
                b"%bX-Forwarded-Host: %b\r\nX-Request-ID: %b\r\ntraceparent: 00-%b-%b-01\r\n"
                % (self._block, head.host, request_id, request_id, span)
            ), request_id
        return self._lines_slow(head, special, ids)

    def _lines_slow(
        self, head: RequestHead, special: dict[bytes, bytes], ids: RequestIds
    ) -> tuple[bytes, bytes]:
        request_id, span = ids.next()
        trace = special.get(TRACE)
        if trace is None:
            trace = b"00-%b-%b-01" % (request_id, span)
        if not self.trusted:
            return (
                b"%bX-Forwarded-Host: %b\r\nX-Request-ID: %b\r\ntraceparent: %b\r\n"
                % (self._block, head.host, request_id, trace)
            ), request_id
        request_id = special.get(b"x-request-id", request_id)
        chain = special.get(b"x-forwarded-for")
        peer = self.address.encode() or b"unknown"
        lines = (
            b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Port: %b\r\n"
            b"X-Forwarded-Host: %b\r\nX-Request-ID: %b\r\ntraceparent: %b\r\n"
        ) % (
            peer if chain is None else chain + b", " + peer,
            special.get(b"x-forwarded-proto", self._proto),
            special.get(b"x-forwarded-port", self._port),
            special.get(b"x-forwarded-host", head.host),
            request_id,
            trace,
        )
        prefix = special.get(b"x-forwarded-prefix")
        if prefix is not None:
            lines += b"X-Forwarded-Prefix: %b\r\n" % prefix
        forwarded = special.get(b"forwarded")
        if forwarded is not None:
            lines += b"Forwarded: %b\r\n" % forwarded
        return lines, request_id
