"""The channel: frames split anywhere, sockets that travel with the right one, and its end."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from proxy.process import channel as module
from proxy.process.channel import Channel
from proxy.process.messages import Message, encode


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - callbacks set no event
            await asyncio.sleep(0.002)


class End:
    """A channel and what came over it."""

    def __init__(self, sock: socket.socket) -> None:
        self.got: list[tuple[Message, list[int]]] = []
        self.closed = 0
        self.on_message: Callable[[], object] = lambda: None
        self.channel = Channel(sock, self._on_message, self._on_closed)

    def _on_message(self, message: Message, descriptors: list[int]) -> None:
        self.got.append((message, descriptors))
        self.on_message()

    def _on_closed(self) -> None:
        self.closed += 1

    @property
    def messages(self) -> list[Message]:
        return [message for message, _ in self.got]


class Pair:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.here = End(ours)
        self.raw = theirs
        self.there: End | None = None

    def connect(self) -> End:
        self.there = End(self.raw)
        return self.there

    def end(self) -> None:
        self.here.channel.close()
        if self.there is not None:
            self.there.channel.close()
        self.raw.close()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    made = Pair()
    yield made
    made.end()


def _has(end: End, count: int) -> bool:
    return len(end.got) == count


def frame(message: Message, descriptors: int = 0) -> bytes:
    data = encode(message)
    return module._FRAME.pack(len(data), descriptors) + data


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


async def test_messages_arrive_in_order_both_ways(pair: Pair) -> None:
    there = pair.connect()
    for number in range(200):
        pair.here.channel.send({"kind": "n", "n": number})
        there.channel.send({"kind": "m", "n": number})
    await until(lambda: len(there.got) == len(pair.here.got) == 200)
    assert [message["n"] for message in there.messages] == list(range(200))
    assert [message["n"] for message in pair.here.messages] == list(range(200))


async def test_a_frame_may_be_split_at_every_byte(pair: Pair) -> None:
    message = {"kind": "x", "text": "ü" * 5}
    data = frame(message) + frame({"kind": "y"})
    for at in range(len(data) + 1):
        before = len(pair.here.got)
        pair.raw.sendall(data[:at])
        await asyncio.sleep(0)
        pair.raw.sendall(data[at:])
        await until(partial(_has, pair.here, before + 2))
    assert pair.here.messages[-2:] == [message, {"kind": "y"}]


async def test_bytes_one_by_one_make_a_frame(pair: Pair) -> None:
    for byte in frame({"kind": "slow"}):
        pair.raw.sendall(bytes([byte]))
        await asyncio.sleep(0)
    await until(lambda: pair.here.got)
    assert pair.here.messages == [{"kind": "slow"}]


async def test_a_message_larger_than_any_buffer_arrives_whole(pair: Pair) -> None:
    there = pair.connect()
    text = "x" * (3 * 1024 * 1024)
    pair.here.channel.send({"kind": "large", "text": text})
    pair.here.channel.send({"kind": "after"})
    await until(lambda: len(there.got) == 2)
    assert there.messages[0]["text"] == text


async def test_descriptors_travel_with_their_own_message(pair: Pair) -> None:
    there = pair.connect()
    draw = random.Random(1)
    expected: list[list[int]] = []
    ours: list[int] = []
    for number in range(60):
        inodes = []
        fds = [os.memfd_create(f"{number}-{index}") for index in range(draw.choice([0, 0, 1, 7]))]
        ours += fds
        inodes = [os.fstat(fd).st_ino for fd in fds]
        expected.append(inodes)
        text = "x" * draw.choice([0, 10, 200_000])
        pair.here.channel.send({"kind": "fds", "n": number, "text": text}, fds)
        if number % 7 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(there.got) == 60)
    got = [[os.fstat(fd).st_ino for fd in fds] for _, fds in there.got]
    for fd in ours + [fd for _, fds in there.got for fd in fds]:
        os.close(fd)
    assert got == expected


async def test_as_many_descriptors_as_allowed_travel_and_one_more_is_refused(pair: Pair) -> None:
    there = pair.connect()
    fd = os.memfd_create("many")
    pair.here.channel.send({"kind": "many"}, [fd] * module.MAX_DESCRIPTORS)
    await until(lambda: there.got)
    received = there.got[0][1]
    assert len(received) == module.MAX_DESCRIPTORS
    for each in received:
        os.close(each)
    with pytest.raises(ValueError, match="sockets"):
        pair.here.channel.send({"kind": "more"}, [fd] * (module.MAX_DESCRIPTORS + 1))
    os.close(fd)


async def test_received_descriptors_are_not_inherited_by_children(pair: Pair) -> None:
    there = pair.connect()
    fd = os.memfd_create("private")
    pair.here.channel.send({"kind": "x"}, [fd])
    await until(lambda: there.got)
    (received,) = there.got[0][1]
    assert not os.get_inheritable(received)
    os.close(received)
    os.close(fd)


async def test_descriptors_of_a_frame_that_never_became_whole_are_closed(pair: Pair) -> None:
    before = open_descriptors()
    fd = os.memfd_create("orphan")
    socket.send_fds(pair.raw, [frame({"kind": "x"}, 1)[:5]], [fd])
    os.close(fd)
    await until(lambda: open_descriptors() == before + 1)
    pair.raw.close()
    await until(lambda: pair.here.closed)
    assert open_descriptors() == before - 2  # both ends of the pair


async def test_a_peer_that_does_not_read_does_not_take_memory_without_end(pair: Pair) -> None:
    large = {"kind": "x", "text": "x" * 100_000}
    for _ in range(module.MAX_QUEUED * 2):
        pair.here.channel.send(large)
    assert pair.here.channel.is_closed
    assert pair.here.closed == 1
    assert not pair.here.channel._queue
    pair.here.channel.send(large)  # nothing happens


async def test_the_end_of_the_peer_is_told_once_after_its_last_message(pair: Pair) -> None:
    pair.raw.sendall(frame({"kind": "last"}) + frame({"kind": "half"})[:6])
    pair.raw.close()
    await until(lambda: pair.here.closed)
    assert pair.here.messages == [{"kind": "last"}]
    pair.here.channel.close()
    assert pair.here.closed == 1


async def test_sending_to_a_peer_that_has_gone_closes_the_channel(pair: Pair) -> None:
    pair.raw.close()
    pair.here.channel.send({"kind": "x"})
    await until(lambda: pair.here.closed)
    assert pair.here.closed == 1


async def test_a_channel_may_be_closed_by_what_it_tells(pair: Pair) -> None:
    pair.here.on_message = pair.here.channel.close
    pair.raw.sendall(frame({"kind": "a"}) + frame({"kind": "b"}))
    await until(lambda: pair.here.closed)
    assert pair.here.messages == [{"kind": "a"}]


async def test_a_frame_larger_than_any_message_closes_the_channel(pair: Pair) -> None:
    pair.raw.sendall(module._FRAME.pack(module.MAX_MESSAGE + 1, 0))
    await until(lambda: pair.here.closed)


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"kind": 1}'])
async def test_a_frame_that_is_no_message_closes_the_channel(pair: Pair, body: bytes) -> None:
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, facts: problems.append(facts))
    pair.raw.sendall(module._FRAME.pack(len(body), 0) + body + frame({"kind": "after"}))
    await until(lambda: pair.here.closed)
    assert pair.here.got == []
    assert problems == []
