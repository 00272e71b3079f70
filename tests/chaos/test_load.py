"""The load counts every request and misses no failure; it is the same for each proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.chaos import load
from tests.chaos.fault_proxy import Fault, FaultProxy
from tests.chaos.load import Options, Tally

BODY = b'{"endpoint": "here"}' + b" " * 200
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Application:
    def __init__(self) -> None:
        self.answer = ANSWER
        self.heads: list[bytes] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"POST"):
                    await reader.readexactly(len(load.BODY))
                self.heads.append(head)
                writer.write(self.answer)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()


@pytest.fixture
async def served() -> AsyncIterator[tuple[Application, FaultProxy]]:
    application = Application()
    server = await asyncio.start_server(application.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    proxy = FaultProxy((host, port))
    await proxy.listen()
    yield application, proxy
    await proxy.close()
    server.close()


async def _load(proxy: FaultProxy, seconds: float = 1.0) -> Tally:
    """As quick as it goes, by four clients."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stopped.set)
    options = Options({"it": proxy.address[1]}, rate=400, clients=4, seed=1)
    return (await load.run(options, stopped))["it"]


def _kinds(tally: Tally) -> set[str]:
    return {what for _, _, what in tally.failures}


async def test_all_is_well_where_all_is_well(served: tuple[Application, FaultProxy]) -> None:
    application, proxy = served
    seen = await _load(proxy)
    assert seen.failures == []
    posts = [head for head in application.heads if head.startswith(b"POST ")]
    assert seen.posts == len(posts) > 0
    assert seen.gets == len(application.heads) - len(posts) > 0
    assert len({head.split()[1] for head in posts}) == len(posts), "each has an id of its own"
    assert 4 < application.connections < len(application.heads), "some are kept, some are fresh"
    assert len(seen.latencies_s) == len(application.heads)
    figures = seen.as_dict()
    assert 0 < min(seen.latencies_s) <= figures["p99_s"] <= figures["worst_s"] < 5


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (Fault("cut"), "broken off"),
        (Fault("reset_within"), "broken off"),
        (Fault("half_close"), "closed unanswered"),
        (Fault("reset_before"), "closed unanswered"),
        (Fault("refuse"), "not connected"),
    ],
)
async def test_every_failure_is_counted_and_named(
    served: tuple[Application, FaultProxy], fault: Fault, what: str
) -> None:
    _, proxy = served
    await proxy.turn_to(fault)
    seen = await _load(proxy)
    assert _kinds(seen) == {what}
    assert len(seen.failures) == seen.gets + seen.posts


async def test_an_answer_that_is_no_success_or_not_the_endpoints_is_a_failure(
    served: tuple[Application, FaultProxy],
) -> None:
    application, proxy = served
    for answer, what in [
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "503"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nelse", "a wrong answer"),
    ]:
        application.answer = answer
        seen = await _load(proxy, 0.2)
        assert _kinds(seen) == {what}


async def test_silence_ends_with_the_clients_patience(
    served: tuple[Application, FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "PATIENCE_S", 0.1)
    _, proxy = served
    await proxy.turn_to(Fault("black_hole"))
    seen = await _load(proxy, 0.2)
    assert _kinds(seen) == {"no answer in 0.1 s"}


async def test_a_kept_connection_that_was_closed_between_requests_is_no_failure(
    served: tuple[Application, FaultProxy],
) -> None:
    application, proxy = served
    application.answer = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    seen = await _load(proxy, 0.2)
    assert seen.failures == []
    assert application.connections == len(application.heads)
