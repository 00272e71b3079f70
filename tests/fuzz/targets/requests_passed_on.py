"""Requests through a whole plane: endpoints get exactly those that we read, and read them so too.

The reader at the endpoint is h11, which knows nothing of us. If it saw another number of requests
than our parser, or another body, that would be request smuggling.
"""

from __future__ import annotations

import re
from collections.abc import Hashable

import h11

from proxy.http1.headers import FORWARDING, HOP_BY_HOP, OURS
from tests.fuzz import reading
from tests.fuzz.door import CLIENT, Door, Pipe
from tests.fuzz.reading import Event, Request

A_WHILE = 8_000
TOKENS = reading.TOKENS
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")
_SINGLE = {b"host", b"content-length", b"transfer-encoding", b"cookie", *FORWARDING, *OURS}
Passed = tuple[bytes, bytes, bytes, bytes]
"""Method, target, host and body of a request that came whole."""

_door: list[Door] = []


def seeds() -> list[bytes]:
    whole = reading.requests_of_the_corpus()
    return [*whole, b"".join(whole[10:14]), whole[30] * 3]


def run(data: bytes) -> Hashable:
    if not _door:
        _door.append(Door())
    told = _told(data)
    endpoint = _Endpoint()
    half = len(data) // 2
    for pieces in ([data], [data[:half], data[half:]]):
        endpoint = _Endpoint()
        client, _ = _door[0].pass_through([piece for piece in pieces if piece], endpoint)
        _check(told, endpoint, bytes(client.sent))
    return endpoint.kinds, reading.shape(told)[:6]


def _told(data: bytes) -> list[Event]:
    """What we read; the endpoint refuses every upgrade, so that what follows one is requests."""
    told = reading.read_requests([data] if data else [], max_header=4096, max_headers=50)
    if told[-1][0] == "raw" and reading.last_request(told).keep_alive:
        told = [*told[:-1], *_told(told[-1][1])]
    return told


class _Endpoint:
    """Reads every connection with h11, and answers what came whole, or asks to switch."""

    def __init__(self) -> None:
        self._readers: dict[int, h11.Connection] = {}
        self._read: dict[int, int] = {}
        self.begun: list[h11.Request] = []
        self.whole: list[Passed] = []
        self.kinds: tuple[str, ...] = ()
        self._body = b""

    def __call__(self, number: int, pipe: Pipe) -> None:
        reader = self._readers.get(number)
        if reader is None:
            reader = self._readers[number] = h11.Connection(h11.SERVER)
            self._read[number] = 0
        new = bytes(pipe.sent[self._read[number] :])
        if not new:
            return
        self._read[number] += len(new)
        reader.receive_data(new)
        while True:
            event = reader.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            self._hear(event, reader, pipe)

    def _hear(self, event: object, reader: h11.Connection, pipe: Pipe) -> None:
        self.kinds += (type(event).__name__,)
        if isinstance(event, h11.Request):
            self.begun.append(event)
            self._body = b""
            if reader.client_is_waiting_for_100_continue:
                pipe.give(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif isinstance(event, h11.Data):
            self._body += event.data
        elif isinstance(event, h11.EndOfMessage):
            request = self.begun[-1]
            fields = {name: value for name, value in request.headers if name == b"host"}
            self.whole.append((request.method, request.target, fields[b"host"], self._body))
            pipe.give(OK)
            reader.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
            reader.send(h11.EndOfMessage())
            if reader.our_state is h11.DONE and reader.their_state is h11.DONE:
                reader.start_next_cycle()


def _check(told: list[Event], endpoint: _Endpoint, answers: bytes) -> None:
    expected = _whole(told)
    assert endpoint.whole == expected, (
        f"the endpoint read\n{endpoint.whole}\nand we\n{expected}\nof {told}"
    )
    heads = [event[1] for event in told if event[0] == "request"]
    assert len(endpoint.begun) <= len(heads)
    for request, head in zip(endpoint.begun, heads, strict=False):
        _check_head(request, head)
    statuses = [int(each) for each in _STATUS.findall(answers)]
    finals = [status for status in statuses if status >= 200]
    refused = sum(status != 200 for status in finals)
    assert len(finals) - refused == len(endpoint.whole), f"{finals} to {len(heads)} requests"
    assert refused <= 1, f"more than one refusal: {finals}"


def _whole(told: list[Event]) -> list[Passed]:
    found: list[Passed] = []
    head, body = None, b""
    for event in told:
        if event[0] == "request":
            head, body = event[1].head, b""
        elif event[0] == "body":
            body = event[1]
        elif event[0] == "end":
            assert head is not None
            found.append((head.method, head.target, head.host, body))
    return found


def _check_head(request: h11.Request, told: Request) -> None:
    names = [name for name, _ in request.headers]
    for name in names:
        assert name not in HOP_BY_HOP or name in {b"transfer-encoding", b"connection", b"upgrade"}
    dashed = [name.replace(b"_", b"-") for name in names]
    for name in _SINGLE:
        assert dashed.count(name) <= 1, f"{name!r} is there more than once"
    if told.head.upgrade is None:
        assert b"connection" not in names
        assert b"upgrade" not in names
    values = dict(request.headers)
    assert values[b"x-forwarded-for"] == CLIENT.encode()
    assert values[b"x-forwarded-proto"] == b"http"
    assert values[b"x-forwarded-host"] == told.head.host
    assert re.fullmatch(rb"[0-9a-f]{32}", values[b"x-request-id"])
    assert values.get(b"forwarded", b"for=192.0.2.7").startswith(b"for=192.0.2.7")
