"""Exchanges against scripted endpoints: failures, timeouts, early answers, repeats."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from proxy import stats
from proxy.dataplane.trail import KEPT
from proxy.model import WHOLE, Retries, Timeouts
from tests.dataplane.box import OK, Box, Peer, until
from tests.e2e.wire import Answer, Wire, WireError, request_bytes
from tests.ports import free_port

MIB = 1024 * 1024


class Mortal:
    """Answers the first request of a connection, and closes before it reads the second."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.peers: list[Peer] = []

    async def __call__(self, peer: Peer) -> None:
        self.peers.append(peer)
        self.requests.append(await peer.request())
        await peer.send(OK)
        await peer.gone()


async def request_while_it_dies(peers: list[Peer], wire: Wire, target: str, **how: Any) -> Answer:
    """The request is there first, so it is sent before the loop sees the endpoint's end."""
    asking = asyncio.get_running_loop().create_task(wire.request(target, **how))
    await asyncio.sleep(0)
    peers[-1].hang_up()
    return await asking


def refused_address() -> str:
    """An address where nobody listens."""
    return f"127.0.0.1:{free_port()}"


@contextmanager
def unanswering() -> Iterator[str]:
    """An address whose queue of connections is full: whoever connects waits."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        yield f"127.0.0.1:{full.getsockname()[1]}"


# ---- kept connections ----


async def test_a_connection_is_kept_and_used_again(box: Box) -> None:
    endpoint = await box.endpoint()
    await box.serve(endpoint)
    wire = await box.client()
    for _ in range(5):
        assert (await wire.request("/")).body == b"ok"
    assert endpoint.connections == 1
    assert box.answers(2) == 5
    await until(lambda: box.of_endpoint(endpoint, stats.E_REQUESTS) == 5, "they are counted")


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
async def test_a_request_on_a_kept_connection_that_had_died_is_sent_again_once(
    box: Box, method: str
) -> None:
    script = Mortal()
    endpoint = await box.endpoint(script)
    await box.serve(endpoint)
    wire = await box.client()
    await wire.request("/first")
    answer = await request_while_it_dies(script.peers, wire, "/second", method=method)
    assert answer.status == 200
    assert endpoint.connections == 2
    assert script.requests[-1].startswith(f"{method} /second ".encode())
    assert box.of_pool(stats.P_STALE) == 1
    assert box.of_pool(stats.P_FAILURES) == 0


async def test_a_put_on_a_kept_connection_that_had_died_is_sent_again_with_its_body(
    box: Box,
) -> None:
    script = Mortal()
    endpoint = await box.endpoint(script)
    await box.serve(endpoint)
    wire = await box.client()
    await wire.request("/first")
    answer = await request_while_it_dies(script.peers, wire, "/second", method="PUT", body=b"whole")
    assert answer.status == 200
    assert endpoint.connections == 2
    assert script.requests[-1].startswith(b"PUT /second ")
    assert script.requests[-1].endswith(b"\r\n\r\nwhole")
    assert box.of_pool(stats.P_STALE) == 1
    assert box.of_pool(stats.P_FAILURES) == 0
    assert box.of_service(stats.S_RETRIES) == 0
    assert (await request_while_it_dies(script.peers, wire, "/third")).status == 200


async def test_a_put_too_long_to_be_kept_is_not_sent_again(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.head()
        peer.abort()

    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    box.grant(1)
    wire = await box.client()
    await wire.request("/first")
    answer = await wire.request("/second", method="PUT", body=b"x" * (KEPT + 1))
    assert answer.status == 502
    assert endpoint.connections == 1


async def test_a_post_on_a_kept_connection_that_had_died_is_never_sent_again(box: Box) -> None:
    script = Mortal()
    endpoint = await box.endpoint(script)
    await box.serve(endpoint)
    wire = await box.client()
    await wire.request("/first")
    answer = await request_while_it_dies(script.peers, wire, "/second", method="POST", body=b"once")
    assert answer.status == 502
    assert len(script.requests) == 1
    assert endpoint.connections == 1
    assert box.of_pool(stats.P_STALE) == 0
    assert box.failures("reset") == 1


async def test_a_put_is_not_sent_again_where_retries_are_off(box: Box) -> None:
    script = Mortal()
    endpoint = await box.endpoint(script)
    await box.serve(endpoint, retry=Retries(attempts=0))
    wire = await box.client()
    await wire.request("/first")
    answer = await request_while_it_dies(script.peers, wire, "/second", method="PUT", body=b"once")
    assert answer.status == 502
    assert len(script.requests) == 1


async def test_a_new_connection_that_dies_before_its_answer_is_a_502_and_not_repeated(
    box: Box,
) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()

    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    answer = await (await box.client()).request("/")
    assert answer.status == 502
    assert "connection_terminated" in str(answer.header("proxy-status"))
    assert endpoint.connections == 1
    assert box.failures("reset") == 1


# ---- endpoints that cannot be reached ----


async def test_an_endpoint_that_refuses_is_passed_over(box: Box) -> None:
    good = await box.endpoint()
    dead = refused_address()
    await box.serve(good, dead, balance="round_robin")
    wire = await box.client()
    for _ in range(10):
        assert (await wire.request("/", method="POST", body=b"x")).status == 200
    assert box.of_pool(stats.P_PASSED_OVER) >= 1
    assert box.failures("connect") == box.of_pool(stats.P_PASSED_OVER)
    assert box.answers(5) == 0


async def test_when_every_endpoint_refuses_the_client_gets_one_502(box: Box) -> None:
    await box.serve(refused_address(), refused_address())
    wire = await box.client()
    answer = await wire.request("/")
    assert answer.status == 502
    assert "connection_refused" in str(answer.header("proxy-status"))
    assert answer.header("x-request-id")
    assert box.of_pool(stats.P_PASSED_OVER) == 2
    assert (await wire.request("/")).status == 502, "marks of unreachability are no verdict"


async def test_a_pool_without_endpoints_is_a_503_with_retry_after(box: Box) -> None:
    await box.serve()
    answer = await (await box.client()).request("/")
    assert answer.status == 503
    assert answer.header("retry-after")
    assert "destination_unavailable" in str(answer.header("proxy-status"))


async def test_a_name_that_does_not_resolve_is_a_502(box: Box) -> None:
    await box.serve("no-such-name.invalid:80")
    answer = await (await box.client()).request("/")
    assert answer.status == 502
    assert "dns_error" in str(answer.header("proxy-status"))


async def test_a_connect_that_takes_too_long_is_a_504(box: Box) -> None:
    with unanswering() as full:
        await box.serve(full, timeouts=Timeouts(connect_s=0.2))
        answer = await (await box.client()).request("/")
    assert answer.status == 504
    assert "connection_timeout" in str(answer.header("proxy-status"))


# ---- answers that go wrong ----


@pytest.mark.parametrize(
    "half",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    ],
)
async def test_an_answer_that_is_cut_is_broken_off_to_the_client(box: Box, half: bytes) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(half)

    await box.serve(await box.endpoint(play))
    with pytest.raises(WireError):
        await (await box.client()).request("/")
    assert box.failures("truncated") == 1


async def test_an_answer_to_the_end_of_the_connection_that_is_reset_is_broken_off(
    box: Box,
) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await reset.wait()
        peer.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )
        peer.abort()

    reset = asyncio.Event()
    await box.serve(await box.endpoint(play))
    wire = await box.client()
    await wire.send(request_bytes("/"))
    assert (await wire.head()).header("transfer-encoding") == "chunked"
    assert await wire.chunk() == b"half"
    reset.set()
    with pytest.raises(WireError):
        await wire.chunk()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello",
    ],
)
async def test_an_answer_that_is_no_http_is_a_502_and_its_connection_is_not_kept(
    box: Box, nonsense: bytes
) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(nonsense)
        await peer.gone()

    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    wire = await box.client()
    for _ in range(2):
        assert (await wire.request("/")).status == 502
    assert endpoint.connections == 2
    assert box.failures("protocol") == 2


async def test_bytes_behind_a_whole_answer_reach_nobody(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await peer.gone()

    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    wire = await box.client()
    for _ in range(3):
        assert (await wire.request("/")).body == b"ok"
    assert endpoint.connections == 3


async def test_bytes_that_nobody_asked_for_close_the_kept_connection(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await evil.wait()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await peer.gone()
        evil.clear()

    evil = asyncio.Event()
    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    wire = await box.client()
    await wire.request("/")
    evil.set()
    await until(lambda: not box.live(endpoint).idle, "the connection is given up")
    assert (await wire.request("/")).body == b"ok"
    assert endpoint.connections == 2


# ---- timeouts ----


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


async def test_no_answer_in_time_is_a_504(box: Box) -> None:
    await box.serve(await box.endpoint(silent), timeouts=Timeouts(response_s=0.2))
    answer = await (await box.client()).request("/")
    assert answer.status == 504
    assert "http_response_timeout" in str(answer.header("proxy-status"))
    assert box.failures("timeout") == 1


async def test_an_answer_that_stalls_is_broken_off(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await peer.gone()

    await box.serve(await box.endpoint(play), timeouts=Timeouts(read_stall_s=0.2))
    with pytest.raises(WireError):
        await (await box.client()).request("/")
    assert box.failures("timeout") == 1


async def test_an_event_stream_may_be_silent_for_longer_than_a_stall(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await asyncio.sleep(0.6)
        await peer.send(b"data: x\n\n")

    await box.serve(await box.endpoint(play), timeouts=Timeouts(read_stall_s=0.2))
    answer = await (await box.client()).request("/")
    assert answer.body == b"data: x\n\n"


async def test_a_body_that_stalls_is_a_408_and_the_connection_ends(box: Box) -> None:
    await box.serve(await box.endpoint(silent), timeouts=Timeouts(client_body_s=0.2))
    wire = await box.client()
    await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
    answer = await wire.answer()
    assert answer.status == 408
    assert answer.closes
    assert await wire.is_closed()
    assert box.of_pool(stats.P_FAILURES) == 0


async def test_an_answer_may_take_longer_than_the_clients_body_may(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.5)
        await peer.send(OK)

    await box.serve(await box.endpoint(play), timeouts=Timeouts(client_body_s=0.2))
    answer = await (await box.client()).request("/", method="POST", body=b"x")
    assert answer.status == 200


# ---- early answers ----


async def test_an_answer_before_the_bodys_end_reaches_the_client_and_the_next_request_is_served(
    box: Box,
) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await peer.gone()

    await box.serve(await box.endpoint(play))
    wire = await box.client()
    await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2097152\r\n\r\n" + b"x" * MIB)
    assert (await wire.answer()).status == 403
    await wire.send(b"x" * MIB)
    assert (await wire.request("/")).status == 403


async def test_an_endpoint_that_answers_early_and_closes_does_not_cut_its_answer(
    box: Box,
) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(
            b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
        )
        peer.writer.write_eof()
        await peer.gone()

    await box.serve(await box.endpoint(play))
    wire = await box.client()
    await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2097152\r\n\r\n" + b"x" * MIB)
    assert (await wire.answer()).status == 413


async def test_a_malformed_rest_of_a_body_gets_no_second_answer(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        await peer.gone()

    await box.serve(await box.endpoint(play))
    wire = await box.client()
    await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert (await wire.answer()).status == 403
    await wire.send(b"nonsense\r\n")
    assert await wire.is_closed()


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_over_the_limit_is_a_413(box: Box, framing: str) -> None:
    await box.serve(await box.endpoint(silent), max_body=10)
    wire = await box.client()
    if framing == "length":
        await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
    else:
        await wire.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n"
        )
    answer = await wire.answer()
    assert answer.status == 413
    assert answer.closes
    assert await wire.is_closed()


# ---- clients that vanish ----


async def test_a_client_that_vanishes_frees_its_endpoint_and_is_counted_as_such(
    box: Box,
) -> None:
    endpoint = await box.endpoint(silent)
    await box.serve(endpoint)
    wire = await box.client()
    await wire.send(request_bytes("/"))
    await until(lambda: endpoint.connections, "the request arrives")
    await until(lambda: box.live(endpoint).open, "it is in flight")
    wire.close()
    await until(lambda: not any(box.in_flight()), "it is not in flight any more")
    await until(lambda: not box.live(endpoint).open, "its connection is closed")
    assert box.of_pool(stats.P_FAILURES) == 0
    assert box.of_endpoint(endpoint, stats.E_FAILURES) == 0


async def test_a_client_that_vanishes_while_we_connect_leaves_a_usable_connection(
    box: Box,
) -> None:
    endpoint = await box.endpoint()
    await box.serve(endpoint)
    for _ in range(20):
        wire = await box.client()
        await wire.send(request_bytes("/"))
        wire.close()
    assert (await (await box.client()).request("/")).body == b"ok"


# ---- backpressure ----


def _big(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size


async def test_a_client_that_does_not_read_pauses_its_endpoint(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        peer.writer.write(_big(64 * MIB))
        await peer.writer.drain()

    endpoint = await box.endpoint(play)
    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    await box.serve(endpoint)
    wire = await box.client(receive=8192)
    await wire.send(request_bytes("/"))
    await until(lambda: any(c.is_paused for c in box.plane.connections), "the client is paused")
    (connection,) = box.plane.connections
    await asyncio.sleep(0.2)
    assert connection.transport.get_write_buffer_size() < MIB
    exchange = connection.current
    assert exchange is not None
    assert exchange.bytes_out < 8 * MIB
    answer = await wire.answer()
    assert len(answer.body) == 64 * MIB


async def test_a_connection_whose_last_answer_filled_a_slow_client_serves_others(
    box: Box,
) -> None:
    async def play(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(_big(300_000))

    endpoint = await box.endpoint(play)
    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    await box.serve(endpoint, timeouts=Timeouts(response_s=2.0))
    slow = await box.client(receive=8192)
    await slow.send(request_bytes("/"))
    await until(lambda: any(c.is_paused for c in box.plane.connections), "the client is paused")
    answer = await slow.answer()
    assert len(answer.body) == 300_000
    fast = await box.client()
    for _ in range(3):
        assert (await fast.request("/")).status == 200


async def test_an_answer_that_came_in_one_read_leaves_its_connection_readable(box: Box) -> None:
    async def play(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(_big(100_000))

    endpoint = await box.endpoint(play)
    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    await box.serve(endpoint, timeouts=Timeouts(response_s=1.0))
    for _ in range(4):
        slow = await box.client(receive=4096)
        await slow.send(request_bytes("/"))
        await until(
            lambda: (
                any(c.is_paused and c.current is None for c in box.plane.connections)
                or not any(box.in_flight())
            ),
            "the answer is whole, the client has not read it",
        )
        fast = await box.client()
        assert (await fast.request("/")).status == 200


def _last(size: int) -> bytes:
    return _big(size).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


async def _until_unread(box: Box) -> None:
    """The first of two answers is whole, and the client has not read it."""
    await until(
        lambda: box.answers(2) and any(c.is_paused for c in box.plane.connections),
        "the first answer waits for the client",
    )


@pytest.mark.parametrize("first", [_big, _last])
async def test_an_answer_behind_an_unread_one_is_bounded_too(
    box: Box, first: Callable[[int], bytes]
) -> None:
    async def play(peer: Peer) -> None:
        while True:
            is_first = b" /one " in await peer.request()
            await peer.send(first(100_000) if is_first else _big(32 * MIB))

    await box.serve(await box.endpoint(play))
    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    wire = await box.client(receive=4096)
    await wire.send(request_bytes("/one") + request_bytes("/two"))
    await _until_unread(box)
    (connection,) = box.plane.connections
    for _ in range(50):
        await asyncio.sleep(0.01)
        assert connection.transport.get_write_buffer_size() < 2 * MIB
    assert len((await wire.answer()).body) == 100_000
    assert len((await wire.answer()).body) == 32 * MIB


async def test_a_client_that_does_not_read_is_not_blamed_on_the_endpoint(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(_last(100_000))

    timeouts = Timeouts(response_s=1.0, read_stall_s=1.0)
    await box.serve(await box.endpoint(play), timeouts=timeouts)
    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    wire = await box.client(receive=4096)
    await wire.send(request_bytes("/one") + request_bytes("/two"))
    await _until_unread(box)
    await asyncio.sleep(1.6)
    assert len((await wire.answer()).body) == 100_000
    assert len((await wire.answer()).body) == 100_000
    assert box.failures("timeout") == 0


async def test_an_endpoint_that_does_not_read_pauses_its_client(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        await peer.reader.readexactly(64 * MIB)
        await peer.send(OK)

    go = asyncio.Event()
    await box.serve(await box.endpoint(play))
    wire = await box.client()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (64 * MIB)
    sending = box.loop.create_task(wire.send(head + b"x" * (64 * MIB)))
    await until(
        lambda: any(c.current and c.current.is_paused for c in box.plane.connections),
        "the request is paused",
    )
    (connection,) = box.plane.connections
    exchange = connection.current
    assert exchange is not None
    await asyncio.sleep(0.1)
    assert exchange.bytes_in < 32 * MIB
    go.set()
    await sending
    assert (await wire.answer()).status == 200


# ---- where it goes ----


async def test_a_request_not_sent_yet_follows_the_newest_snapshot(box: Box) -> None:
    green = await box.endpoint()
    timeouts = Timeouts(connect_s=1.0)
    with unanswering() as full:
        await box.apply(
            box.shop(
                box.pool("blue", [full], WHOLE), box.pool("green", [green], 0), timeouts=timeouts
            )
        )
        wire = await box.client()
        await wire.send(request_bytes("/"))
        await until(lambda: any(c.current for c in box.plane.connections), "it is connecting")
        await box.apply(
            box.shop(
                box.pool("blue", [full], 0), box.pool("green", [green], WHOLE), timeouts=timeouts
            )
        )
        assert (await wire.answer()).status == 200
    assert green.connections == 1
    assert box.of_pool(stats.P_PASSED_OVER) == 1
