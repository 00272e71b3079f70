"""What the proxy tells endpoints about a request: who asked, by what way, and its id.

Most clients are not trusted, so that most of these lines are the same for every
request of a connection and are made once.
"""

from __future__ import annotations

import re
from zlib import crc32

from proxy.http1.forwarded import Forwarded, element
from proxy.http1.headers import CLIENT_CERTIFICATE, TRACE, TRACE_STATE, is_claim
from proxy.http1.message import RequestHead
from proxy.policy.trust import TrustedPeers
from proxy.stats import JUDGE_BUCKETS

MAX_REQUEST_ID = 128
"""Bytes of an id that is kept; longer ones would be the longest thing in every log line."""

_TITLES = (b"X-Client-Cert-Subject", b"X-Client-Cert-San")
_MASK = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15
"""Odd, so that multiplying by it modulo 2^64 is a permutation: ids never repeat in a worker."""
_REQUEST_ID_BYTES = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.:;=+/@~#|"
# W3C Trace Context level 1, section 3.2: version 00 is as long as this, later ones may be longer.
_TRACE = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?"
).fullmatch
_MAX_TRACE = 256


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

    __slots__ = (
        "_block",
        "_certificate",
        "_peers",
        "_port",
        "_proto",
        "address",
        "judge_bucket",
        "trusted",
    )

    def __init__(
        self, peer: str, port: int, proto: bytes, peers: TrustedPeers, certificate: bytes = b""
    ) -> None:
        self.address = peer
        self.trusted = peers.trusts(peer)
        self.judge_bucket = crc32(peer.encode()) % JUDGE_BUCKETS
        self._peers = peers
        self._proto = proto
        self._port = b"%d" % port
        self._certificate = certificate
        """Lines on the client's verified certificate, if it has shown one."""
        self._block = (
            b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Port: %d\r\n%b"
            % (
                peer.encode() or b"unknown",
                proto,
                port,
                _real_ip(peer),
            )
        ) + certificate

    def client(self, head: RequestHead) -> str:
        """Address of the client: the peer, or whom a trusted peer names."""
        if not self.trusted or head.special is None:
            return self.address
        chain = _chain(head.special)
        if not chain:
            return self.address
        return self._peers.client(self.address, chain.decode("latin-1"))

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
        trace = _trace(special, request_id, span)
        if not self.trusted:
            return (
                b"%bX-Forwarded-Host: %b\r\nX-Request-ID: %b\r\n%b"
                % (self._block, head.host, request_id, trace)
            ), request_id
        request_id = _kept_id(special) or request_id
        said = Forwarded(special.get(b"forwarded", b""))
        chain = _chain(special)
        peer = self.address.encode() or b"unknown"
        lines = (
            b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Port: %b\r\n%b"
            b"X-Forwarded-Host: %b\r\nX-Request-ID: %b\r\n%b"
        ) % (
            chain + b", " + peer if chain else peer,
            special.get(b"x-forwarded-proto") or said.proto or self._proto,
            special.get(b"x-forwarded-port") or self._port,
            _real_ip(self.client(head)),
            special.get(b"x-forwarded-host") or said.host or head.host,
            request_id,
            trace,
        )
        if said.value:
            own = element(self.address, head.host, self._proto)
            lines += b"Forwarded: %b, %b\r\n" % (said.value, own)
        for name, value in special.items():
            if is_claim(name):
                lines += b"%b: %b\r\n" % (name, value)
        return lines + (self._certificate or _shown_before(special)), request_id


def _real_ip(address: str) -> bytes:
    return b"X-Real-IP: %b\r\n" % address.encode() if address else b""


def _chain(special: dict[bytes, bytes]) -> bytes:
    """Whom a trusted peer names as those before it: by X-Forwarded-For, else by Forwarded."""
    chain = special.get(b"x-forwarded-for")
    if chain is None and b"forwarded" in special:
        return Forwarded(special[b"forwarded"]).chain
    return chain or b""


def _kept_id(special: dict[bytes, bytes]) -> bytes | None:
    """The request id that came, when it is one that may go into logs and answers."""
    request_id = special.get(b"x-request-id")
    if not request_id or len(request_id) > MAX_REQUEST_ID:
        return None
    return None if request_id.translate(None, _REQUEST_ID_BYTES) else request_id


def _trace(special: dict[bytes, bytes], request_id: bytes, span: bytes) -> bytes:
    """The lines of the trace: the one that came if it is valid, else a new one without state."""
    trace = special.get(TRACE)
    if trace is not None and len(trace) <= _MAX_TRACE:
        match = _TRACE(trace)
        if match is not None and not (match[1] and trace.startswith(b"00")):
            state = special.get(TRACE_STATE)
            if state:
                return b"traceparent: %b\r\ntracestate: %b\r\n" % (trace, state)
            return b"traceparent: %b\r\n" % trace
    return b"traceparent: 00-%b-%b-01\r\n" % (request_id, span)


def _shown_before(special: dict[bytes, bytes]) -> bytes:
    """What a trusted peer says of the certificate that the client has shown to it."""
    lines = b""
    for name, title in zip(CLIENT_CERTIFICATE, _TITLES, strict=True):
        value = special.get(name)
        if value is not None:
            lines += b"%b: %b\r\n" % (title, value)
    return lines
