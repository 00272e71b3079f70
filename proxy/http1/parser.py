"""Bytes to messages, and the only import of the C parser (llhttp, through httptools).

Two parsers with the same shape: `feed(data)` calls the sink back in the order of
the wire and raises `Malformed` for what we do not accept. They add what llhttp
leaves open: versions, Host, transfer codings, sizes, upgrades, HEAD.
A body of known length that spans several reads does not go through llhttp at all.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import httptools

from proxy.http1.headers import (
    COLON,
    CRLF,
    HEAD_END,
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
    SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK QUERY""".split()
)
_BODYLESS = frozenset({b"204", b"304"})
MAX_TRAILERS = 100
_USUAL_CONNECTION = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close", b"Keep-alive"})
MAX_LENGTH = 2**63 - 1
"""What a signed 64-bit integer holds: beyond it, lengths turn negative for some."""
OVERHEAD = 16
"""Bytes of framing let pass for each byte of a chunked body. Chunks of one byte have five;
chunk extensions without end would cost us much and the endpoint nothing."""
MAX_ANSWER_HEAD = 512 * 1024
"""Bytes of a head that an endpoint may send, or of chunk framing and trailers."""
_LF = 10
_CONTROLS = bytes(range(9)) + bytes(range(10, 32)) + b"\x7f"
_REFUSED_UPGRADES = (b"h2", b"http/", b"tls/")


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
    """Requests of one client connection.

    llhttp is fed in pieces that end where a head ends, and where a chunked body may
    end, so that it is known which bytes are which: what was sent before, beside or
    behind a head is never measured or judged as a part of it.
    """

    __slots__ = (
        "_after_cr",
        "_between",
        "_cookie",
        "_fields",
        "_host",
        "_is_chunked",
        "_is_last",
        "_known",
        "_known_lines",
        "_max_header",
        "_max_headers",
        "_overhead",
        "_parser",
        "_partial",
        "_piece",
        "_remaining",
        "_set_aside",
        "_sink",
        "_special",
        "_target",
        "_upgrade",
        "head_started",
    )

    def __init__(self, sink: RequestSink, max_header: int, max_headers: int) -> None:
        # fixed
        self._sink = sink
        self._max_header = max_header
        self._max_headers = max_headers
        # per connection
        self._parser = httptools.HttpRequestParser(self)
        self._piece = b""  # being fed to llhttp
        self._is_last = False  # the client said that no request follows
        self._known: RequestHead | None = None  # one without anything special, read before
        self._known_lines = b""
        # per message
        self._between = True  # between two messages: a close here cuts nothing
        self._after_cr = False  # half an empty line was read
        self.head_started = False
        self._partial = b""  # the head so far when it comes in pieces, or the last bytes of chunks
        self._remaining = 0  # bytes to come of a body of known length; -1 when nothing is read
        self._is_chunked = False
        self._overhead = 0  # bytes of a chunked body that carried nothing
        self._upgrade: RequestHead | None = None
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._fields: Fields = []
        self._host: bytes | None = None
        self._cookie: bytes | None = None
        self._special: dict[bytes, bytes] | None = None
        self._set_aside = 0

    def feed(self, data: bytes) -> bytes:
        """Parse `data`. Returns what follows the head of a request that asks for an upgrade.

        Until it is known whether the upgrade comes, later reads are not for this parser.
        """
        try:
            if self._remaining:
                data = self._pass_body(data)
            if self._between and data[:1] > b" " and data.find(HEAD_END) == len(data) - 4:
                if self._known is not None and self._read_known(data, self._known):
                    return b""
                if self._read(data):  # one whole head, as most reads are
                    self._stopped()
                elif self.head_started:
                    self._unfinished(data)  # three bytes, too, are "not found" at -1
                return b""
            return self._feed_pieces(data)
        except Malformed:
            self._remaining = -1  # what follows has no meaning any more
            raise

    def _read_known(self, data: bytes, known: RequestHead) -> bool:
        """Read a head whose header lines are those of the one before, byte for byte.

        Clients that call an API, and other proxies, repeat themselves; llhttp judged these
        lines the first time. False when it is another head.
        """
        line_end = data.find(CRLF)
        if data[line_end:] != self._known_lines or len(data) > self._max_header:
            return False
        line = _USUAL_REQUEST_LINE(data, 0, line_end)
        if line is None or line[1] not in METHODS:
            return False
        head = RequestHead(line[1], line[2], known.fields)
        head.host = known.host
        head.cookie = known.cookie
        self._sink.request_head(head)
        self._sink.request_end(None)
        return True

    def _feed_pieces(self, data: bytes) -> bytes:
        position, size = 0, len(data)
        while position < size and self._remaining >= 0:
            if self._remaining:
                end = position + self._remaining
                if end > size:
                    self._remaining = end - size
                    self._sink.request_body(data[position:])
                    break
            else:
                if self._between or self._after_cr:
                    position = self._skip_empty_lines(data, position)
                    if position == size:
                        break
                end = self._end_of_piece(data, position)
            piece = data[position:end]
            position = end
            if self._read(piece):
                if self._stopped():
                    return data[position:]
            elif not self._between:
                self._unfinished(piece)
        return b""

    def _read(self, piece: bytes) -> bool:
        """Have llhttp read `piece`; true when it stopped at a head that asks for an upgrade."""
        self._piece = piece
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            if self._upgrade is None:  # the preface of HTTP/2
                raise Malformed("only the versions 1.1 and 1.0 of HTTP are spoken here") from None
            return True
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, Malformed):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError as error:
            raise Malformed(f"the request is malformed: {_words(error)}") from None
        return False

    def _skip_empty_lines(self, data: bytes, position: int) -> int:
        """Skip what RFC 9112 section 2.2 lets a client send before a request line."""
        if self._after_cr:
            if data[position] != _LF:
                raise Malformed("there is a bare CR before the request")
            self._after_cr = False
            self._between = True
            position += 1
        while data.startswith(CRLF, position):
            position += 2
        first = data[position : position + 1]
        if first == b"\r" and position == len(data) - 1:
            self._after_cr = True
            self._between = False
            return position + 1
        if first in (b"\r", b"\n"):
            raise Malformed("there is a bare CR or LF before the request")
        return position

    def _end_of_piece(self, data: bytes, position: int) -> int:
        before = self._partial[-3:]
        if before:
            at = (before + data[position : position + 3]).find(HEAD_END)
            if at >= 0:
                return position + at + 4 - len(before)
        at = data.find(HEAD_END, position)
        return len(data) if at < 0 else at + 4

    def _unfinished(self, piece: bytes) -> None:
        """Bound what a head, chunk extensions and trailers may cost while they go on."""
        if self.head_started:
            self._partial += piece
            if len(self._partial) > self._max_header:
                raise self._too_large(self._partial)
        elif self._is_chunked:
            self._partial = (self._partial + piece)[-3:]
            self._overhead = max(0, self._overhead + len(piece))
            if self._overhead > self._max_header:
                raise Malformed("there is more around the chunks than in them")

    def _too_large(self, head: bytes) -> Malformed:
        if CRLF not in head[: self._max_header]:
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
            return
        self._set_aside += 1
        if lower == b"host":
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
        text = self._partial + self._piece if self._partial else self._piece
        fields = self._fields
        parser = self._parser
        head = RequestHead(parser.get_method(), self._target, fields)
        if not text.startswith(b"%b %b HTTP/1.1\r\n" % (head.method, head.target)):
            self._check_old(text, head)
        if len(text) > self._max_header:
            raise self._too_large(text)
        if len(fields) // STRIDE + self._set_aside > self._max_headers:
            raise Malformed(f"there are more than {self._max_headers} headers", 431)
        if self._host is not None:
            head.host = self._host
        elif not head.version_1_0:
            raise Malformed("there is no Host header")
        if head.method not in METHODS:
            self._refuse_method(head.method)
        if b"#" in head.target:
            raise Malformed("the request target has a fragment")
        head.cookie = self._cookie
        head.keep_alive = parser.should_keep_alive()
        special = self._special
        if special is not None:
            self._read_special(head, special)
        if not head.keep_alive:
            self._is_last = True
        self.head_started = False
        self._partial = b""
        self._target = b""  # as _reset does, without the call: from here on, fields are trailers
        self._fields = []
        self._host = self._cookie = self._special = None
        self._set_aside = 0
        self._sink.request_head(head)
        self._remember(head, text)

    def _remember(self, head: RequestHead, text: bytes) -> None:
        """Keep a head that has nothing special, for `_read_known`."""
        if head.special is None and not head.version_1_0 and head.target[:1] == b"/":
            self._known = head
            self._known_lines = text[text.find(CRLF) :]
        else:
            self._known = None

    def on_body(self, data: bytes) -> None:
        if self._is_chunked:
            self._overhead -= len(data) * (OVERHEAD + 1)
        self._sink.request_body(data)

    def on_message_complete(self) -> None:
        self._between = True
        if self._upgrade is None:  # else the body has yet to be read, or a tunnel begins
            self._end()

    # ---- what llhttp leaves to us ----

    def _end(self) -> None:
        self._remaining = -1 if self._is_last else 0
        if not self._is_chunked:
            self._sink.request_end(None)
            return
        trailers = self._fields
        self._is_chunked = False
        self._partial = b""
        self._reset()  # nothing of the trailers may reach the next request
        self._sink.request_end(_checked_trailers(trailers))

    @staticmethod
    def _check_old(text: bytes, head: RequestHead) -> None:
        # llhttp takes RTSP/1.1, ICE/1.0 and HTTP/0.9, too, and several spaces for one.
        if not text.startswith(b"%b %b HTTP/1.0\r\n" % (head.method, head.target)):
            raise Malformed("only the versions 1.1 and 1.0 of HTTP are spoken here")
        head.version_1_0 = True

    @staticmethod
    def _refuse_method(method: bytes) -> None:
        if method == b"CONNECT":
            raise Malformed("CONNECT is not served here: this is no forward proxy", 501)
        raise Malformed("the method is not one of HTTP")

    def _read_special(self, head: RequestHead, special: dict[bytes, bytes]) -> None:
        head.special = special
        coding = special.get(b"transfer-encoding")
        if coding is not None:
            if head.version_1_0:
                raise Malformed("Transfer-Encoding does not exist in HTTP/1.0")
            if coding.rstrip(b" ").lower() != b"chunked":  # a tab is another coding to llhttp
                raise Malformed("the only transfer coding accepted is chunked")
            if b"content-length" in special:
                raise Malformed("there are both Content-Length and Transfer-Encoding")
            head.chunked = self._is_chunked = True
            head.length = -1
            self._overhead = -len(self._piece)  # a piece that ends the head has no chunks
        elif b"content-length" in special:
            self._remaining = head.length = _length(special[b"content-length"])
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
        if b"close" in named:
            head.keep_alive = False
        if self._parser.should_upgrade():
            self._upgrade = head
            wanted = special.get(b"upgrade", b"")
            if not head.version_1_0 and head.length == 0 and _may_upgrade(wanted):
                head.upgrade = wanted
        named -= {b"close", b"keep-alive", b"upgrade"}
        if named:
            head.fields = without(head.fields, named)
            for name in named:
                special.pop(name, None)

    def _stopped(self) -> bool:
        """Go on after llhttp stopped at the end of a head that asks for an upgrade.

        True for an upgrade that we pass on: what follows is the tunnel's. One that we
        do not pass on (h2c, or with a body) is an ordinary request whose body llhttp has
        not read: a new parser is shown a head of the same framing, and then the body.
        """
        head, self._upgrade = self._upgrade, None
        assert head is not None, "llhttp stops for heads only that we noted"
        if head.upgrade is None and head.length:
            self._between = False
            framing = b"Transfer-Encoding: chunked"
            if not head.chunked:
                framing = b"Content-Length: %d" % head.length
            self._parser = httptools.HttpRequestParser(_BodyOnly(self))
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + HEAD_END)
            self._reset()  # the framing shown is no header of anybody's
            return False
        self._end()
        return head.upgrade is not None

    def body_read(self) -> None:
        """The body of a request that asked for an upgrade in vain is whole."""
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_complete()

    def _pass_body(self, data: bytes) -> bytes:
        """Count the body's bytes and pass them on; returns what follows the body."""
        if self._remaining < 0:
            return b""  # whoever said `Connection: close` is not listened to any more
        size = len(data)
        if size < self._remaining:
            self._remaining -= size
            self._sink.request_body(data)
            return b""
        body, rest = (data, b"") if size == self._remaining else _split(data, self._remaining)
        self._parser = httptools.HttpRequestParser(self)  # the old one still waits for the body
        self._between = True
        self._sink.request_body(body)
        self._end()
        return b"" if self._is_last else rest

    @property
    def is_between(self) -> bool:
        """Nothing of a next request has been read."""
        return self._between


class _BodyOnly:
    """Stands before a request parser whose head has been told already."""

    def __init__(self, parser: RequestParser) -> None:
        self.on_body = parser.on_body
        self.on_header = parser.on_header
        self.on_message_complete = parser.body_read


_USUAL_REQUEST_LINE = re.compile(rb"([A-Z-]+) (/[!\"$-~]*) HTTP/1\.1").fullmatch

_UNUSUAL = re.compile(
    rb"\n(?:connection:(?! ?(?:keep-alive|close)\r)|keep-alive|proxy-|te:|trailer|transfer-|upgrade"
    rb"|content-type: ?text/event-stream)"
).search
"""Lines of a lower-cased head that need a closer look. One search is a tenth of the cost of
looking for each of them (bytes.find of several bytes is 0.1 to 0.3 us)."""


_MAX_LINES = 256
_usual_lines: set[bytes] = set()


def _is_usual(line: bytes) -> bool:
    """Whether a status line is one of HTTP/1.1 without a control byte; remembers that it is."""
    if (
        line[:9] != b"HTTP/1.1 "
        or line[12:13] not in b" \r"
        or line[:-2].translate(None, _CONTROLS) != line[:-2]
    ):
        return False
    if len(_usual_lines) >= _MAX_LINES:  # reasons come from endpoints
        _usual_lines.clear()
    _usual_lines.add(line)
    return True


class WholeAnswer:
    """A final answer of the usual shape that came in one read: head and body of known length."""

    __slots__ = ("block", "body", "head", "keep_alive", "line", "status")

    def __init__(self, status: int, line: bytes, block: bytes, *, keep_alive: bool) -> None:
        self.status = status
        self.line = line
        """The status line with its end."""
        self.block = block
        """The header lines to pass on, each with its end."""
        self.keep_alive = keep_alive
        self.head = b""
        """All of the head's bytes, as they came."""
        self.body = b""


class _Whole:
    """Told by llhttp that a message is whole."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def on_message_complete(self) -> None:
        self.count += 1


class ResponseParser:
    """Responses on one connection to an endpoint."""

    __slots__ = (
        "_ended",
        "_event_stream",
        "_fields",
        "_interim",
        "_is_head",
        "_known",
        "_known_size",
        "_length",
        "_overhead",
        "_parser",
        "_reason",
        "_remaining",
        "_sink",
        "_special",
        "_spent",
        "_whole",
        "_whole_parser",
        "began",
    )

    MAX_INTERIM = 32

    def __init__(self) -> None:
        self._sink: ResponseSink = None  # type: ignore[assignment] # set by expect()
        self._parser = httptools.HttpResponseParser(self)
        self._remaining = 0
        self._is_head = False
        self._interim = 0
        self._overhead = 0  # bytes read that told nothing yet
        self._ended = True
        self._spent = False
        self.began = False
        """A byte of the answer has come."""
        self._whole = _Whole()
        self._whole_parser: Any = None
        self._known: WholeAnswer | None = None  # the last one, and its size with the body
        self._known_size = 0
        self._reset()

    def _reset(self) -> None:
        self._fields: Fields = []
        self._reason = b""
        self._special: dict[bytes, bytes] | None = None
        self._length: int | None = None
        self._event_stream = False

    def expect(self, sink: ResponseSink, *, is_head: bool) -> None:
        """Make ready for the answer to the next request, to be told to `sink`."""
        self._sink = sink
        if self._spent:
            self._parser = httptools.HttpResponseParser(self)
            self._spent = False
            self._reset()
        self._is_head = is_head
        self._interim = 0
        self._ended = False
        self._remaining = 0
        self._overhead = 0
        self.began = False

    def whole(self, data: bytes) -> WholeAnswer | None:
        """The answer, when all of it is in `data` and nothing in it needs a closer look.

        None otherwise: `feed` is to have the same bytes then. llhttp judges these answers as
        well, but without a call for every header: it is a third of the cost of `feed`.
        """
        if self.began or self._is_head or self._remaining or self._ended:
            return None
        known = self._known
        if known is not None and len(data) == self._known_size and data.startswith(known.head):
            self._ended = self.began = True
            known.body = data[len(known.head) :]
            return known
        return self._read_whole(data)

    def _is_valid(self, data: bytes) -> bool:
        """Ask llhttp whether `data` is one whole message."""
        parser, judged = self._whole_parser, self._whole
        if parser is None:
            parser = self._whole_parser = httptools.HttpResponseParser(judged)
        judged.count = 0
        try:
            parser.feed_data(data)
        except httptools.HttpParserError:
            judged.count = 0
        if judged.count != 1:
            self._whole_parser = None
        return judged.count == 1

    def _read_whole(self, data: bytes) -> WholeAnswer | None:
        end = data.find(b"\r\n\r\n") + 2
        line_end = data.find(b"\r\n") + 2
        lower = data[line_end - 1 : end].lower()
        at = lower.find(b"\ncontent-length: ")
        if end < 2 or at < 0 or _UNUSUAL(lower) is not None:
            return None
        number = lower[at + 17 : lower.find(b"\r", at + 17)]
        line = data[:line_end]
        status = data[9:12]
        if (
            not (line in _usual_lines or _is_usual(line))
            or not number.isdigit()
            or len(number) > 9
            or len(data) != end + 2 + int(number)
            or not b"200" <= status <= b"599"
            or status in _BODYLESS
        ):
            return None
        at = lower.find(b"\nconnection:")
        if lower.find(b"\nconnection:", at + 2) > 0 or not self._is_valid(data):
            return None
        block = data[line_end:end]
        keep_alive = True
        if at >= 0:  # keep-alive or close, says the search above
            line_after = lower.find(b"\n", at + 1)
            keep_alive = b"close" not in lower[at:line_after]
            block = block[:at] + block[line_after:]
            if not keep_alive:
                self._whole_parser = None
        self._ended = self.began = True
        whole = WholeAnswer(int(status), line, block, keep_alive=keep_alive)
        whole.body = data[end + 2 :]
        whole.head = data[: end + 2]
        if keep_alive:
            # Endpoints repeat themselves as well, within a second (Date) to the byte.
            self._known, self._known_size = whole, len(data)
        return whole

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
            return self._read(data)
        except Malformed:
            self._ended = self._spent = True
            raise

    def _read(self, data: bytes) -> bytes | None:
        if not self.began and data[:1] in (b"R", b"I"):  # llhttp takes RTSP and ICE, too
            raise Malformed("the answer is not one of HTTP")
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
        if not self._ended and not self._remaining:
            self._unfinished(len(data))
        return None

    def _unfinished(self, size: int) -> None:
        self._overhead = max(0, self._overhead + size)
        if self._overhead > MAX_ANSWER_HEAD:
            raise Malformed("the answer's head or the framing of its chunks does not end")

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
        if lower == b"content-type":
            self._fields += (name, COLON, value, CRLF)
            if value[:17].lower() == b"text/event-stream":
                self._event_stream = True
            return
        if lower == b"content-length":
            self._length = _length(value)
            return
        if lower == b"connection" and value in _USUAL_CONNECTION:
            return  # should_keep_alive() says it
        special = self._special
        if special is None:
            special = self._special = {}
        if lower in special:
            if lower == b"transfer-encoding":
                raise Malformed("there are several Transfer-Encoding headers")
            value = special[lower] + b", " + value
        special[lower] = value

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        reason = self._reason
        if status < 100 or not (reason.isalnum() or reason.translate(None, _CONTROLS) == reason):
            raise Malformed("the answer's status line is malformed")
        head = ResponseHead(status, reason, self._fields)
        special = self._special
        head.length = self._length
        head.event_stream = self._event_stream
        self._fields = []  # as _reset does, without the call: from here on, fields are trailers
        self._reason = b""
        self._special = self._length = None
        self._event_stream = False
        if status < 200:
            if special is not None:
                head.upgrade = special.get(b"upgrade")
            self._on_interim(head)
            return
        head.keep_alive = parser.should_keep_alive()
        head.version_1_0 = _is_1_0(parser.get_http_version())
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
        else:
            if self._ended:
                raise Malformed("bytes came after the answer")
            self._overhead -= len(data) * (OVERHEAD + 1)
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
            if not self._parser.should_upgrade():
                raise Malformed("the answer switches protocols without saying to which")
            self._ended = True
            self._spent = True
        self._sink.response_interim(head)

    def _read_special(self, head: ResponseHead, special: dict[bytes, bytes]) -> None:
        head.special = special
        coding = special.get(b"transfer-encoding")
        if coding is not None:
            if coding.rstrip(b" ").lower() != b"chunked" or head.version_1_0:
                raise Malformed("the answer's transfer coding is not chunked")
            head.chunked = True
            head.length = None
        connection = special.get(b"connection")
        if connection is not None and connection.lower() not in (b"keep-alive", b"close"):
            named = named_by_connection(connection)
            if b"close" in named:
                head.keep_alive = False
            named -= {b"close", b"keep-alive", b"upgrade"}
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


def _is_1_0(version: str) -> bool:
    if version not in ("1.1", "1.0"):
        raise Malformed("the answer's version of HTTP is neither 1.1 nor 1.0")
    return version == "1.0"


def _length(value: bytes) -> int:
    length = int(value)  # llhttp has let digits only pass, and blanks behind them
    if length > MAX_LENGTH:
        raise Malformed("the Content-Length is beyond all measure")
    return length


def _may_upgrade(wanted: bytes) -> bool:
    """Whether a tunnel may carry what `Upgrade: wanted` asks for."""
    names = tokens(wanted)
    return bool(names) and not any(name.startswith(_REFUSED_UPGRADES) for name in names)


def _words(error: httptools.HttpParserError) -> str:
    return str(error).lower() or type(error).__name__


def _checked_trailers(trailers: Fields) -> Fields | None:
    if len(trailers) > MAX_TRAILERS * STRIDE:
        raise Malformed(f"there are more than {MAX_TRAILERS} trailers", 431)
    return without(trailers, TRAILERS_REFUSED) or None
