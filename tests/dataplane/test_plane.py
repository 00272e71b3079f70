"""The plane as a whole: what is in flight, listeners with limits, snapshots, the end."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from proxy import stats
from proxy.model import WHOLE, Drain
from tests.dataplane import websocket
from tests.dataplane.box import OK, Box, Peer, until
from tests.e2e.wire import WireError, request_bytes


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


def _has(box: Box, count: int) -> bool:
    return len(box.plane.in_flight("shop", None)) == count


async def test_in_flight_is_told_oldest_first_with_its_route_and_without_its_query(
    box: Box,
) -> None:
    endpoint = await box.endpoint(silent)
    await box.serve(endpoint)
    for number in range(3):
        wire = await box.client()
        await wire.send(request_bytes(f"/{number}?secret=1"))
        await until(partial(_has, box, number + 1), "it is in flight")
    items = box.plane.in_flight("shop", "blue")
    assert [item["route"] for item in items] == ["GET /0", "GET /1", "GET /2"]
    assert {item["endpoint"] for item in items} == {endpoint.address}
    assert {item["kind"] for item in items} == {"request"}
    ages = [item["age_s"] for item in items]
    assert ages == sorted(ages, reverse=True)
    assert box.plane.in_flight("shop", "green") == []
    assert box.plane.in_flight("other", None) == []


async def test_connections_over_the_limit_are_told_so_closed_and_counted(box: Box) -> None:
    await box.serve(await box.endpoint(), listener={"max_connections": 2})
    first, second = await box.client(), await box.client()
    assert (await first.request("/")).status == 200
    assert (await second.request("/")).status == 200
    third = await box.client()
    refusal = await third.answer()
    assert refusal.status == 503
    assert refusal.header("retry-after") == "1"
    assert refusal.header("proxy-status") == "turnout; error=connection_limit_reached"
    assert await third.rest() == b""
    third.close()
    assert box.of_listener(stats.L_REFUSED) == 1
    assert box.of_listener(stats.L_ACCEPTED) == 2
    assert box.of_listener(stats.L_BAD_REQUESTS) == 0
    first.close()
    await until(lambda: len(box.plane.connections) == 1, "there is room again")
    assert (await (await box.client()).request("/")).status == 200
    await until(lambda: box.of_listener(stats.L_IDLE) == 2, "the gauge follows")


async def test_an_older_snapshot_changes_nothing(box: Box) -> None:
    endpoint = await box.endpoint()
    await box.serve(endpoint)
    box.revision = -5
    await box.apply()
    assert (await (await box.client()).request("/")).status == 200


async def test_a_change_closes_no_connection_that_it_does_not_concern(box: Box) -> None:
    endpoint, other = await box.endpoint(), await box.endpoint()
    await box.serve(endpoint)
    wire = await box.client()
    await wire.request("/")
    live = box.live(endpoint)
    for weight in (WHOLE, 1, 0, WHOLE):
        await box.apply(
            box.shop(
                box.pool("blue", [endpoint], weight), box.pool("green", [other], WHOLE - weight)
            )
        )
        assert (await wire.request("/")).status == 200
        assert box.live(endpoint) is live
    assert endpoint.connections == 1
    assert box.answers(2) + box.answers(2, "green") == 5


async def test_a_removed_endpoint_loses_its_kept_connections_at_once(box: Box) -> None:
    endpoint, other = await box.endpoint(), await box.endpoint()
    await box.serve(endpoint)
    wire = await box.client()
    await wire.request("/")
    gone = box.live(endpoint)
    await box.serve(other)
    await until(lambda: not gone.open, "its connections are closed")
    assert (await wire.request("/")).status == 200
    assert other.connections == 1


async def test_the_gauges_of_an_endpoint_that_went_with_requests_in_flight_return_to_zero(
    box: Box,
) -> None:
    endpoint, other = await box.endpoint(silent), await box.endpoint()
    await box.serve(endpoint)
    await (await box.client()).send(request_bytes("/"))
    await until(lambda: box.of_endpoint(endpoint, stats.E_IN_FLIGHT) == 1, "it is in flight")
    slot = box.live(endpoint).slot
    await box.serve(other)
    await until(lambda: box.words[slot + stats.E_IN_FLIGHT] == 0, "it is cut")
    await until(lambda: box.words[slot + stats.E_OPEN] == 0, "its connection is closed")


async def test_requests_outlive_a_drain_until_its_deadline_and_are_counted_when_cut(
    box: Box,
) -> None:
    endpoint, other = await box.endpoint(silent), await box.endpoint()
    await box.serve(endpoint)
    wire = await box.client()
    await wire.send(request_bytes("/"))
    await until(lambda: any(box.in_flight()), "it is in flight")
    now = time.monotonic()
    drain = Drain(since_s=now, requests_by_s=now + 0.4, streams_by_s=now + 9)
    await box.apply(
        box.shop(box.pool("blue", [endpoint], 0, drain=drain), box.pool("green", [other], WHOLE))
    )
    answer = await wire.answer()
    assert answer.status == 503
    assert time.monotonic() - now > 0.35
    assert box.of_pool(stats.P_CUT + stats.REQUEST) == 1
    assert box.of_pool(stats.P_FAILURES) == 0


async def test_a_stop_lets_what_is_in_flight_finish_and_closes_what_rests(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.send(OK)

    go = asyncio.Event()
    await box.serve(await box.endpoint(play))
    busy, resting = await box.client(), await box.client()
    await busy.send(request_bytes("/"))
    await until(lambda: any(box.in_flight()), "it is in flight")
    stopping = box.loop.create_task(box.plane.stop(5))
    assert await resting.is_closed()
    assert not stopping.done()
    go.set()
    answer = await busy.answer()
    assert (answer.status, answer.closes) == (200, True)
    await stopping


async def test_what_outlasts_the_grace_is_cut(box: Box) -> None:
    await box.serve(await box.endpoint(silent))
    wire = await box.client()
    await wire.send(request_bytes("/"))
    await until(lambda: any(box.in_flight()), "it is in flight")
    began = time.monotonic()
    await box.plane.stop(0.2)
    assert 0.1 < time.monotonic() - began < 10
    try:
        assert (await wire.answer()).status == 503
    except WireError:
        return  # broken off without a word is as good


async def test_a_stop_ends_websockets_and_event_streams_gently_before_its_grace_is_over(
    box: Box,
) -> None:
    async def play(peer: Peer) -> None:
        if b"/ws " in await peer.head():
            await peer.send(websocket.SWITCH)
            await websocket.closing(peer)
        else:
            await peer.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"
            )
            await peer.gone()

    await box.serve(await box.endpoint(play))
    socket, stream = await box.client(), await box.client()
    await socket.send(websocket.ASK)
    assert (await socket.answer()).status == 101
    await stream.send(request_bytes("/"))
    await until(lambda: box.of_pool(stats.P_IN_FLIGHT + stats.STREAM) == 1, "it streams")
    began = time.monotonic()
    stopping = box.loop.create_task(box.plane.stop(3))
    await websocket.told_to_close(socket)
    assert time.monotonic() - began > 1.3, "they have time to end by themselves"
    assert await socket.is_closed()
    socket.close()
    answer = await stream.answer()
    assert answer.body.startswith(b"data: 1\n\nretry: ")
    await stopping
    assert time.monotonic() - began < 3
    assert box.of_pool(stats.P_CLOSED + stats.STREAM) == 1
    assert box.of_pool(stats.P_CLOSED + stats.TUNNEL) == 1
    assert box.of_pool(stats.P_CUT + stats.TUNNEL) == 0
