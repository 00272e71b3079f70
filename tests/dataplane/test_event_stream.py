"""Event streams at their deadline: ended between two events, as if the endpoint had done it."""

from __future__ import annotations

import asyncio
import re

import pytest

from proxy import stats
from proxy.dataplane import farewell
from proxy.model import WHOLE, Drain
from tests.dataplane.box import OK, Box, Peer, Play, until
from tests.e2e.wire import Wire, WireError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ASK = b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n"
RETRY = re.compile(rb"retry: (\d+)\n\n")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def stream(box: Box, play: Play, ask: bytes = ASK) -> Wire:
    """An event stream from a pool that drains: its moment is now."""
    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    wire = await box.client()
    await wire.send(ask)
    await until(lambda: box.of_pool(stats.P_IN_FLIGHT + stats.STREAM) == 1, "it streams")
    now = box.loop.time()
    drain = Drain(since_s=now, requests_by_s=now, streams_by_s=now)
    blue = box.pool("blue", [endpoint], 0, drain=drain)
    await box.apply(box.shop(blue, box.pool("green", [await box.endpoint()], WHOLE)))
    return wire


def ended(box: Box) -> tuple[int, int]:
    """Streams that were ended gently, and those that were cut."""
    return box.of_pool(stats.P_CLOSED + stats.STREAM), box.of_pool(stats.P_CUT + stats.STREAM)


@pytest.mark.parametrize("event", [b"", b"data: 1\n\n", b": hi\r\n\r\n", b"data: 1\rid: 2\r\r"])
async def test_a_stream_that_rests_is_ended_with_a_retry_and_its_connection_serves_on(
    box: Box, event: bytes
) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED + (chunk(event) if event else b""))
        await peer.gone()

    wire = await stream(box, play)
    answer = await wire.answer()
    assert answer.framing == "chunked"
    assert answer.body.startswith(event)
    retry = RETRY.fullmatch(answer.body[len(event) :])
    assert retry is not None
    assert 500 <= int(retry[1]) <= 1000
    assert ended(box) == (1, 0)
    await wire.send(ASK)
    assert (await wire.answer()).body == b"ok", "the other pool answers on the same connection"


async def test_a_stream_in_the_midst_of_an_event_is_ended_after_it_and_nothing_follows(
    box: Box,
) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED + chunk(b"data: 1\n\ndata: ha"))
        await waiting.wait()
        rest = chunk(b"lf\r") + chunk(b"\n\r") + chunk(b"\ndata: not this\n\n") + chunk(b"nor this")
        await peer.send(rest + b"0\r\n\r\n")
        await peer.gone()

    waiting = asyncio.Event()
    wire = await stream(box, play)
    assert await wire.head()
    assert await wire.chunk() == b"data: 1\n\ndata: ha"
    (connection,) = box.plane.connections
    exchange = connection.current
    assert exchange is not None
    await until(lambda: exchange.farewell and exchange.farewell.is_said, "its moment has come")
    waiting.set()
    rest = b""
    while piece := await wire.chunk():
        rest += piece
    retry = RETRY.search(rest)
    assert retry is not None
    assert rest[: retry.start()] in {b"lf\r\n\r", b"lf\r\n\r\n"}
    assert retry.end() == len(rest)
    assert ended(box) == (1, 0)
    await wire.send(ASK)
    assert (await wire.answer()).body == b"ok"


async def test_a_client_of_http_1_0_is_told_by_the_end_of_its_connection(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED + chunk(b"data: 1\n\n"))
        await peer.gone()

    wire = await stream(box, play, b"GET /events HTTP/1.0\r\nHost: a\r\n\r\n")
    answer = await wire.answer()
    assert answer.framing == "end"
    assert RETRY.fullmatch(answer.body.removeprefix(b"data: 1\n\n"))
    assert ended(box) == (1, 0)


async def test_a_stream_that_ends_with_its_connection_is_ended_as_well(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(HEAD + b"\r\ndata: 1\n\n")
        await peer.gone()

    answer = await (await stream(box, play)).answer()
    assert RETRY.fullmatch(answer.body.removeprefix(b"data: 1\n\n"))
    assert ended(box) == (1, 0)


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"Content-Length: 1000\r\n\r\n",
        HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_what_cannot_end_early_and_look_whole_is_cut(box: Box, head: bytes) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        data = b"data: 1\n\n"
        await peer.send(head + (chunk(data) if b"chunked" in head else data))
        await peer.gone()

    wire = await stream(box, play)
    with pytest.raises(WireError):
        await wire.answer()
    assert ended(box) == (0, 1)


async def test_an_event_that_does_not_end_in_time_is_cut(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farewell, "CLOSE_GRACE_S", 0.4)

    async def play(peer: Peer) -> None:
        await peer.head()
        while True:
            await peer.send((CHUNKED if not sent else b"") + chunk(b"data: x\n"))
            sent.append(1)
            await asyncio.sleep(0.02)

    sent: list[int] = []
    wire = await stream(box, play)
    with pytest.raises(WireError):
        await wire.answer()
    assert ended(box) == (0, 1)


async def test_a_stream_that_ends_by_itself_meanwhile_ends_as_it_does(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED + chunk(b"data: ha"))
        await waiting.wait()
        await peer.send(chunk(b"lf") + b"0\r\nX-Last: 1\r\n\r\n")
        await peer.gone()

    waiting = asyncio.Event()
    wire = await stream(box, play)
    (connection,) = box.plane.connections
    exchange = connection.current
    assert exchange is not None
    await until(lambda: exchange.farewell and exchange.farewell.is_said, "its moment has come")
    waiting.set()
    answer = await wire.answer()
    assert (answer.body, answer.trailers) == (b"data: half", [("x-last", "1")])
    assert ended(box) == (0, 0)


async def test_the_answer_to_head_has_no_events_to_wait_for(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED)
        await peer.head()
        await peer.send(OK)

    await box.serve(await box.endpoint(play))
    wire = await box.client()
    assert (await wire.request("/events", method="HEAD")).status == 200
    assert (await wire.request("/")).body == b"ok"
