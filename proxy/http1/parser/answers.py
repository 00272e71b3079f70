"""Answers: one endpoint connection's bytes to heads, bodies and trailers."""

from __future__ import annotations

import re
from typing import Any, Protocol

import httptools

from proxy.http1.headers import (
    COLON,
    CRLF,
    RESPONSE_READ,
    STRIDE,
    Fields,
    named_by_connection,
    without,
)
from proxy.http1.message import Malformed, ResponseHead
from proxy.http1.parser.framing import (
    CONTROLS,
    MANY_CHUNKS,
    OVERHEAD,
    checked_trailers,
    collected,
    length_of,
    split_at,
    words,
)

_BODYLESS = frozenset({b"204", b"304"})
_USUAL_CONNECTION = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close", b"Keep-alive"})
MAX_ANSWER_HEAD = 512 * 1024
"""Bytes of a head that an endpoint may send, or of chunk framing and trailers."""
MAX_ANSWER_HEADERS = 1000
"""A short line costs many times its bytes here: what is bounded must be their number, too."""
_UNUSUAL = re.compile(
    rb"\n(?:connection:(?! ?(?:keep-alive|close)\r)|keep-alive|proxy-|te:|trailer|transfer-|upgrade"
    rb"|content-type: ?text/event-stream)"
).search
"""Lines of a lower-cased head that need a closer look. One search is a tenth of the cost of
looking for each of them (bytes.find of several bytes is 0.1 to 0.3 us)."""


_MAX_LINES = 256
_usual_lines: set[bytes] = set()


class ResponseSink(Protocol):
    def response_interim(self, head: ResponseHead) -> None: ...
    def response_head(self, head: ResponseHead) -> None: ...
    def response_body(self, data: bytes) -> None: ...
    def response_end(self, trailers: Fields | None) -> None: ...


def _is_usual(line: bytes) -> bool:
    """Whether a status line is one of HTTP/1.1 without a control byte; remembers that it is."""
    if (
        line[:9] != b"HTTP/1.1 "
        or line[12:13] != b" "
        or line[:-2].translate(None, CONTROLS) != line[:-2]
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
        "_gathered",
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
        "was_costly",
    )

    MAX_INTERIM = 32

    def __init__(self) -> None:
        self._sink: ResponseSink = None  # type: ignore[assignment] # set by expect()
        self._parser = _parser_for(self)
        self._remaining = 0
        self._is_head = False
        self._interim = 0
        self._overhead = 0  # bytes read that told nothing yet
        self._gathered: list[bytes] = []  # of the chunks of one read
        self._ended = True
        self._spent = False
        self.began = False
        """A byte of the answer has come."""
        self.was_costly = False
        """The last read with chunks had so many that it is the turn of others now."""
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
            self._parser = _parser_for(self)
            self._spent = False
            self._reset()
        self._is_head = is_head
        self._interim = 0
        self._ended = False
        self._remaining = 0
        self._overhead = 0
        self.began = False

    def redirect(self, sink: ResponseSink) -> None:
        """Tell what is left of this answer to another sink."""
        self._sink = sink

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
            if self._gathered:
                self._pass_gathered()  # what came before it did come
            self._ended = self._spent = True
            raise

    def _read(self, data: bytes) -> bytes | None:
        # llhttp takes RTSP and ICE, too, and so does it take empty lines before either.
        if not self.began and data.lstrip(CRLF)[:1] in (b"R", b"I"):
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
            raise Malformed(f"the answer is malformed: {words(error)}") from None
        if self._gathered:
            self._pass_gathered()
        if not self._ended and not self._remaining:
            self._unfinished(len(data))
        return None

    def _unfinished(self, size: int) -> None:
        self._overhead = max(0, self._overhead + size)
        if self._overhead > MAX_ANSWER_HEAD:
            raise Malformed("the answer's head or the framing of its chunks does not end")
        self._check_count()

    def _check_count(self) -> None:
        if len(self._fields) > MAX_ANSWER_HEADERS * STRIDE:
            raise Malformed(f"the answer has more than {MAX_ANSWER_HEADERS} headers")

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
            self._length = length_of(value)
            return
        if lower == b"connection" and value in _USUAL_CONNECTION:
            # should_keep_alive() says it. As a trailer it means nothing but to llhttp.
            self._spent = self._spent or value[:1] in (b"c", b"C")
            return
        self._special = collected(self._special, lower, value)

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        reason = self._reason
        if status < 100 or not (reason.isalnum() or reason.translate(None, CONTROLS) == reason):
            raise Malformed("the answer's status line is malformed")
        self._check_count()
        head = ResponseHead(status, reason, self._fields)
        special = self._special
        head.length = self._length
        head.event_stream = self._event_stream
        self._fields = []  # as _reset does, without the call: from here on, fields are trailers
        self._reason = b""
        self._special = self._length = None
        self._event_stream = False
        if status < 200:
            _is_1_0(parser.get_http_version())
            if special is not None:
                self._read_special_of_interim(head, special)
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
            self._sink.response_body(data)
        else:
            if self._ended:
                raise Malformed("bytes came after the answer")
            if self._interim < 0:  # llhttp reads none for 100, 102 and 103 only
                raise Malformed("an interim answer has a body")
            self._overhead -= len(data) * (OVERHEAD + 1)
            self._gathered.append(data)

    def on_message_complete(self) -> None:
        if self._ended:
            return
        if self._gathered:
            self._pass_gathered()
        if self._interim < 0:  # the end of an interim answer
            self._interim = -self._interim
            if self._fields or self._special is not None:
                raise Malformed("an interim answer has trailers")
            return
        trailers = self._fields
        self._remaining = 0
        if trailers or self._special is not None:
            self._reset()
            self._spent = True  # llhttp would take a trailer's framing for the next answer's
            self._end(checked_trailers(trailers))
        else:
            self._end(None)

    def _pass_gathered(self) -> None:
        """Pass on as one what came as many, as chunks of a byte would."""
        gathered, self._gathered = self._gathered, []
        self.was_costly = len(gathered) > MANY_CHUNKS
        self._sink.response_body(gathered[0] if len(gathered) == 1 else b"".join(gathered))

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
            _remove_named(head, named)

    @staticmethod
    def _read_special_of_interim(head: ResponseHead, special: dict[bytes, bytes]) -> None:
        head.upgrade = special.get(b"upgrade")
        connection = special.get(b"connection")
        if connection is not None:
            _remove_named(head, named_by_connection(connection))

    def _pass_body(self, data: bytes) -> None:
        size = len(data)
        if size < self._remaining:
            self._remaining -= size
            self._sink.response_body(data)
            return
        body, rest = (data, b"") if size == self._remaining else split_at(data, self._remaining)
        self._remaining = 0
        self._spent = True
        self._sink.response_body(body)
        self._end(None)
        if rest:
            raise Malformed("bytes came after the answer")


def _parser_for(told: ResponseParser) -> Any:
    """A new llhttp, which lets blanks follow a chunk's size (old servers pad it so), and an answer
    claim a later HTTP/1 than 1.1: it is to be read as one of ours (RFC 9110 section 2.5).
    """
    parser = httptools.HttpResponseParser(told)
    parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True, lenient_version=True)
    return parser


def _remove_named(head: ResponseHead, named: set[bytes]) -> None:
    named -= {b"close", b"keep-alive", b"upgrade"}
    if named:
        head.fields = without(head.fields, named)


def _is_1_0(version: str) -> bool:
    if version[:2] != "1.":
        raise Malformed("the answer's version of HTTP is neither 1.1 nor 1.0")
    return version == "1.0"
