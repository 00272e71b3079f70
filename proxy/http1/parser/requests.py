"""Requests: one client connection's bytes to heads, bodies and trailers."""

from __future__ import annotations

import re
from typing import Any, Protocol

import httptools

from proxy.http1.headers import (
    COLON,
    CRLF,
    HEAD_END,
    REQUEST_READ,
    STRIDE,
    Fields,
    is_look_alike,
    is_of_family,
    may_upgrade,
    named_by_connection,
    tokens,
    without,
)
from proxy.http1.message import Malformed, RequestHead
from proxy.http1.parser.chunks import Chunks
from proxy.http1.parser.framing import (
    checked_trailers,
    collected,
    length_of,
    split_at,
    words,
)

# RFC 9110 section 9.3, RFC 5789, WebDAV (RFC 4918, 3253, 3648, 3744, 5323, 5842), CalDAV,
# UPnP, PURGE and QUERY: those that llhttp knows of HTTP, but for the stand-in.
METHODS = frozenset(
    b"""GET HEAD POST PUT DELETE OPTIONS TRACE PATCH COPY LOCK MKCOL MOVE PROPFIND PROPPATCH
    SEARCH UNLOCK BIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY
    SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK QUERY""".split()
)
_LF = 10
_NOTHING = -1
_CHUNKS = -2
_METHOD = re.compile(rb"[A-Z][A-Z0-9_-]*").fullmatch
_STAND_IN = b"REBIND"
"""Shown to llhttp for a method that it does not know. Not one of METHODS, so that only
heads of such a method cost a look at what was meant."""
_USUAL_REQUEST_LINE = re.compile(rb"([A-Z-]+) (/[!\"$-~]*) HTTP/1\.1").fullmatch


_MOST_PASSED = 1024
_passed: set[bytes] = set()
"""Lower-case names of headers that are passed on as they are: judged once, looked up then."""


def _is_passed(lower: bytes) -> bool:
    """Whether a header that is not read by its name is not set aside for its family either."""
    if is_of_family(lower):
        return False
    if len(lower) <= 64:
        if len(_passed) >= _MOST_PASSED:  # names come from clients
            _passed.clear()
        _passed.add(lower)
    return True


class RequestSink(Protocol):
    def request_head(self, head: RequestHead) -> None: ...
    def request_body(self, data: bytes) -> None: ...
    def request_end(self, trailers: Fields | None) -> None: ...


class RequestParser:
    """Requests of one client connection.

    llhttp is fed in pieces that end where a head ends, so that it is known which bytes are
    which: what was sent before, beside or behind a head is never measured or judged as a part
    of it. Chunks are not for llhttp at all.
    """

    __slots__ = (
        "_after_cr",
        "_between",
        "_chunks",
        "_cookie",
        "_empty",
        "_fields",
        "_foreign",
        "_host",
        "_is_foreign",
        "_is_last",
        "_known",
        "_known_lines",
        "_max_header",
        "_max_headers",
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
        "is_held",
    )

    def __init__(self, sink: RequestSink, max_header: int, max_headers: int) -> None:
        # fixed
        self._sink = sink
        self._max_header = max_header
        self._max_headers = max_headers
        # per connection
        self._parser = _parser_for(self)
        self._piece = b""  # being fed to llhttp
        self._is_last = False  # the client said that no request follows
        self._known: RequestHead | None = None  # one without anything special, read before
        self._known_lines = b""
        self.is_held = False
        """Nothing is begun behind the message being read: the sink has enough for now, or what was
        read was costly and it is the turn of others. The sink is to set it back."""
        # per message
        self._between = True  # between two messages: a close here cuts nothing
        self._after_cr = False  # half an empty line was read
        self._empty = 0  # bytes of empty lines before the message
        self.head_started = False
        self._partial = b""  # the head so far when it comes in pieces
        self._is_foreign = False  # its method is none that llhttp knows
        self._foreign: bytes | None = None  # that method, when llhttp is shown another
        self._remaining = 0  # bytes to come of a body of known length, _CHUNKS or _NOTHING
        self._chunks: Chunks | None = None
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
        """Parse `data`. Returns what is not read yet.

        That is what follows the head of a request that asks for an upgrade: until it is known
        whether the upgrade comes, later reads are not for this parser. Or what follows the
        request at which the parser was held: it is to be fed again.
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
            self._give_up()
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
        self._empty = 0
        self._sink.request_head(head)
        self._sink.request_end(None)
        return True

    def _feed_pieces(self, data: bytes) -> bytes:
        position, size = 0, len(data)
        while position < size and self._remaining != _NOTHING:
            if self._remaining == _CHUNKS:
                position = self._read_chunks(data, position)
                continue
            if self._remaining:
                end = self._end_of_body(data, position)
                if end > size:
                    break
            else:
                if self._between or self._after_cr:
                    if self.is_held:
                        return data[position:]
                    position = self._skip_empty_lines(data, position)
                end = self._end_of_piece(data, position)
            piece = data[position:end]
            position = end
            if piece and self._take(piece):
                return data[position:]
        return b""

    def _take(self, piece: bytes) -> bool:
        """Read a piece; true when a tunnel begins behind it."""
        if self._read(piece):
            return self._stopped()
        if not self._between:
            self._unfinished(piece)
        return False

    def _end_of_body(self, data: bytes, position: int) -> int:
        """Where a body ends that began in this read; one that goes on is passed on already."""
        end = position + self._remaining
        if end > len(data):
            self._remaining = end - len(data)
            self._sink.request_body(data[position:])
        return end

    def _read(self, piece: bytes) -> bool:
        """Have llhttp read `piece`; true when it stopped at a head that asks for an upgrade."""
        self._piece = piece
        if self._is_foreign:
            return self._read_foreign(piece)
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
            if not self.head_started or not self._may_be_foreign(piece):
                raise Malformed(f"the request is malformed: {words(error)}") from None
        else:
            return False
        return self._read_foreign(piece)  # not as an exception's consequence: its errors count

    def _may_be_foreign(self, piece: bytes) -> bool:
        """Whether llhttp may have refused no more than a method that it does not know.

        It also stops at one that it knows of another protocol, such as RTSP's, and at the first
        letter that no method of its own goes on with.
        """
        if self._foreign is not None:
            return False  # it was shown one that it knows
        method = (self._partial + piece).partition(b" ")[0]
        return method not in METHODS and _METHOD(method) is not None

    def _read_foreign(self, piece: bytes) -> bool:
        """Keep the head until it is whole; then show llhttp one with a method that it knows."""
        self._is_foreign = True
        text = self._partial + piece
        method, _, rest = text.partition(b" ")
        if _METHOD(method) is None:
            raise Malformed("the method is not one of HTTP")
        line, line_end, _ = text.partition(CRLF)
        if line_end and (line.count(b" ") != 2 or line[-9:-1] != b" HTTP/1."):
            raise Malformed("the request line is malformed")  # llhttp shall not wait for more
        if len(text) > self._max_header:
            raise self._too_large(text)
        if not text.endswith(HEAD_END):
            return False
        self._parser = _parser_for(self)
        self._reset()
        self._partial = b""
        self._is_foreign = False
        self._foreign = method
        return self._read(_STAND_IN + b" " + rest)

    def _skip_empty_lines(self, data: bytes, position: int) -> int:
        """Skip what RFC 9112 section 2.2 lets a client send before a request line."""
        if self._after_cr:
            if data[position] != _LF:
                raise Malformed("there is a bare CR before the request")
            self._after_cr = False
            self._between = True
            position += 1
        before = position
        while data.startswith(CRLF, position):
            position += 2
        self._count_empty(position - before)
        first = data[position : position + 1]
        if first == b"\r" and position == len(data) - 1:
            self._after_cr = True
            self._between = False
            return position + 1
        if first in (b"\r", b"\n"):
            raise Malformed("there is a bare CR or LF before the request")
        return position

    def _give_up(self) -> None:
        """Read nothing more, and keep nothing: the connection may linger for some seconds."""
        self._remaining = _NOTHING
        self._chunks = None
        self._partial = self._piece = b""
        self._reset()
        self.sleep()

    def _count_empty(self, size: int) -> None:
        """Let one empty line pass for a slip; more of them are a head that is slow to begin."""
        self._empty += size
        if self._empty > len(CRLF):
            self.head_started = True
        if self._empty > self._max_header:
            raise Malformed("there is no end to the empty lines before the request")

    @property
    def is_asleep(self) -> bool:
        return type(self._parser) is _Asleep

    def sleep(self) -> None:
        """Give up, between two messages, what is easily had again: heads may be large, rests long."""
        self._known = None
        self._known_lines = b""
        self._parser = _Asleep(self)

    def wake(self, data: bytes) -> None:
        self._parser = _parser_for(self)
        self._parser.feed_data(data)

    def _end_of_piece(self, data: bytes, position: int) -> int:
        before = self._partial[-3:]
        if before:
            at = (before + data[position : position + 3]).find(HEAD_END)
            if at >= 0:
                return position + at + 4 - len(before)
        at = data.find(HEAD_END, position)
        return len(data) if at < 0 else at + 4

    def _unfinished(self, piece: bytes) -> None:
        """Bound what a head may cost while it goes on."""
        if self.head_started:
            self._partial += piece
            if len(self._partial) > self._max_header:
                raise self._too_large(self._partial)
            self._check_count()  # what a short line costs here is more than its bytes

    def _check_count(self) -> None:
        if len(self._fields) // STRIDE + self._set_aside > self._max_headers:
            raise Malformed(f"there are more than {self._max_headers} headers", 431)

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
        if lower in _passed or (lower not in REQUEST_READ and _is_passed(lower)):
            self._fields += (name, COLON, value, CRLF)
            return
        self._set_aside += 1
        if lower == b"host":
            if self._host is not None:
                raise Malformed("there are several Host headers")
            self._host = value
        elif lower == b"cookie":
            self._cookie = value if self._cookie is None else self._cookie + b"; " + value
        elif not is_look_alike(lower):
            self._special = collected(self._special, lower, value)

    def on_headers_complete(self) -> None:
        text = self._partial + self._piece if self._partial else self._piece
        fields = self._fields
        parser = self._parser
        head = RequestHead(parser.get_method(), self._target, fields)
        if not text.startswith(b"%b %b HTTP/1.1\r\n" % (head.method, head.target)):
            self._check_old(text, head)
        if len(text) > self._max_header:
            raise self._too_large(text)
        self._check_count()
        if self._host is not None:
            head.host = self._host
        elif not head.version_1_0:
            raise Malformed("there is no Host header")
        if head.method not in METHODS:
            head.method = self._other_method(head.method)
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
        self._target = b""  # as _reset does, without the call
        self._fields = []
        self._host = self._cookie = self._special = None
        self._set_aside = self._empty = 0
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
        self._sink.request_body(data)

    def on_message_complete(self) -> None:
        self._between = True
        if self._upgrade is None:  # else the body has yet to be read, or a tunnel begins
            self._end()

    # ---- what llhttp leaves to us ----

    def _end(self, trailers: Fields | None = None) -> None:
        self._remaining = _NOTHING if self._is_last else 0
        self._sink.request_end(trailers)

    def _read_chunks(self, data: bytes, position: int) -> int:
        """Read of a chunked body what has come; returns the position behind it."""
        chunks = self._chunks
        assert chunks is not None, "the head said so"
        position = chunks.feed(data, position)
        if chunks.was_costly:
            self.is_held = True
        if chunks.is_whole:
            self._chunks = None
            self._parser = _parser_for(self)  # the old one waits for chunks
            self._between = True
            self._end(checked_trailers(chunks.trailers))
        return position

    @staticmethod
    def _check_old(text: bytes, head: RequestHead) -> None:
        # llhttp takes RTSP/1.1, ICE/1.0 and HTTP/2.0, too, and several spaces for one.
        before = b"%b %b HTTP/1." % (head.method, head.target)
        minor = text[len(before) : len(before) + 3] if text.startswith(before) else b""
        if minor == b"0\r\n":
            head.version_1_0 = True
        elif not (minor[:1].isdigit() and minor[1:] == CRLF):
            raise Malformed("only the versions 1.1 and 1.0 of HTTP are spoken here")

    def _other_method(self, method: bytes) -> bytes:
        foreign, self._foreign = self._foreign, None
        if method == b"CONNECT":
            raise Malformed("CONNECT is not served here: this is no forward proxy", 501)
        return foreign or method

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
            head.chunked = True
            head.length = -1
            self._remaining = _CHUNKS
            self._chunks = Chunks(self._sink.request_body, self._max_header)
        elif b"content-length" in special:
            self._remaining = head.length = length_of(special[b"content-length"])
        if b"expect" in special and not head.version_1_0:
            self._read_expectations(head, special[b"expect"])
        if b"upgrade" in special and self._parser.should_upgrade():
            self._upgrade = head  # llhttp reads no body, be it Proxy-Connection that asks
        connection = special.get(b"connection", b"")
        if connection:
            self._read_connection(head, special, connection)
        if head.version_1_0 and b"keep-alive" not in tokens(connection):
            # llhttp takes Proxy-Connection for Connection: an old proxy that passes it on, and
            # knows nothing of kept connections, would wait for our close (RFC 9112 C.2.2).
            head.keep_alive = False

    @staticmethod
    def _read_expectations(head: RequestHead, value: bytes) -> None:
        """What we do not know is passed on: the endpoint says 417, or ignores it."""
        expected = tokens(value)
        head.expect = b"100-continue" in expected
        others = expected - {b"100-continue"}
        if others:
            head.fields += (b"Expect", COLON, b", ".join(sorted(others)), CRLF)

    def _read_connection(
        self, head: RequestHead, special: dict[bytes, bytes], connection: bytes
    ) -> None:
        if connection.lower() in (b"keep-alive", b"close"):
            return
        named = named_by_connection(connection)
        if b"close" in named:
            head.keep_alive = False
        if self._upgrade is not None and b"upgrade" in named:
            wanted = special.get(b"upgrade", b"")
            if not head.version_1_0 and head.length == 0 and may_upgrade(wanted):
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
            if not head.chunked:
                framing = b"Content-Length: %d" % head.length
                self._parser = _parser_for(_BodyOnly(self))
                self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + HEAD_END)
            return False
        self._end()
        return head.upgrade is not None

    def body_read(self) -> None:
        """The body of a request that asked for an upgrade in vain is whole."""
        self._parser = _parser_for(self)
        self.on_message_complete()

    def _pass_body(self, data: bytes) -> bytes:
        """Count the body's bytes and pass them on; returns what follows the body."""
        if self._remaining == _CHUNKS:
            rest = data[self._read_chunks(data, 0) :]
            return b"" if self._is_last else rest
        if self._remaining == _NOTHING:
            return b""  # whoever said `Connection: close` is not listened to any more
        size = len(data)
        if size < self._remaining:
            self._remaining -= size
            self._sink.request_body(data)
            return b""
        body, rest = (data, b"") if size == self._remaining else split_at(data, self._remaining)
        self._parser = _parser_for(self)  # the old one still waits for the body
        self._between = True
        self._sink.request_body(body)
        self._end()
        return b"" if self._is_last else rest

    @property
    def is_between(self) -> bool:
        """Nothing of a next request has been read."""
        return self._between


def _parser_for(told: object) -> Any:
    """A new llhttp. It is to let pass what claims a later HTTP/1 than 1.1: whoever says so is
    to be answered in ours (RFC 9110 section 2.5). Other versions are refused with the head.
    """
    parser = httptools.HttpRequestParser(told)
    parser.set_dangerous_leniencies(lenient_version=True)
    return parser


class _Asleep:
    """Stands for the parser of a connection at rest: llhttp's and its callbacks are 900 bytes."""

    __slots__ = ("feed_data",)

    def __init__(self, parser: RequestParser) -> None:
        self.feed_data = parser.wake


class _BodyOnly:
    """Stands before a request parser whose head has been told already."""

    def __init__(self, parser: RequestParser) -> None:
        self.on_body = parser.on_body
        self.on_message_complete = parser.body_read
