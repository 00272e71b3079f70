"""A case played on a real plane with real sockets, between a raw client and a raw endpoint."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from typing import Any, Literal, cast

from proxy import stats
from proxy.dataplane.downstream import Downstream
from proxy.model import Route, Timeouts
from tests.dataplane.box import Box, until
from tests.wire.case import Case, Step
from tests.wire.message import Message, UnreadableError, read_message

Mode = Literal["whole", "bytes", "followed", "garbage"]
MODES: tuple[Mode, ...] = ("whole", "bytes", "followed", "garbage")

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
GARBAGE = b"\x00\x01 what is this\r\n\r\n"
PATIENCE_S = 5.0
_BY_BYTES = 3000
"""Cases of more bytes come in this many pieces instead of one by one."""

_USUAL = {
    b"x-forwarded-for": rb"127\.0\.0\.1",
    b"x-forwarded-proto": rb"http",
    b"x-forwarded-port": rb"\d+",
    b"x-real-ip": rb"127\.0\.0\.1",
    b"x-request-id": rb"[0-9a-f]{32}",
    b"traceparent": rb"00-[0-9a-f]{32}-[0-9a-f]{16}-01",
    b"x-turnout-pool": rb"blue",
}
_LAST = {
    "client half-closes",
    "client closes",
    "client resets",
    "client gets bytes",
    "endpoint gets bytes",
}
"""Steps of cases behind which nothing can follow."""
_SEEN = {
    "client gets",
    "client gets end",
    "client gets head",
    "client gets rest",
    "client gets bytes",
    "client closes",
    "client resets",
}
"""Steps that leave nothing to be added about what the client gets."""
_UNKNOWN = {
    rb"\{port\}": rb"\d+",
    rb"\{id\}": rb"[0-9a-f]{32}",
    rb"\{trace\}": _USUAL[b"traceparent"],
}
_LISTENER: dict[str, Callable[[str], Any]] = {
    "trusted_proxies": lambda text: tuple(text.split(", ")),
    "max_header": int,
    "max_headers": int,
    "header_s": float,
    "idle_s": float,
}
_SERVICE: dict[str, tuple[str, Callable[[str], Any]]] = {
    "max_body": ("max_body", int),
    "host": ("routes", lambda text: (Route(host=text),)),
}
_TIMEOUTS = ("response_s", "read_stall_s", "tunnel_idle_s")


class End(asyncio.Protocol):
    """One end of a connection: what has come so far, and whether it has ended."""

    def __init__(self, play: Play, ends: list[End]) -> None:
        self._play = play
        self._ends = ends
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # set before any use
        self.data = b""
        self.has_ended = False
        self.was_reset = False
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._ends.append(self)
        if self._play.is_over:  # accepted as the curtain fell
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._play.changed(self)

    def eof_received(self) -> bool:
        self.has_ended = True
        self._play.changed(self)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.has_ended = self.is_lost = True
        self.was_reset = exc is not None
        self._play.changed(self)

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def take(self, size: int) -> bytes:
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.transport.abort()


class Play:
    def __init__(self, box: Box, case: Case, mode: Mode) -> None:
        self._box = box
        self._case = case
        self._mode = mode
        self._event = asyncio.Event()
        self.clients: list[End] = []
        self.endpoints: list[End] = []
        self.speaking: End | None = None  # the endpoint's connection that the script is about
        self.is_scripted = any(
            step.action in {"endpoint", "endpoint closes", "endpoint resets"} for step in case.steps
        )
        self.requests: list[Message] = []
        self.has_served = False
        self.expects_cut: Step | None = None
        self.is_over = False

    # ---- the stage ----

    async def run(self) -> None:
        case, box = self._case, self._box
        server = await box.loop.create_server(lambda: End(self, self.endpoints), "127.0.0.1", 0)
        given = {key: value for key, value in case.given.items() if key != "followed"}
        listener = {key: _LISTENER[key](given[key]) for key in given if key in _LISTENER}
        service = {
            _SERVICE[key][0]: _SERVICE[key][1](given[key]) for key in given if key in _SERVICE
        }
        timeouts = {key: float(given[key]) for key in given if key in _TIMEOUTS}
        known = len(listener) + len(service) + len(timeouts)
        assert known == len(given), f"unknown setting: {given}"
        service["timeouts"] = Timeouts(**timeouts)
        port = server.sockets[0].getsockname()[1]
        try:
            await box.serve(f"127.0.0.1:{port}", listener=listener, **service)
            box.grant(box.of_service(stats.S_RETRIES))
            await box.loop.create_connection(lambda: End(self, self.clients), "127.0.0.1", box.port)
            await self._play()
        finally:
            await self._end()
            server.close()

    async def _end(self) -> None:
        for end in self.clients:
            end.transport.abort()
        await until(
            lambda: not any(live.room.connecting for live in self._box.lives), "nobody connects"
        )
        for _ in range(10):  # rounds until what was connected is accepted, too
            await asyncio.sleep(0)
        self.is_over = True
        ends = self.clients + self.endpoints
        for end in ends:
            end.transport.abort()
        await self._until(lambda: all(end.is_lost for end in ends), "all are closed")

    def changed(self, end: End) -> None:
        if end in self.endpoints:
            self._serve(end)
        self._event.set()

    def _serve(self, end: End) -> None:
        """Note requests that are whole; answer those that no step answers."""
        while end.data and (self.speaking is not end or not self._is_tunnel()):
            try:
                message, size = read_message(end.data)
            except ValueError:
                return
            if not message.is_whole:
                return
            end.take(size)
            self.speaking = end
            if message.first.startswith(b"GET /next ") or not self.is_scripted:
                end.write(OK[:-2] if message.first.startswith(b"HEAD ") else OK)
            self.requests.append(message)
            self.has_served = True

    def _is_tunnel(self) -> bool:
        return self._case.has("client gets bytes", "endpoint gets bytes") and self.has_served

    async def _until(self, condition: Callable[[], object], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not condition():
                    self._event.clear()
                    await self._event.wait()
        except TimeoutError:
            raise AssertionError(f"{self._where()}: not in time: {what}\n{self._seen()}") from None

    def _where(self) -> str:
        return f"{self._case} ({self._mode})"

    def _seen(self) -> str:
        lines = [f"client has {[end.data[-2000:] for end in self.clients]}"]
        lines += [f"endpoint has {[end.data[-2000:] for end in self.endpoints]}"]
        lines += [f"endpoint had {self.requests}"]
        return "\n".join(lines)

    def _must(self, condition: object, what: str) -> None:
        if not condition:
            raise AssertionError(f"{self._where()}: {what}\n{self._seen()}")

    # ---- the play ----

    async def _play(self) -> None:
        case = self._case
        client = self.clients[0]
        last = max((i for i, step in enumerate(case.steps) if step.action == "client"), default=-1)
        closes = False
        for index, step in enumerate(case.steps):
            data = step.data + self._trailing() if index == last else step.data
            if step.action == "client":
                await self._send(client, data)
            elif step.action == "endpoint":
                await self._send(self._speaking(), data)
            elif step.action.startswith("client"):
                closes = await self._client_step(client, step) or closes
            else:
                await self._endpoint_step(step)
        if not case.has(*_SEEN):
            for step in case.steps:
                if step.action == "endpoint gets":
                    await self._client_gets(client, _usual_answer(step))
        if closes or case.has("client resets", "client closes"):
            await self._until(lambda: client.has_ended, "the connection ends")
            self._must(not client.data, "more came than was expected")
        else:
            await self._prove_open(client)
        await self._look_for_leftovers()

    def _trailing(self) -> bytes:
        case = self._case
        if case.given.get("followed") == "no" or case.has(*_LAST):
            return b""
        return {"followed": NEXT, "garbage": GARBAGE}.get(self._mode, b"")

    def let_retry(self) -> None:
        """The endpoint may close what it kept just when the next request is on its way."""
        self._box.grant(self._box.of_service(stats.S_RETRIES) + 1)

    async def _prove_open(self, client: End) -> None:
        self.let_retry()
        trailing = self._trailing()
        if not trailing:
            trailing = NEXT
            client.write(NEXT)
        if trailing == GARBAGE:
            await self._client_gets(
                client, Step("client gets", status=400, words=frozenset({"close"}))
            )
            await self._until(lambda: client.has_ended, "the connection ends")
        else:
            await self._client_gets(client, Step("client gets", OK))
            await self._endpoint_gets(Step("endpoint gets", NEXT))
        self._must(not client.data, "more came than was expected")

    async def _look_for_leftovers(self) -> None:
        self._must(not self.requests, "the endpoint got more than was expected")
        cut = self.expects_cut
        for end in self.endpoints:
            if end.data and cut is not None:
                await self._check_cut(end, cut)
            else:
                self._must(not end.data, "the endpoint got a part of something")

    async def _check_cut(self, end: End, step: Step) -> None:
        await self._until(lambda: end.has_ended, "the endpoint's connection ends")
        try:
            message, size = read_message(end.data)
        except ValueError:
            self._must(False, "the endpoint got half a head")
            return
        self._must(not message.is_whole, "the request became whole")
        self._must(size >= len(end.data), "something follows the request")
        expected, _ = read_message(step.data)
        self._compare_heads(message, expected)
        self._must(expected.body.startswith(message.body), "the body is another")

    async def _send(self, end: End, data: bytes) -> None:
        if self._mode != "bytes":
            end.write(data)
            return
        step = 1 + len(data) // _BY_BYTES
        for at in range(0, len(data), step):
            end.write(data[at : at + step])
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _speaking(self) -> End:
        end = self.speaking or (self.endpoints[-1] if self.endpoints else None)
        assert end is not None, "the endpoint is to speak to nobody"
        return end

    # ---- steps ----

    async def _client_step(self, client: End, step: Step) -> bool:
        """Take a step of the client's; true when its connection must end now."""
        if step.action == "client gets":
            await self._client_gets(client, step)
            return bool({"close", "cut"} & step.words) or b"\r\nConnection: close\r\n" in step.data
        if step.action == "client gets bytes":
            await self._gets_bytes(client, step.data)
        elif step.action == "client gets end":
            await self._until(lambda: client.has_ended, "the client's connection ends")
            self._must(not client.data, "more came before the end")
            return True
        elif step.action == "client gets head":
            await self._client_gets_head(client, step)
        elif step.action == "client gets rest":
            await self._client_gets_rest(client, step)
            return True
        elif step.action == "client half-closes":
            client.transport.write_eof()
            await self._half_close_seen()
        elif step.action == "client closes":
            client.transport.close()
        else:
            client.reset()
        return False

    async def _half_close_seen(self) -> None:
        """Wait until the plane knows of it, if it reads: what the endpoint says comes after it."""
        connections = self._box.plane.connections
        await until(
            lambda: all(
                each.eof_since or each.is_unread or _is_in_tunnel(each) for each in connections
            ),
            "the plane sees the end",
        )

    async def _endpoint_step(self, step: Step) -> None:
        action = step.action
        if action == "endpoint gets":
            await self._endpoint_gets(step)
        elif action == "endpoint gets head":
            await self._endpoint_gets_head(step)
        elif action == "endpoint gets bytes":
            await self._gets_bytes(self._speaking(), step.data)
        elif action == "endpoint gets end":
            end = self._speaking()
            await self._until(lambda: end.has_ended, "the endpoint's connection ends")
        elif action == "endpoint closes":
            self._speaking().transport.close()
        elif action == "endpoint half-closes":
            self._speaking().transport.write_eof()
        else:
            self._speaking().reset()

    async def _gets_bytes(self, end: End, data: bytes) -> None:
        await self._until(
            lambda: len(end.data) >= len(data) or not data.startswith(end.data), repr(data)
        )
        self._must(end.take(len(data)) == data, f"other bytes than {data!r}")

    async def _endpoint_gets(self, step: Step) -> None:
        if "cut" in step.words:
            self.expects_cut = step
            return
        expected, size = read_message(step.data)
        assert expected.is_whole, f"{self._where()}: the expected request is not whole"
        assert size == len(step.data), f"{self._where()}: more than a request is expected"
        await self._until(lambda: self.requests, f"the endpoint gets {step.data!r}")
        self._compare(self.requests.pop(0), expected)

    async def _endpoint_gets_head(self, step: Step) -> None:
        def head() -> tuple[End, Message] | None:
            for end in self.endpoints:
                if b"\r\n\r\n" in end.data:
                    return end, read_message(end.data)[0]
            return None

        await self._until(head, f"the endpoint gets the head {step.data!r}")
        found = head()
        assert found is not None, "it was waited for"
        self.speaking, message = found
        self._compare_heads(message, read_message(step.data)[0])

    async def _client_gets(self, client: End, step: Step) -> None:
        no_body = "no body" in step.words
        got = await self._read_answer(client, no_body=no_body, cut="cut" in step.words)
        if step.status:
            self._check_own(got, step)
            return
        expected, size = read_message(step.data, no_body=no_body, ended=True)
        assert size >= len(step.data), f"{self._where()}: more than an answer is expected"
        self._compare(got, expected)

    async def _client_gets_head(self, client: End, step: Step) -> None:
        await self._until(lambda: b"\r\n\r\n" in client.data, f"the client gets {step.data!r}")
        message, _ = read_message(client.data)
        self._compare_heads(message, read_message(step.data)[0])
        client.take(client.data.find(b"\r\n\r\n") + 4)

    async def _client_gets_rest(self, client: End, step: Step) -> None:
        await self._until(lambda: client.has_ended, "the client's connection ends")
        rest = client.take(len(client.data))
        self._must(rest == step.data, f"{rest!r} is the rest, not {step.data!r}")
        if "reset" in step.words:
            await self._until(lambda: client.is_lost, "the client's connection is lost")
            self._must(client.was_reset, "the connection ends as if the answer were whole")

    async def _read_answer(self, client: End, *, no_body: bool, cut: bool) -> Message:
        read: Any = None

        def is_whole() -> bool:
            nonlocal read
            try:
                ended = client.has_ended and not client.was_reset
                read = read_message(client.data, no_body=no_body, ended=ended)
            except ValueError:
                return client.has_ended
            return bool(read[0].is_whole) or client.has_ended

        await self._until(is_whole, "the client gets an answer")
        self._must(read is not None, "the client got no answer")
        message: Message = read[0]
        self._must(message.is_whole != cut, "the answer is whole" if cut else "the answer is cut")
        client.take(read[1])
        return message

    # ---- what must be seen ----

    def _check_own(self, got: Message, step: Step) -> None:
        self._must(got.status == step.status, f"{got.first!r} instead of {step.status}")
        self._must(got.framing == "length" or "no body" in step.words, f"framing {got.framing}")
        told = b", ".join(got.values(b"proxy-status"))
        self._must(told.startswith(b"turnout; error="), f"Proxy-Status {told!r}")
        self._must(len(got.values(b"x-request-id")) == 1, "the answer has no request id")
        self._must(got.closes == ("close" in step.words), "it closes, or not, as not expected")

    def _compare(self, got: Message, expected: Message) -> None:
        self._compare_heads(got, expected)
        self._must(
            got.body == expected.body, f"body {got.body[:500]!r}, not {expected.body[:500]!r}"
        )
        self._must(got.trailers == expected.trailers, f"trailers {got.trailers}")

    def _compare_heads(self, got: Message, expected: Message) -> None:
        self._must(got.first == expected.first, f"{got.first!r}, not {expected.first!r}")
        fields = self._without_usual(got, {name.lower() for name, _ in expected.fields})
        wanted = expected.sorted()
        same = len(fields) == len(wanted) and all(map(_matches, fields, wanted))
        self._must(same, f"got {fields}\nnot {wanted}")

    def _without_usual(self, got: Message, written: set[bytes]) -> list[tuple[bytes, bytes]]:
        usual = {} if 100 <= got.status < 200 and got.status != 101 else {b"via": rb"1\.1 turnout"}
        if not got.status:
            usual |= _USUAL | {b"x-forwarded-host": re.escape(b", ".join(got.values(b"host")))}
        left = []
        for name, value in got.sorted():
            pattern = None if name.lower() in written else usual.pop(name.lower(), None)
            if pattern is None or re.fullmatch(pattern, value) is None:
                left.append((name, value))
        missing = usual.keys() - written
        self._must(not missing, f"without {missing}")
        return left


def _is_in_tunnel(connection: Downstream) -> bool:
    return connection.current is not None and connection.current.tunnel is not None


def _matches(got: tuple[bytes, bytes], wanted: tuple[bytes, bytes]) -> bool:
    pattern = re.escape(wanted[1])
    for word, what in _UNKNOWN.items():
        pattern = pattern.replace(word, what)
    return got[0] == wanted[0] and re.fullmatch(pattern, got[1], re.DOTALL) is not None


def _usual_answer(request: Step) -> Step:
    if request.data.startswith(b"HEAD "):
        return Step("client gets", OK[:-2], words=frozenset({"no body"}))
    return Step("client gets", OK)


async def play(box: Box, case: Case, modes: tuple[Mode, ...]) -> None:
    for mode in modes:
        try:
            await Play(box, case, mode).run()
        except UnreadableError as unreadable:
            raise AssertionError(f"{case} ({mode}): {unreadable}") from unreadable
