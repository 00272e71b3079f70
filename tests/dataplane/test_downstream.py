"""Client connections: pipelining, refused upgrades, slow and silent clients, half-closes."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxy import stats
from proxy.model import WHOLE, Route, Timeouts
from tests.dataplane.box import OK, Box, Peer, until
from tests.e2e.wire import WireError, request_bytes

UPGRADE = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
MIB = 1024 * 1024


async def echo_path(peer: Peer) -> None:
    while True:
        path = (await peer.request()).split(b" ")[1]
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))


# ---- pipelining ----


async def test_a_thousand_requests_in_one_write_are_answered_in_order(box: Box) -> None:
    endpoint = await box.endpoint(echo_path)
    service = box.shop(box.pool("blue", [endpoint], WHOLE), routes=(Route(host="here"),))
    await box.apply(service)
    wire = await box.client()
    hosts = ["nowhere" if number % 3 == 0 else "here" for number in range(1000)]
    await wire.send(
        b"".join(
            request_bytes(f"/{number}", headers={"Host": host}) for number, host in enumerate(hosts)
        )
    )
    for number, host in enumerate(hosts):
        answer = await wire.answer()
        if host == "nowhere":
            assert answer.status == 404
        else:
            assert (answer.status, answer.body) == (200, f"/{number}".encode())
    assert endpoint.connections == 1
    assert box.of_listener(stats.L_BAD_REQUESTS) == hosts.count("nowhere")


async def test_a_thousand_requests_that_have_no_route_are_answered_without_recursion(
    box: Box,
) -> None:
    await box.apply()
    wire = await box.client()
    await wire.send(request_bytes("/") * 1000)
    for _ in range(1000):
        assert (await wire.answer()).status == 404
    assert (await wire.request("/")).status == 404


async def test_refusals_behind_a_slow_answer_are_answered_without_recursion(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.send(OK)
        await peer.gone()

    go = asyncio.Event()
    endpoint = await box.endpoint(play)
    await box.apply(box.shop(box.pool("blue", [endpoint], WHOLE), routes=(Route(host="here"),)))
    wire = await box.client()
    await wire.send(request_bytes("/", headers={"Host": "here"}) + request_bytes("/") * 1000)
    await until(lambda: endpoint.connections, "the first is in flight")
    go.set()
    assert (await wire.answer()).status == 200
    for _ in range(1000):
        assert (await wire.answer()).status == 404


async def test_pipelined_bodies_reach_their_own_requests(box: Box) -> None:
    async def play(peer: Peer) -> None:
        while True:
            body = (await peer.request()).partition(b"\r\n\r\n")[2]
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    await box.serve(await box.endpoint(play))
    wire = await box.client()
    bodies = [b"%d" % number * 20 for number in range(50)]
    await wire.send(b"".join(request_bytes("/", method="POST", body=each) for each in bodies))
    for body in bodies:
        assert (await wire.answer()).body == body


async def test_what_is_malformed_behind_good_requests_is_told_after_their_answers(
    box: Box,
) -> None:
    await box.serve(await box.endpoint())
    wire = await box.client()
    await wire.send(request_bytes("/") * 3 + b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
    for _ in range(3):
        assert (await wire.answer()).status == 200
    last = await wire.answer()
    assert last.status == 400
    assert last.closes
    assert await wire.is_closed()


async def test_requests_in_line_are_answered_to_a_client_that_closed_its_side(box: Box) -> None:
    await box.serve(await box.endpoint(echo_path))
    wire = await box.client()
    await wire.send(b"".join(request_bytes(f"/{number}") for number in range(20)))
    wire.finish()
    for number in range(20):
        answer = await wire.answer()
        assert answer.body == f"/{number}".encode()
        assert answer.closes == (number == 19)
    assert await wire.is_closed()


async def test_more_requests_than_may_wait_are_not_answered_but_those_before_them_are(
    box: Box,
) -> None:
    await box.serve(await box.endpoint(echo_path))
    wire = await box.client()
    await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 1500)
    answer = await wire.answer()
    count = 1
    while not answer.closes and count < 1500:
        answer = await wire.answer()
        assert answer.status == 200
        count += 1
    assert count >= 1025


async def test_a_request_behind_connection_close_is_not_answered(box: Box) -> None:
    endpoint = await box.endpoint()
    await box.serve(endpoint)
    wire = await box.client()
    await wire.send(request_bytes("/", headers={"Connection": "close"}) + request_bytes("/"))
    assert (await wire.answer()).closes
    assert await wire.is_closed()


# ---- upgrades that come to nothing ----


@pytest.mark.parametrize("together", [True, False])
async def test_after_an_upgrade_that_the_endpoint_refused_the_next_request_is_served(
    box: Box,
    together: bool,  # noqa: FBT001
) -> None:
    await box.serve(await box.endpoint(echo_path))
    wire = await box.client()
    await wire.send(UPGRADE + (request_bytes("/next") if together else b""))
    assert (await wire.answer()).body == b"/ws"
    if not together:
        await wire.send(request_bytes("/next"))
    assert (await wire.answer()).body == b"/next"
    assert (await wire.request("/last")).body == b"/last"


async def test_requests_sent_while_an_upgrade_is_decided_are_served_when_it_was_refused(
    box: Box,
) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.send(OK)
        await echo_path(peer)

    go = asyncio.Event()
    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    wire = await box.client()
    await wire.send(UPGRADE)
    await until(lambda: endpoint.connections, "the upgrade is being decided")
    await wire.send(request_bytes("/next"))
    await asyncio.sleep(0.05)
    go.set()
    assert (await wire.answer()).body == b"ok"
    assert (await wire.answer()).body == b"/next"


@pytest.mark.parametrize("count", [1, 3, 1000])
@pytest.mark.parametrize("kind", [b"websocket", b"h2c"])
async def test_after_upgrades_that_we_refused_ourselves_the_next_request_is_served(
    box: Box, count: int, kind: bytes
) -> None:
    endpoint = await box.endpoint(echo_path)
    await box.apply(box.shop(box.pool("blue", [endpoint], WHOLE), routes=(Route(host="here"),)))
    wire = await box.client()
    ask = UPGRADE.replace(b"websocket", kind)
    await wire.send(ask * count + request_bytes("/next", headers={"Host": "here"}))
    for _ in range(count):
        assert (await wire.answer()).status == 404
    assert (await wire.answer()).body == b"/next"


# ---- slow and silent clients ----


async def test_a_head_that_takes_too_long_is_a_408(box: Box) -> None:
    await box.serve(await box.endpoint(), listener={"header_s": 0.2})
    wire = await box.client()
    await wire.send(b"GET / HTTP/1.1\r\nHost")
    answer = await wire.answer()
    assert answer.status == 408
    assert answer.closes
    assert await wire.is_closed()
    assert box.of_listener(stats.L_BAD_REQUESTS) == 1


async def test_a_head_that_comes_byte_by_byte_does_not_gain_time(box: Box) -> None:
    await box.serve(await box.endpoint(), listener={"header_s": 0.3})
    wire = await box.client()
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1000:
        await wire.send(bytes([byte]))
        await asyncio.sleep(0.01)
        if any(connection.linger_until for connection in box.plane.connections):
            break
    assert (await wire.answer()).status == 408


async def test_a_client_that_rests_too_long_is_closed_without_a_word(box: Box) -> None:
    await box.serve(await box.endpoint(), listener={"idle_s": 1.0})
    wire, silent = await box.client(), await box.client()
    assert (await wire.request("/")).status == 200
    assert await wire.is_closed()
    assert await silent.is_closed()


async def test_a_client_that_never_reads_its_last_answer_does_not_stay_for_ever(
    box: Box,
) -> None:
    async def play(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)

    await box.serve(await box.endpoint(play), listener={"idle_s": 0.3})
    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    for answered, headers in enumerate(({}, {"Connection": "close"})):
        wire = await box.client(receive=4096)
        await wire.send(request_bytes("/", headers=headers))
        await until(lambda before=answered: box.answers(2) > before, "it is answered")  # type: ignore[misc]
        await until(lambda: not box.plane.connections, "the connection is given up")


async def test_a_client_that_stops_reading_in_the_middle_is_given_up(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        peer.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * MIB)
        await peer.gone()

    await box.serve(await box.endpoint(play), listener={"idle_s": 1.0})
    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    wire = await box.client(receive=4096)
    await wire.send(request_bytes("/"))
    await until(lambda: any(c.is_paused for c in box.plane.connections), "it does not read")
    await until(lambda: not box.plane.connections, "it is given up")
    assert box.of_pool(stats.P_FAILURES) == 0


async def test_a_client_that_sends_for_ever_after_a_refusal_is_cut(box: Box) -> None:
    await box.serve(await box.endpoint(), max_body=10)
    wire = await box.client()
    await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n")
    assert (await wire.answer()).status == 413
    with pytest.raises(WireError):
        await wire.send(b"x" * (64 * MIB))


# ---- half-closes ----


async def test_a_client_that_closed_its_side_is_still_answered(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.1)
        await peer.send(OK)
        await peer.gone()

    await box.serve(await box.endpoint(play))
    wire = await box.client()
    await wire.send(request_bytes("/"))
    wire.finish()
    assert (await wire.answer()).body == b"ok"
    assert await wire.is_closed()


async def test_a_client_that_closed_its_side_and_hears_nothing_counts_as_gone(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    await box.serve(await box.endpoint(play))
    wire = await box.client()
    await wire.send(request_bytes("/"))
    wire.finish()
    await until(lambda: not box.plane.connections, "it is given up")


async def test_a_client_that_ends_inside_its_body_ends_the_request(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.gone()
        ended.set()

    ended = asyncio.Event()
    await box.serve(await box.endpoint(play), timeouts=Timeouts())
    wire = await box.client()
    await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
    await until(lambda: any(box.in_flight()), "it is in flight")
    await asyncio.sleep(0.05)
    wire.finish()
    async with asyncio.timeout(20):
        await ended.wait()
    assert box.of_pool(stats.P_FAILURES) == 0
