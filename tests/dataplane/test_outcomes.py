"""What a worker makes of each attempt: an outcome for the endpoint, against it, or none."""

from __future__ import annotations

import asyncio

import pytest

from proxy import stats
from proxy.model import Timeouts
from tests.dataplane.box import OK, Box, Peer, Scripted, until
from tests.e2e.wire import WireError, request_bytes


def plays(answer: bytes, *, stays: bool = True) -> object:
    async def play(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)
            if not stays:
                return

    return play


async def outcomes(box: Box, endpoint: Scripted, good: int, bad: int) -> None:
    """Wait for these counts, and see that they stay."""
    live = box.live(endpoint)

    def counted() -> bool:
        live.publish()
        found = (
            box.of_endpoint(endpoint, stats.E_GOOD),
            box.of_endpoint(endpoint, stats.E_BAD),
        )
        return found == (good, bad)

    await until(counted, f"{good} good and {bad} bad outcomes")
    await asyncio.sleep(0)
    assert counted()


@pytest.mark.parametrize("status", [200, 204, 301, 404, 499, 501, 505])
@pytest.mark.parametrize("framing", [b"Content-Length: 0", b"Transfer-Encoding: chunked"])
async def test_answers_that_say_something_about_the_request_speak_for_the_endpoint(
    box: Box, status: int, framing: bytes
) -> None:
    chunked = b"chunked" in framing and status != 204
    head = b"HTTP/1.1 %d X\r\n%b\r\n\r\n" % (status, framing if status != 204 else b"A: b")
    endpoint = await box.endpoint(plays(head + (b"0\r\n\r\n" if chunked else b"")))  # type: ignore[arg-type]
    await box.serve(endpoint)
    wire = await box.client()
    for _ in range(3):
        assert (await wire.request("/")).status == status
    await outcomes(box, endpoint, 3, 0)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
@pytest.mark.parametrize("framing", [b"Content-Length: 0", b"Transfer-Encoding: chunked"])
async def test_answers_that_say_that_it_is_not_well_speak_against_it(
    box: Box, status: int, framing: bytes
) -> None:
    end = b"0\r\n\r\n" if b"chunked" in framing else b""
    answer = b"HTTP/1.1 %d X\r\n%b\r\n\r\n%b" % (status, framing, end)
    endpoint = await box.endpoint(plays(answer))  # type: ignore[arg-type]
    await box.serve(endpoint, eject_after=2)
    wire = await box.client()
    for _ in range(3):
        assert (await wire.request("/")).status == status
    await outcomes(box, endpoint, 0, 3)
    assert box.of_endpoint(endpoint, stats.E_TRIPS) == 1


@pytest.mark.parametrize(("status", "good", "bad"), [(200, 1, 0), (500, 0, 1)])
async def test_an_answer_to_the_end_of_the_connection_is_one_outcome(
    box: Box, status: int, good: int, bad: int
) -> None:
    answer = b"HTTP/1.1 %d X\r\n\r\nbody" % status
    endpoint = await box.endpoint(plays(answer, stays=False))  # type: ignore[arg-type]
    await box.serve(endpoint)
    assert (await (await box.client()).request("/")).body == b"body"
    await outcomes(box, endpoint, good, bad)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 banana\r\n\r\n",
    ],
)
async def test_a_connection_that_breaks_and_an_answer_that_is_none_speak_against_it(
    box: Box, answer: bytes
) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    try:
        await (await box.client()).request("/", method="POST")
    except WireError:
        assert answer.startswith(b"HTTP/1.1 200"), "only what had begun is broken off"
    await outcomes(box, endpoint, 0, 1)


async def test_no_answer_in_time_speaks_against_it(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    endpoint = await box.endpoint(play)
    await box.serve(endpoint, timeouts=Timeouts(response_s=0.1))
    assert (await (await box.client()).request("/", method="POST")).status == 504
    await outcomes(box, endpoint, 0, 1)


async def test_an_endpoint_that_cannot_be_connected_to_has_a_bad_outcome(box: Box) -> None:
    first, second = await box.endpoint(), await box.endpoint()
    first.refuse()
    await box.serve(first, second)
    wire = await box.client()
    for _ in range(30):
        assert (await wire.request("/")).status == 200
    assert box.of_endpoint(first, stats.E_GOOD) == 0
    assert box.of_endpoint(first, stats.E_BAD) >= 1


async def test_a_client_that_leaves_says_nothing_about_the_endpoint(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    wire = await box.client()
    await wire.send(request_bytes("/"))
    await until(lambda: endpoint.connections, "the request is there")
    wire.close()
    await until(lambda: not box.plane.connections, "the client has gone")
    await outcomes(box, endpoint, 0, 0)


async def test_our_own_refusal_says_nothing_about_the_endpoint(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.gone()

    endpoint = await box.endpoint(play)
    await box.serve(endpoint, max_body=10)
    wire = await box.client()
    await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    await until(lambda: endpoint.connections, "the head is there")
    await wire.send(b"20\r\n" + b"x" * 32 + b"\r\n0\r\n\r\n")
    assert (await wire.answer()).status == 413
    await outcomes(box, endpoint, 0, 0)


async def test_an_event_stream_is_judged_by_its_head_alone(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n6\r\ndata:\n\r\n"
        )

    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    with pytest.raises(WireError):
        await (await box.client()).request("/")
    await outcomes(box, endpoint, 1, 0)
    assert box.failures("truncated") == 1


async def test_a_tunnel_is_a_good_outcome_when_it_begins(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )
        await peer.gone()

    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    wire = await box.client()
    await wire.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await until(lambda: box.of_pool(stats.P_IN_FLIGHT + stats.TUNNEL), "the tunnel is open")
    await outcomes(box, endpoint, 1, 0)


async def test_success_after_failures_ends_the_run(box: Box) -> None:
    answers = [b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", OK] * 10

    async def play(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answers.pop())

    endpoint = await box.endpoint(play)
    await box.serve(endpoint, eject_after=2)
    wire = await box.client()
    for _ in range(20):
        await wire.request("/")
    await outcomes(box, endpoint, 10, 10)
    assert box.of_endpoint(endpoint, stats.E_TRIPS) == 0


async def test_an_endpoint_that_fails_at_once_does_not_draw_all_requests(box: Box) -> None:
    async def resets(peer: Peer) -> None:
        await peer.request()
        peer.abort()

    bad, good = await box.endpoint(resets), await box.endpoint()
    await box.serve(bad, good, eject_after=3)
    wire = await box.client()
    statuses = [(await wire.request("/")).status for _ in range(30)]
    assert statuses.count(502) == bad.connections
    assert 3 <= bad.connections <= 6, "a run, or two on a slow machine"
