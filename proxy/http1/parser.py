"""Bytes to messages, and the only import of the C parser (llhttp, through httptools).

Two parsers with the same shape: `feed(data)` calls the sink back in the order of
the wire and raises `Malformed` for what we do not accept. They add what llhttp
leaves open: versions, Host, transfer codings, sizes, upgrades, HEAD.
A body of known length that spans several reads does not go through llhttp at all.
"""

from __future__ import annotations

from typing import Protocol

import httptools

from proxy.http1.headers import (
    COLON,
    CRLF,
    LOOK_ALIKES,
    REQUEST_READ,
    RESPONSE_READ,
    STRIDE,
    TRAILERS_REFUSED,
    Fields,
    named_by_connection,
    tokens,
    without,
)
from proxy.http1.message import Malformed, RequestHead, ResponseHead

# RFC 9110 section 9.3, RFC 5789, WebDAV (RFC 4918, 3253, 3648, 3744, 5323, 5842), CalDAV,
# UPnP, PURGE and QUERY. What llhttp knows beyond these is RTSP or Icecast.
METHODS = frozenset(
    b"""GET HEAD POST PUT DELETE OPTIONS TRACE PATCH COPY LOCK MKCOL MOVE PROPFIND PROPPATCH
    SEARCH UNLOCK BIND REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY
    SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK QUERY CONNECT""".split()
)
MAX_TRAILERS = 100
_REFUSED_UPGRADES = frozenset({b"h2c", b"h2", b"http/2.0", b"tls/1.0"})


class RequestSink(Protocol):
    def request_head(self, head: RequestHead) -> None: ...
    def request_body(self, data: bytes) -> None: ...
    def request_end(self, trailers: Fields | None) -> None: ...


class ResponseSink(Protocol):
    def response_interim(self, head: ResponseHead) -> None: ...
    def response_head(self, head: ResponseHead) -> None: ...
    def response_body(self, data: bytes) -> None: ...
    def response_end(self, trailers: Fields | None) -> None: ...


class RequestParser:
    """Requests of one client connection."""

    __slots__ = (
        "_between",
        "_cookie",
        "_data",
        "_fields",
        "_host",
        "_max_header",
        "_max_headers",
        "_parser",
        "_partial",
        "_remaining",
        "_sink",
        "_special",
        "_target",
        "_upgrade",
        "head_started",
    )

    def __init__(self, sink: RequestSink, max_header: int, max_headers: int) -> None:
        self._sink = sink
        self._max_header = max_header
        self._max_headers = max_headers
        self._parser = httptools.HttpRequestParser(self)
        self._remaining = 0  # bytes of a body that by-passes llhttp
        self._between = True  # between two messages: a close here cuts nothing
        self.head_started = False
        self._partial = b""  # the head so far when it comes in pieces
        self._data = b""
        self._upgrade: RequestHead | None = None
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._fields: Fields = []
        self._host: bytes | None = None
        self._cookie: bytes | None = None
        self._special: dict[bytes, bytes] | None = None

    def feed(self, data: bytes) -> bytes:
        """Parse `data`. Returns what follows the head of a request that asks for an upgrade."""
        while True:  # again after every upgrade that we do not pass on
            if self._remaining:
                data = self._pass_body(data)
                if not data:
                    return b""
            self._data = data
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as stop:
                data = data[stop.args[0] :]
                if self._is_tunnel_asked() or not data:
                    return data
            except httptools.HttpParserError as error:
                self._refuse(error)
                return b""
        if self.head_started:
            self._partial += data
            if len(self._partial) > self._max_header:
                raise self._too_large()
        return b""

    def _refuse(self, error: httptools.HttpParserError) -> None:
        """Say what is wrong with the bytes; nothing is when they follow `Connection: close`."""
        if isinstance(error, httptools.HttpParserCallbackError):
            if isinstance(error.__context__, Malformed):
                raise error.__context__ from None
            raise error
        if not (self._between and self._data_after_close(error)):
            raise Malformed(f"the request is malformed: {_words(error)}") from None

    @staticmethod
    def _data_after_close(error: httptools.HttpParserError) -> bool:
        return "Connection: close" in str(error)

    def _too_large(self) -> Malformed:
        if CRLF not in self._partial[: self._max_header] and CRLF not in self._data[:1]:
            return Malformed("the request target is too long", 414)
        return Malformed(f"the request head is larger than {self._max_header} bytes", 431)

    # ---- called by llhttp ----

    def on_message_begin(self) -> None:
        self._between = False
        self.head_started = True

    def on_url(self, url: bytes) -> None:
        self._target = self._target + url if self._target else url

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower not in REQUEST_READ:
            self._fields += (name, COLON, value, CRLF)
        elif lower == b"host":
            if self._host is not None:
                raise Malformed("there are several Host headers")
            self._host = value
        elif lower == b"cookie":
            self._cookie = value if self._cookie is None else self._cookie + b"; " + value
        elif lower not in LOOK_ALIKES:
            special = self._special
            if special is None:
                special = self._special = {}
            if lower in special:
                if lower == b"transfer-encoding":
                    raise Malformed("there are several Transfer-Encoding headers")
                value = special[lower] + b", " + value
            special[lower] = value

    def on_headers_complete(self) -> None:
        if not self.head_started:
            return
        fields = self._fields
        parser = self._parser
        self._check_size(fields)
        head = RequestHead(parser.get_method(), self._target, fields)
        head.keep_alive = parser.should_keep_alive()
        version = parser.get_http_version()
        if version != "1.1":
            self._check_old(version, head)
        if self._host is None:
            if not head.version_1_0:
                raise Malformed("there is no Host header")
        else:
            head.host = self._host
        head.cookie = self._cookie
        special = self._special
        if special is not None:
            self._read_special(head, special)
        if head.method not in METHODS:
            raise Malformed("the method is not one of HTTP")
        if b"#" in head.target:
            raise Malformed("the request target has a fragment")
        self.head_started = False
        self._partial = b""
        self._reset()  # from here on, fields are trailers
        if head.length > 0:
            self._remaining = head.length
        self._sink.request_head(head)

    def on_body(self, data: bytes) -> None:
        if self._remaining:
            self._remaining -= len(data)
        self._sink.request_body(data)

    def on_message_complete(self) -> None:
        trailers = self._fields
        self._between = True
        self._remaining = 0
        if self._upgrade is not None:
            return  # not the end: the body has yet to be read, or a tunnel begins
        if trailers or self._special is not None:
            self._reset()
            self._sink.request_end(_checked_trailers(trailers))
        else:
            self._sink.request_end(None)

    # ---- what llhttp leaves to us ----

    def _check_size(self, fields: Fields) -> None:
        # The whole head was in this read and the read was small: nothing to add up.
        if len(self._partial) + len(self._data) > self._max_header:
            size = len(self._target) + sum(map(len, fields))
            if self._special:
                size += sum(len(n) + len(v) + STRIDE for n, v in self._special.items())
            size += len(self._host or b"") + len(self._cookie or b"")
            if len(self._target) > self._max_header:
                raise Malformed("the request target is too long", 414)
            if size > self._max_header:
                raise Malformed(f"the request head is larger than {self._max_header} bytes", 431)
        if len(fields) > self._max_headers * STRIDE:
            raise Malformed(f"there are more than {self._max_headers} headers", 431)

    def _check_old(self, version: str, head: RequestHead) -> None:
        if version != "1.0":
            raise Malformed("only the versions 1.1 and 1.0 of HTTP are spoken here")
        line = (self._partial + self._data).lstrip(CRLF) if self._partial else self._data
        if b" HTTP/1.0\r\n" not in line:  # llhttp takes RTSP/1.0 and ICE/1.0, too
            raise Malformed("only the versions 1.1 and 1.0 of HTTP are spoken here")
        head.version_1_0 = True

    def _read_special(self, head: RequestHead, special: dict[bytes, bytes]) -> None:
        head.special = special
        coding = special.get(b"transfer-encoding")
        if coding is not None:
            if head.version_1_0:
                raise Malformed("Transfer-Encoding does not exist in HTTP/1.0")
            if coding.strip().lower() != b"chunked":
                raise Malformed("the only transfer coding accepted is chunked")
            if b"content-length" in special:
                raise Malformed("there are both Content-Length and Transfer-Encoding")
            head.chunked = True
            head.length = -1
        elif b"content-length" in special:
            head.length = int(special[b"content-length"])
        head.expect = (
            not head.version_1_0 and special.get(b"expect", b"").strip().lower() == b"100-continue"
        )
        connection = special.get(b"connection")
        if connection is not None:
            self._read_connection(head, special, connection)

    def _read_connection(
        self, head: RequestHead, special: dict[bytes, bytes], connection: bytes
    ) -> None:
        if connection.lower() in (b"keep-alive", b"close"):
            return
        named = named_by_connection(connection)
        upgrade = special.get(b"upgrade")
        if b"upgrade" in named and upgrade is not None:
            self._upgrade = head
            wanted = tokens(upgrade)
            if not head.version_1_0 and head.length == 0 and not (wanted & _REFUSED_UPGRADES):
                head.upgrade = upgrade
        named -= {b"close", b"keep-alive", b"upgrade"}
        if named:
            head.fields = without(head.fields, named)
            for name in named:
                special.pop(name, None)

    def _is_tunnel_asked(self) -> bool:
        """Go on after llhttp stopped at the end of a head that asks for an upgrade.

        An upgrade that we pass on leaves what follows to the tunnel. One that we do not
        pass on (h2c, or with a body) is an ordinary request whose body llhttp has not
        read: a new parser is shown a head of the same framing, and is fed with it next.
        """
        head, self._upgrade = self._upgrade, None
        if head is None or head.upgrade is not None:
            self._between = True
            self._sink.request_end(None)
            return True
        self._restart()
        if head.length:
            framing = (
                b"Transfer-Encoding: chunked"
                if head.chunked
                else b"Content-Length: %d" % head.length
            )
            self._parser = httptools.HttpRequestParser(_Muted(self))
            self._parser.feed_data(b"POST / HTTP/1.1\r\nHost: -\r\n" + framing + b"\r\n\r\n")
            self._between = False
        else:
            self._sink.request_end(None)
        return False

    def restart(self) -> None:
        """Read on as on a new connection: after an upgrade that the endpoint refused."""
        self._restart()

    def _restart(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._between = True
        self.head_started = False
        self._remaining = 0
        self._reset()

    def _pass_body(self, data: bytes) -> bytes:
        """Count the body's bytes and pass them on; returns what follows the body."""
        size = len(data)
        if size < self._remaining:
            self._remaining -= size
            self._sink.request_body(data)
            return b""
        body, rest = (data, b"") if size == self._remaining else _split(data, self._remaining)
        self._restart()
        self._sink.request_body(body)
        self._sink.request_end(None)
        return rest

    @property
    def is_between(self) -> bool:
        """Nothing of a next request has been read."""
        return self._between


class _Muted:
    """Stands before a request parser whose head has been told already."""

    def __init__(self, parser: RequestParser) -> None:
        self.on_body = parser.on_body
        self.on_header = parser.on_header
        self.on_message_complete = parser.on_message_complete


class ResponseParser:
    """Responses on one connection to an endpoint."""

    __slots__ = (
        "_ended",
        "_fields",
        "_interim",
        "_is_head",
        "_parser",
        "_reason",
        "_remaining",
        "_sink",
        "_special",
        "_spent",
        "began",
    )

    MAX_INTERIM = 32

    def __init__(self, sink: ResponseSink) -> None:
        self._sink = sink
        self._parser = httptools.HttpResponseParser(self)
        self._remaining = 0
        self._is_head = False
        self._interim = 0
        self._ended = True
        self._spent = False
        self.began = False
        """A byte of the answer has come."""
        self._reset()

    def _reset(self) -> None:
        self._fields: Fields = []
        self._reason = b""
        self._special: dict[bytes, bytes] | None = None

    def expect(self, *, is_head: bool) -> None:
        """Make ready for the answer to the next request."""
        if self._spent:
            self._parser = httptools.HttpResponseParser(self)
            self._spent = False
            self._reset()
        self._is_head = is_head
        self._interim = 0
        self._ended = False
        self._remaining = 0
        self.began = False

    def feed(self, data: bytes) -> bytes | None:
        """Parse `data`; returns what follows a 101, else None.

        Raises Malformed for what is no valid answer, and for bytes after its end.
        """
        if self._ended:
            raise Malformed("bytes came after the answer")
        if self._remaining:
            self._pass_body(data)
            return None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            return data[stop.args[0] :]
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, Malformed):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError as error:
            if self._ended:
                raise Malformed("bytes came after the answer") from None
            raise Malformed(f"the answer is malformed: {_words(error)}") from None
        return None

    # ---- called by llhttp ----

    def on_message_begin(self) -> None:
        if self._ended:
            raise Malformed("bytes came after the answer")
        self.began = True

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower not in RESPONSE_READ:
            self._fields += (name, COLON, value, CRLF)
            return
        special = self._special
        if special is None:
            special = self._special = {}
        if lower == b"content-type":
            self._fields += (name, COLON, value, CRLF)
        elif lower in special:
            if lower == b"transfer-encoding":
                raise Malformed("there are several Transfer-Encoding headers")
            value = special[lower] + b", " + value
        special[lower] = value

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        head = ResponseHead(status, self._reason, self._fields)
        special = self._special
        self._reset()
        if status < 200:
            if special is not None:
                head.upgrade = special.get(b"upgrade")
            self._on_interim(head)
            return
        head.keep_alive = parser.should_keep_alive()
        head.version_1_0 = parser.get_http_version() != "1.1"
        if special is not None:
            self._read_special(head, special)
        bodyless = self._is_head or status in (204, 304)
        head.to_end = head.length is None and not head.chunked and not bodyless
        if head.to_end:
            head.keep_alive = False
        self._sink.response_head(head)
        if self._is_head:
            self._spent = True  # llhttp would wait for a body that never comes
            self._end(None)
        elif head.length and not bodyless:
            self._remaining = head.length

    def on_body(self, data: bytes) -> None:
        if self._remaining:
            self._remaining -= len(data)
        self._sink.response_body(data)

    def on_message_complete(self) -> None:
        if self._ended:
            return
        if self._interim < 0:  # the end of an interim answer
            self._interim = -self._interim
            return
        trailers = self._fields
        self._remaining = 0
        if trailers or self._special is not None:
            self._reset()
            self._end(_checked_trailers(trailers))
        else:
            self._end(None)

    def _end(self, trailers: Fields | None) -> None:
        self._ended = True
        self._sink.response_end(trailers)

    def _on_interim(self, head: ResponseHead) -> None:
        count = self._interim + 1
        if count > self.MAX_INTERIM:
            raise Malformed("there are too many interim answers")
        self._interim = -count
        if head.status == 101:
            self._ended = True
            self._spent = True
        self._sink.response_interim(head)

    def _read_special(self, head: ResponseHead, special: dict[bytes, bytes]) -> None:
        head.special = special
        coding = special.get(b"transfer-encoding")
        length = special.get(b"content-length")
        if coding is not None:
            if coding.strip().lower() != b"chunked" or head.version_1_0:
                raise Malformed("the answer's transfer coding is not chunked")
            head.chunked = True
        elif length is not None:
            head.length = int(length)
        kind = special.get(b"content-type")
        if kind is not None and kind[:17].lower() == b"text/event-stream":
            head.event_stream = True
        connection = special.get(b"connection")
        if connection is not None and connection.lower() not in (b"keep-alive", b"close"):
            named = named_by_connection(connection) - {b"close", b"keep-alive", b"upgrade"}
            if named:
                head.fields = without(head.fields, named)

    def _pass_body(self, data: bytes) -> None:
        size = len(data)
        if size < self._remaining:
            self._remaining -= size
            self._sink.response_body(data)
            return
        body, rest = (data, b"") if size == self._remaining else _split(data, self._remaining)
        self._remaining = 0
        self._spent = True
        self._sink.response_body(body)
        self._end(None)
        if rest:
            raise Malformed("bytes came after the answer")


def _split(data: bytes, at: int) -> tuple[bytes, bytes]:
    return data[:at], data[at:]


def _words(error: httptools.HttpParserError) -> str:
    return str(error).lower() or type(error).__name__


def _checked_trailers(trailers: Fields) -> Fields | None:
    if len(trailers) > MAX_TRAILERS * STRIDE:
        raise Malformed(f"there are more than {MAX_TRAILERS} trailers", 431)
    return without(trailers, TRAILERS_REFUSED) or None
