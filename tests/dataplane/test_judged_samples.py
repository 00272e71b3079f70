"""What a worker remembers of failed first attempts, for people: which request, and where."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from proxy.dataplane.judged import KEPT_SAMPLES
from proxy.model import WHOLE
from tests.dataplane.box import OK, Box, Peer
from tests.e2e.wire import WireError

_ID = re.compile(rb"(?i)\r\nx-request-id: (\S+)\r\n")
ERROR = b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"


def id_of(request: bytes) -> str:
    found = _ID.search(request)
    assert found, request
    return found[1].decode()


async def test_good_answers_and_refusals_of_class_4xx_leave_no_sample(box: Box) -> None:
    async def play(peer: Peer) -> None:
        for answer in (OK, OK.replace(b"200 OK", b"404 X")):
            await peer.request()
            await peer.send(answer)

    await box.serve(await box.endpoint(play))
    wire = await box.client()
    assert [(await wire.request("/")).status for _ in range(2)] == [200, 404]
    assert box.plane.samples("shop", "blue") == []


@pytest.mark.parametrize("body", [b"", b"in pieces"])
async def test_an_error_is_kept_with_its_request_endpoint_and_status(box: Box, body: bytes) -> None:
    ids: list[str] = []

    async def play(peer: Peer) -> None:
        ids.append(id_of(await peer.request()))
        await peer.send(ERROR.replace(b"0\r\n\r\n", b"%d\r\n\r\n" % len(body)))
        for byte in body:
            await asyncio.sleep(0.005)  # so that the head comes before the end
            await peer.send(bytes([byte]))

    endpoint = await box.endpoint(play)
    await box.serve(endpoint)
    began = time.monotonic()
    await (await box.client()).request("/")
    (sample,) = box.plane.samples("shop", "blue")
    assert began < sample.pop("at") < time.monotonic()
    assert sample == {
        "request_id": ids[0],
        "status": 503,
        "failure": None,
        "endpoint": endpoint.address,
    }


@pytest.mark.parametrize(
    ("answer", "status", "failure"),
    [
        (b"", None, "reset"),
        (b"HTTP/1.1 banana\r\n\r\n", None, "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", 200, "truncated"),
    ],
)
async def test_an_attempt_without_a_whole_answer_is_kept_with_what_failed(
    box: Box, answer: bytes, status: int | None, failure: str
) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    await box.serve(await box.endpoint(play))
    try:
        await (await box.client()).request("/", method="POST")
    except WireError:
        assert status == 200, "only what had begun is broken off"
    (sample,) = box.plane.samples("shop", "blue")
    assert (sample["status"], sample["failure"]) == (status, failure)


async def test_a_failure_that_a_retry_hid_from_the_client_is_kept_once(box: Box) -> None:
    async def fails(peer: Peer) -> None:
        await peer.request()

    async def answers(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)

    bad, good = await box.endpoint(fails), await box.endpoint(answers)
    await box.serve(bad, good)
    box.grant(100)
    wire = await box.client()
    for _ in range(40):
        assert (await wire.request("/")).status == 200
    samples = box.plane.samples("shop", "blue")
    assert samples
    assert {each["endpoint"] for each in samples} == {bad.address}
    ids = [each["request_id"] for each in samples]
    assert len(set(ids)) == len(ids)


async def test_only_the_last_ones_are_kept_newest_first(box: Box) -> None:
    ids: list[str] = []

    async def play(peer: Peer) -> None:
        while True:
            ids.append(id_of(await peer.request()))
            await peer.send(ERROR)

    await box.serve(await box.endpoint(play))
    wire = await box.client()
    for _ in range(KEPT_SAMPLES + 3):
        assert (await wire.request("/")).status == 503
    samples = box.plane.samples("shop", "blue")
    assert [each["request_id"] for each in samples] == ids[::-1][:KEPT_SAMPLES]


@pytest.mark.parametrize("framing", [b"Content-Length: 0\r\n\r\n", b"Connection: close\r\n\r\n"])
async def test_what_a_candidate_refuses_is_kept_beside_its_failures(
    box: Box, framing: bytes
) -> None:
    ids: list[str] = []

    async def play(peer: Peer) -> None:
        while True:
            ids.append(id_of(await peer.request()))
            await peer.send(b"HTTP/1.1 404 Not Here\r\n" + framing)
            if b"close" in framing:
                return

    blue, green = await box.endpoint(), await box.endpoint(play)
    await box.apply(box.shop(box.pool("blue", [blue], 0), box.pool("green", [green], WHOLE)))
    for _ in range(KEPT_SAMPLES + 3):
        assert (await (await box.client()).request("/")).status == 404
    samples = box.plane.samples("shop", "green")
    assert [each["request_id"] for each in samples] == ids[::-1][:KEPT_SAMPLES]
    assert {(each["status"], each["failure"], each["endpoint"]) for each in samples} == {
        (404, None, green.address)
    }


async def test_what_the_active_pool_refuses_is_nothing_to_remember(box: Box) -> None:
    async def play(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 404 Not Here\r\nContent-Length: 0\r\n\r\n")

    await box.serve(await box.endpoint(play))
    wire = await box.client()
    for _ in range(3):
        assert (await wire.request("/")).status == 404
    assert box.plane.samples("shop", "blue") == []


async def test_an_unknown_pool_has_no_samples(box: Box) -> None:
    await box.serve()
    assert box.plane.samples("shop", "red") == []
