"""What a client decides about our memory on the request's side: every queue of it has an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from proxy.dataplane.downstream import MAX_EARLY, MAX_PIPELINED, Downstream
from proxy.dataplane.exchange import BUFFERED
from tests.dataplane.box import Box, Peer, until
from tests.e2e.wire import Wire

READ = 256 * 1024
"""Bytes that either loop reads at most at once, and hands to us before we can say no."""
FLOOD = 2 * 1024 * 1024


async def silent(peer: Peer) -> None:
    await peer.head()
    await peer.gone()


async def flooded(box: Box, begin: bytes, more: bytes) -> Downstream:
    """The connection of a client that sends `begin`, and then `more` without end."""
    wire: Wire = await box.client()
    wire._writer.write(begin + more * (FLOOD // len(more)))
    await until(lambda: box.plane.connections, "the client is let in")
    (downstream,) = box.plane.connections
    await until(lambda: downstream.is_unread, "nothing more is read")
    return downstream


async def stays(figure: Callable[[], int], most: int) -> None:
    """The figure holds while the loop goes round and round, with the client's bytes at the door."""
    for _ in range(200):
        assert figure() <= most
        await asyncio.sleep(0)


@pytest.mark.parametrize("body", [b"", b"x" * 100], ids=["empty", "small"])
async def test_requests_that_wait_their_turn_are_bounded(box: Box, body: bytes) -> None:
    await box.serve(await box.endpoint(silent))
    one = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    downstream = await flooded(box, one, one)
    waiting = downstream._waiting
    assert waiting is not None
    assert len(waiting) > 1
    await stays(lambda: len(waiting), MAX_PIPELINED)
    kept = sum(len(piece) for each in waiting for piece in each._out)
    assert kept <= READ
    box.endpoints[0].refuse()  # nobody else makes the plane look at its client again


async def test_what_follows_a_request_for_an_upgrade_is_bounded(box: Box) -> None:
    await box.serve(await box.endpoint(silent))
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    downstream = await flooded(box, upgrade, b"early")
    assert len(downstream._early) > MAX_EARLY
    await stays(lambda: len(downstream._early), MAX_EARLY + READ)
    box.endpoints[0].refuse()


class Unanswered:
    """Names that nobody answers for until the test ends."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()

    async def __call__(self, host: str, port: int) -> list[str]:
        await self.answered.wait()
        raise OSError(f"nobody knows {host}:{port}")


@pytest.fixture
async def lost() -> AsyncIterator[Box]:
    """A plane whose only endpoint has a name that is still being looked up."""
    names = Unanswered()
    box = Box(resolve=names)
    await box.serve("nowhere.example:80")
    yield box
    names.answered.set()
    await box.end()


@pytest.mark.parametrize("size", [1, 16, 4096])
async def test_a_body_that_has_nowhere_to_go_is_bounded_whatever_its_chunks(
    lost: Box, size: int
) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    downstream = await flooded(lost, head, b"%x\r\n%b\r\n" % (size, b"x" * size))
    exchange = downstream.current
    assert exchange is not None
    await stays(lambda: sum(map(len, exchange._out)), BUFFERED + READ)
    assert len(exchange._out) < 100, "the small chunks of a read are kept as one"


async def test_a_body_of_known_length_that_has_nowhere_to_go_is_bounded(lost: Box) -> None:
    head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % FLOOD
    downstream = await flooded(lost, head, b"x" * 1024)
    exchange = downstream.current
    assert exchange is not None
    await stays(lambda: sum(map(len, exchange._out)), BUFFERED + READ)
