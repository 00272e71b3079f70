"""Answers through a whole plane: whatever an endpoint sends, the client reads one answer a request.

The first byte of an input picks what the client asks, the rest is what the endpoint says to it, on
a connection that it then closes. The next request is answered well on another connection. A client
that read more answers than it asked for, or took a broken one for whole, or another's for its own,
would have met response splitting.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import h11

from proxy.http1.parser import ResponseParser
from tests.fuzz import reading
from tests.fuzz.door import Door, Pipe
from tests.fuzz.reading import Event

A_WHILE = 8_000
TOKENS = reading.TOKENS
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nX-Good: 1\r\n\r\nthe good"
_LINES = b" / HTTP/1.1\r\nHost: a\r\n"
_GOOD_REQUEST = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"


class Question(NamedTuple):
    method: bytes
    wire: bytes


QUESTIONS = (
    Question(b"GET", b"GET" + _LINES + b"\r\n"),
    Question(b"HEAD", b"HEAD" + _LINES + b"\r\n"),
    Question(b"POST", b"POST" + _LINES + b"Content-Length: 2\r\n\r\nhi"),
    Question(b"POST", b"POST" + _LINES + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    Question(b"PUT", b"PUT" + _LINES + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\nhi"),
    Question(b"GET", b"GET" + _LINES + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    Question(b"GET", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"),
    Question(b"GET", b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"),
)

_door: list[Door] = []


def seeds() -> list[bytes]:
    return [
        bytes((at,)) + raw
        for raw, is_head in reading.answers_of_the_corpus()
        for at, question in enumerate(QUESTIONS)
        if (question.method == b"HEAD") == is_head and (at < 2 or len(raw) % len(QUESTIONS) == at)
    ]


def run(data: bytes) -> Hashable:
    if not _door:
        _door.append(Door())
    question = QUESTIONS[data[0] % len(QUESTIONS)] if data else QUESTIONS[0]
    said = data[1:]
    middle = len(said) // 2
    heard: tuple[object, ...] = ()
    for pieces in ([said], [said[:middle], said[middle:]]):
        script = _Script([piece for piece in pieces if piece])
        client, _ = _door[0].pass_through([question.wire + _GOOD_REQUEST], script)
        heard = _check(question, said, client)
    return heard


class _Script:
    """Says the input on the first connection, and the truth on every other one."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self._asked: dict[int, int] = {}
        self._has_ended = False

    def __call__(self, number: int, pipe: Pipe) -> None:
        asked = pipe.sent.count(b"GET /good HTTP/1.1\r\n")
        if not number:
            if asked and not self._has_ended:
                self._has_ended = True
                # Bytes that come only after the next request was sent cannot be told from its
                # answer, by nobody: docs/threat-model.md says so.
                pipe.take_back()
                pipe.give(b"")
            asked = bool(pipe.sent)
        if asked > self._asked.get(number, 0):
            self._asked[number] = int(asked)
            for piece in self._pieces if not number else [GOOD]:
                pipe.give(piece)
            if not number:
                pipe.give(b"")


class _Got(NamedTuple):
    status: int
    body: bytes
    is_whole: bool
    is_ours: bool
    is_good: bool


def _check(question: Question, said: bytes, client: Pipe) -> tuple[object, ...]:
    told = reading.read_answer(
        ResponseParser(), [said] if said else [], is_head=question.method == b"HEAD"
    )[0]
    wire = bytes(client.sent)
    finals, switched = _finals(question, wire, client)
    if switched is not None:
        # The script takes back what was not read yet when the next request arrives in the tunnel.
        kind, *raw = told[-1]
        assert kind == "raw", f"{switched!r} in a tunnel, and not {told}"
        assert raw[0].startswith(switched), f"{switched!r} in a tunnel, and not {told}"
        return ("tunnel",)
    if not finals:
        assert client.is_ended, "no answer, and the connection stays open"
        return ("nothing", client.is_cut)
    first = finals[0]
    if not first.is_ours and not first.is_good:
        _check_first(first, told)
    for other in finals[1:]:
        assert other.is_good or other.is_ours, f"{other} was not asked for\n{wire!r}"
    assert len(finals) <= 2, f"{len(finals)} answers to two requests\n{wire!r}"
    return (*(each[:1] + each[2:] for each in finals), reading.shape(told)[-4:])


def _check_first(first: _Got, told: Sequence[Event]) -> None:
    answers = [event[1].head for event in told if event[0] == "answer"]
    assert answers, f"{first} comes from nowhere: {told}"
    body = b"".join(event[1] for event in told if event[0] == "body")
    ends = any(event[0] == "end" for event in told)
    assert first.status == answers[0].status
    assert body.startswith(first.body), f"{first.body!r} is not what was said: {body!r}"
    if first.is_whole:
        assert ends or (answers[0].to_end and told[-1] == ("more",)), (
            f"{first} looks whole, and is not: {told}"
        )
        assert first.body == body


def _finals(question: Question, wire: bytes, client: Pipe) -> tuple[list[_Got], bytes | None]:
    """All final answers, as h11 reads them, and what follows a switch of protocols."""
    found: list[_Got] = []
    methods = [question.method, b"GET"]
    is_old = b"HTTP/1.0" in question.wire
    while wire and len(found) < 4:
        is_first = not found
        reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        method = methods[len(found)] if len(found) < 2 else b"GET"
        headers = [(b"host", b"a")]
        if is_first and b"Upgrade:" in question.wire:
            headers += [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]
        reader.send(h11.Request(method=method, target=b"/", headers=headers))
        reader.send(h11.EndOfMessage())
        reader.receive_data(wire)
        got, rest, has_switched = _one(reader, client, is_old=is_old)
        if has_switched:
            return found, rest
        if got is None:
            break
        found.append(got)
        if not got.is_whole:
            break
        wire = rest
    return found, None


def _one(reader: h11.Connection, client: Pipe, *, is_old: bool) -> tuple[_Got | None, bytes, bool]:
    status, body, is_ours, is_good = 0, b"", False, False
    is_ended = False
    while True:
        event = reader.next_event()
        if isinstance(event, h11.InformationalResponse):
            assert not is_old, "an interim answer to a client of HTTP/1.0"
            if event.status_code == 101:
                return None, reader.trailing_data[0], True
        elif isinstance(event, h11.Response):
            status = event.status_code
            names = dict(event.headers)
            is_ours, is_good = b"proxy-status" in names, b"x-good" in names
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            break
        elif event is h11.NEED_DATA and not is_ended and client.is_ended and not client.is_cut:
            is_ended = True
            try:
                reader.receive_data(b"")
                continue
            except h11.RemoteProtocolError:
                return _got(status, body, is_ours=is_ours, is_good=is_good), b"", False
        else:
            return _got(status, body, is_ours=is_ours, is_good=is_good), b"", False
    whole = _Got(status, body, is_whole=True, is_ours=is_ours, is_good=is_good)
    return whole, reader.trailing_data[0], False


def _got(status: int, body: bytes, *, is_ours: bool, is_good: bool) -> _Got | None:
    if not status:
        return None
    return _Got(status, body, is_whole=False, is_ours=is_ours, is_good=is_good)
