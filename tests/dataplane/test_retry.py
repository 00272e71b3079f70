"""Retries: once more elsewhere where that is safe and paid for, and never a POST."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from proxy import stats
from proxy.dataplane import upstream
from proxy.dataplane.trail import KEPT, PIECE_OVERHEAD
from proxy.model import WHOLE, AccessLog, Drain, Pool, Preview, Retries, Sticky, Timeouts
from proxy.policy.split import Sequence
from tests.dataplane.box import OK, Box, Peer, Scripted, always_ok, until
from tests.e2e.wire import WireError, request_bytes

KINDS = {
    "reset": "reset",
    "close": "reset",
    "half": "reset",
    "garbage": "protocol",
    "switch": "protocol",
    "silent": "timeout",
}
"""Ways to fail before an answer, and the kind of failure that each is counted as."""
QUICK = Timeouts(response_s=1.0)
UNASKED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"


class Failing:
    """Reads requests, answers the first ones of each connection, and fails at the next."""

    def __init__(self, kind: str = "reset", *, answers: int = 0) -> None:
        self.kind = kind
        self.answers = answers
        self.requests: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        for _ in range(self.answers):
            self.requests.append(await read_request(peer))
            await peer.send(OK)
        self.requests.append(await read_request(peer))
        await fail(peer, self.kind)


class Flaky:
    """Answers everything until it is broken; then it resets whatever it reads."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.is_broken = False

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.requests.append(await read_request(peer))
            if self.is_broken:
                await fail(peer, "reset")
                return
            await peer.send(OK)


class Good:
    """Answers everything, and remembers it."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.requests.append(await read_request(peer))
            await peer.send(OK)


async def read_request(peer: Peer) -> bytes:
    """Head and body, by length or in chunks (without trailers)."""
    request = await peer.request()
    if b"\r\nTransfer-Encoding: chunked" in request:
        request += await peer.reader.readuntil(b"0\r\n\r\n")
    return request


async def fail(peer: Peer, kind: str) -> None:
    if kind == "reset":
        peer.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )
        peer.abort()
    elif kind == "half":
        await peer.send(b"HTTP/1.1 200 O")
    elif kind == "garbage":
        await peer.send(b"220 smtp.example.com ready\r\n")
    elif kind == "switch":
        await peer.send(UNASKED)
    if kind in {"garbage", "switch", "silent"}:
        await peer.gone()


def seen(*plays: Failing | Flaky | Good) -> list[int]:
    return [len(play.requests) for play in plays]


async def two(box: Box, first: Failing, second: Failing | Good, **service: object) -> None:
    """Pool blue, in charge: the first request goes to `first`."""
    await box.serve(
        await box.endpoint(first), await box.endpoint(second), balance="round_robin", **service
    )


async def on_trial(
    box: Box, green: list[Scripted], blue: list[Scripted], share: int = WHOLE - 1, **service: object
) -> None:
    """Blue is in charge; the next requests go to green, whose share is nearly everything."""
    pools = (box.pool("blue", blue, WHOLE - share), box.pool("green", green, share))
    await box.apply(box.shop(*pools, balance="round_robin", **service))
    live = box.plane.table.services[0]
    start = next(n for n in range(WHOLE) if live.split.index(Sequence(n).next()) == 1)
    live.sequence = Sequence(start)


# ---- what is tried again ----


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
async def test_a_request_without_a_body_is_answered_by_another_endpoint(
    box: Box, kind: str, method: str
) -> None:
    bad, good = Failing(kind), Good()
    await two(box, bad, good, timeouts=QUICK)
    box.grant(1)
    answer = await (await box.client()).request("/x", method=method)
    assert answer.status == 200
    assert seen(bad, good) == [1, 1]
    assert good.requests[0].startswith(f"{method} /x ".encode())
    assert box.failures(KINDS[kind]) == 1
    assert (box.retries("retried"), box.retries("failed")) == (1, 0)
    assert (box.answers(2), box.answers(5)) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_put_is_sent_again_with_all_of_its_body(box: Box, kind: str, framing: str) -> None:
    bad, good = Failing(kind), Good()
    await two(box, bad, good, timeouts=QUICK)
    box.grant(1)
    wire = await box.client()
    if framing == "length":
        await wire.send(request_bytes("/", method="PUT", body=b"body" * 1000))
        whole = b"body" * 1000
    else:
        await wire.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await wire.send(b"4\r\nbody\r\n3\r\nend\r\n0\r\n\r\n")
        whole = b"7\r\nbodyend\r\n0\r\n\r\n"  # chunks of one read go on as one
    assert (await wire.answer()).status == 200
    assert good.requests[0].partition(b"\r\n\r\n")[2] == whole
    assert seen(bad, good) == [1, 1]
    assert (await wire.request("/next")).status == 200


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["POST", "PATCH", "LOCK"])
@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("body", [None, b"once"])
async def test_what_may_not_be_done_twice_is_sent_once(
    box: Box, kind: str, method: str, *, is_kept: bool, body: bytes | None
) -> None:
    bad, good = Failing(kind, answers=int(is_kept)), Good()
    await two(box, bad, good, timeouts=QUICK)
    box.grant(100)
    wire = await box.client()
    if is_kept:
        for _ in range(2):
            assert (await wire.request("/before")).status == 200
    answer = await wire.request("/once", method=method, body=body)
    assert answer.status in {502, 504}
    sent = [each for each in (*bad.requests, *good.requests) if b" /once " in each]
    assert len(sent) == 1
    assert box.of_service(stats.S_RETRIES) == 0
    assert box.failures(KINDS[kind]) == 1


async def test_a_body_too_long_to_be_kept_is_sent_once(box: Box) -> None:
    bad, good = Failing(), Good()
    await two(box, bad, good)
    box.grant(1)
    wire = await box.client()
    assert (await wire.request("/", method="PUT", body=b"x" * (KEPT + 1))).status == 502
    assert seen(bad, good) == [1, 0]


async def test_tiny_chunks_that_came_together_are_kept_as_one(box: Box) -> None:
    bad, good = Failing(), Good()
    await two(box, bad, good)
    box.grant(1)
    wire = await box.client()
    await wire.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    await wire.send(b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n")
    assert (await wire.answer()).status == 200
    assert seen(bad, good) == [1, 1]


async def test_a_body_of_tiny_chunks_is_not_kept_without_bound(box: Box) -> None:
    bad, good = Failing(), Good()
    await two(box, bad, good)
    box.grant(1)
    wire = await box.client()
    await wire.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    (client,) = box.plane.connections
    for number in range(KEPT // (3 * PIECE_OVERHEAD)):  # one by one: those of a read become one
        await wire.send(b"1\r\nx\r\n")
        while client.current is None or client.current.bytes_in <= number:  # noqa: ASYNC110
            await asyncio.sleep(0)
    await wire.send(b"0\r\n\r\n")
    assert (await wire.answer()).status == 502
    assert seen(bad, good) == [1, 0]


async def test_a_body_that_is_still_coming_goes_on_to_the_next_endpoint(box: Box) -> None:
    async def impatient(peer: Peer) -> None:
        await peer.head()
        await peer.reader.readexactly(4)
        peer.abort()

    good = Good()
    await box.serve(await box.endpoint(impatient), await box.endpoint(good), balance="round_robin")
    box.grant(1)
    wire = await box.client()
    await wire.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf")
    await until(lambda: box.of_service(stats.S_RETRIES), "the other endpoint is asked")
    await wire.send(b"rest")
    assert (await wire.answer()).status == 200
    assert good.requests[0].endswith(b"\r\n\r\nhalfrest")


async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked_by_the_next_endpoint(
    box: Box,
) -> None:
    async def dies(peer: Peer) -> None:
        await peer.head()
        peer.abort()

    async def asks(peer: Peer) -> None:
        assert b"Expect: 100-continue" in await peer.head()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.reader.readexactly(4) == b"body"
        await peer.send(OK)

    await box.serve(await box.endpoint(dies), await box.endpoint(asks), balance="round_robin")
    box.grant(1)
    wire = await box.client()
    await wire.send(
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    )
    assert (await wire.head()).status == 100
    await wire.send(b"body")
    assert (await wire.answer()).status == 200


async def test_an_upgrade_whose_endpoint_dies_first_is_made_with_another(box: Box) -> None:
    async def dies(peer: Peer) -> None:
        await peer.head()
        peer.abort()

    async def echoes(peer: Peer) -> None:
        await peer.head()
        await peer.send(UNASKED)
        await peer.send(await peer.reader.readexactly(5))

    await box.serve(await box.endpoint(dies), await box.endpoint(echoes), balance="round_robin")
    box.grant(1)
    wire = await box.client()
    await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nearly")
    assert (await wire.answer()).status == 101
    assert await wire.rest() == b"early"


async def test_pipelined_requests_are_answered_in_their_order(box: Box) -> None:
    async def play(peer: Peer) -> None:
        while True:
            request = await read_request(peer)
            if b" /2 " in request and not failed:
                failed.append(request)
                peer.abort()
                return
            path = request.split(b" ")[1]
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    failed: list[bytes] = []
    await box.serve(await box.endpoint(play), await box.endpoint(play))
    box.grant(10)
    wire = await box.client()
    piped = [request_bytes(f"/{n}", method="PUT", body=b"b" * n) for n in range(4)]
    await wire.send(b"".join(piped))
    assert [(await wire.answer()).body for _ in range(4)] == [b"/0", b"/1", b"/2", b"/3"]
    assert len(failed) == 1


async def test_a_client_that_has_not_read_the_answer_before_gets_the_next_one_later(
    box: Box,
) -> None:
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000

    async def generous(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(big)

    bad = Failing()
    await box.serve(await box.endpoint(generous), await box.endpoint(bad), balance="round_robin")
    box.grant(1)
    box.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    wire = await box.client(receive=4096)
    await wire.send(request_bytes("/one") + request_bytes("/two"))
    await until(lambda: box.answers(2) == 1, "the first one is answered, and nobody reads it")
    assert seen(bad) == [0]
    for _ in range(2):
        assert len((await wire.answer()).body) == 100_000
    assert (seen(bad), box.retries("retried")) == ([1], 1)


# ---- when it is too late ----


async def test_nothing_is_tried_again_once_a_byte_of_an_answer_has_gone_out(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    good = Good()
    await box.serve(await box.endpoint(play), await box.endpoint(good), balance="round_robin")
    box.grant(10)
    with pytest.raises(WireError):
        await (await box.client()).request("/")
    assert seen(good) == [0]
    assert box.of_service(stats.S_RETRIES) == 0


async def test_an_interim_answer_is_a_part_of_the_answer(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")

    good = Good()
    await box.serve(await box.endpoint(play), await box.endpoint(good), balance="round_robin")
    box.grant(10)
    answer = await (await box.client()).request("/")
    assert (answer.status, [each.status for each in answer.interim]) == (502, [103])
    assert seen(good) == [0]


# ---- kept connections ----


@pytest.mark.parametrize("kind", ["reset", "close"])
async def test_a_kept_connection_that_is_closed_on_a_request_is_a_failure_and_costs_budget(
    box: Box, kind: str
) -> None:
    """It had arrived, so it is no connection that had died before: see a flaky endpoint."""
    bad, good = Failing(kind, answers=1), Good()
    await two(box, bad, good)
    wire = await box.client()
    for _ in range(2):
        await wire.request("/")
    assert seen(bad, good) == [1, 1]
    assert (await wire.request("/")).status == 502, "there is no budget"
    assert (box.failures("reset"), box.of_pool(stats.P_STALE)) == (1, 0)
    box.grant(1)
    while box.of_service(stats.S_RETRIES) < 1:
        assert (await wire.request("/")).status == 200
    assert box.failures("reset") == 2
    assert box.retries("retried") == 1


@pytest.mark.parametrize("kind", ["reset", "close"])
async def test_the_only_endpoint_may_answer_on_a_new_connection_for_a_retry(
    box: Box, kind: str
) -> None:
    bad = Failing(kind, answers=1)
    await box.serve(await box.endpoint(bad))
    box.grant(1)
    wire = await box.client()
    assert [(await wire.request("/")).status for _ in range(2)] == [200, 200]
    assert seen(bad) == [3]
    assert (box.failures("reset"), box.retries("retried")) == (1, 1)
    assert (await wire.request("/")).status == 502, "one retry was granted"


async def test_a_connection_that_rested_may_have_been_forgotten_and_costs_nothing(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "RESTED_S", 0.0)
    bad = Failing(answers=1)
    await box.serve(await box.endpoint(bad))
    wire = await box.client()
    assert (await wire.request("/")).status == 200
    assert (await wire.request("/")).status == 200
    assert (box.failures("reset"), box.of_pool(stats.P_STALE)) == (0, 1)


# ---- the budget ----


async def test_without_budget_the_failure_is_the_answer(box: Box) -> None:
    bad, good = Failing(), Good()
    await two(box, bad, good)
    assert (await (await box.client()).request("/")).status == 502
    assert seen(bad, good) == [1, 0]
    assert (box.retries("no_budget"), box.of_service(stats.S_RETRIES)) == (1, 0)
    assert box.answers(5) == 1


async def test_a_worker_retries_as_often_as_it_was_granted(box: Box) -> None:
    bad, good = Failing(), Good()
    await two(box, bad, good)
    box.grant(2)
    wire = await box.client()
    answers = [(await wire.request("/")).status for _ in range(8)]
    assert box.of_service(stats.S_RETRIES) == 2
    assert box.retries("retried") == 2
    assert answers.count(502) == box.retries("no_budget") == seen(bad)[0] - 2
    box.grant(3)
    while box.of_service(stats.S_RETRIES) < 3:
        await wire.request("/")
    assert box.retries("retried") == 3


async def test_retries_can_be_switched_off(box: Box) -> None:
    bad, good = Failing(), Good()
    await two(box, bad, good, retry=Retries(attempts=0))
    box.grant(10)
    wire = await box.client()
    assert (await wire.request("/")).status == 502
    assert (await wire.request("/", method="PUT", body=b"x")).status == 200
    assert seen(bad, good) == [1, 1]
    assert (box.retries("no_budget"), box.of_service(stats.S_RETRIES)) == (0, 0)


@pytest.mark.parametrize(("attempts", "status"), [(1, 502), (2, 200)])
async def test_there_are_as_many_attempts_as_the_file_says(
    box: Box, attempts: int, status: int
) -> None:
    first, second, good = Failing(), Failing("close"), Good()
    await box.serve(
        *[await box.endpoint(play) for play in (first, second, good)],
        balance="round_robin",
        retry=Retries(attempts=attempts),
    )
    box.grant(10)
    assert (await (await box.client()).request("/")).status == status
    assert seen(first, second, good) == [1, 1, attempts - 1]
    assert box.retries("failed") == 1
    assert box.retries("retried") == attempts - 1
    assert box.failures("reset") == 2
    assert box.of_pool(stats.P_WENT_ON) == box.of_pool(stats.P_LATER) == 1


async def test_no_endpoint_is_asked_twice(box: Box) -> None:
    alone = Failing()
    await box.serve(await box.endpoint(alone), retry=Retries(attempts=3))
    box.grant(10)
    assert (await (await box.client()).request("/")).status == 502
    assert seen(alone) == [1]
    assert box.of_service(stats.S_RETRIES) == 0, "nothing is paid for what cannot be done"


# ---- which pool ----


@pytest.mark.parametrize("kind", KINDS)
async def test_a_release_on_trial_is_rescued_by_the_pool_in_charge(box: Box, kind: str) -> None:
    bad, other, good = Failing(kind), Good(), Good()
    green = [await box.endpoint(bad), await box.endpoint(other)]
    await on_trial(box, green, [await box.endpoint(good)], timeouts=QUICK)
    box.grant(1)
    assert (await (await box.client()).request("/")).status == 200
    assert seen(bad, other, good) == [1, 0, 1]
    assert b"X-Turnout-Pool: blue\r\n" in good.requests[0]
    assert (box.retries("rescued"), box.retries("retried")) == (1, 0)


async def test_what_was_rescued_still_counts_against_the_release(box: Box) -> None:
    bad = await box.endpoint(Failing())
    await on_trial(box, [bad], [await box.endpoint()])
    box.grant(10)
    wire = await box.client()
    for _ in range(5):
        assert (await wire.request("/")).status == 200
    assert box.failures("reset", "green") == 5
    assert box.of_endpoint(bad, stats.E_FAILURES) == 5
    assert (box.answers(2, "blue"), box.answers(5, "green")) == (5, 0)
    # First attempts: what a pool answered, less what others had tried before, and those it lost.
    for pool, first, failed in (("green", 5, 5), ("blue", 0, 0)):
        answers = sum(box.answers(digit, pool) for digit in range(6))
        went_on = box.of_pool(stats.P_WENT_ON, pool)
        assert answers - box.of_pool(stats.P_LATER, pool) + went_on == first
        assert box.answers(5, pool) - box.of_pool(stats.P_LATER_5XX, pool) + went_on == failed


async def test_a_failure_of_the_rescuer_counts_against_both(box: Box) -> None:
    green, blue = Failing(), Failing("close")
    await on_trial(box, [await box.endpoint(green)], [await box.endpoint(blue)])
    box.grant(10)
    assert (await (await box.client()).request("/")).status == 502
    assert (box.failures("reset", "green"), box.failures("reset", "blue")) == (1, 1)
    assert (box.retries("rescued"), box.retries("failed")) == (0, 1)
    assert box.of_pool(stats.P_LATER_5XX, "blue") == box.of_pool(stats.P_WENT_ON, "green") == 1


async def test_without_rescue_a_release_on_trial_must_help_itself(box: Box) -> None:
    bad, other, good = Failing(), Good(), Good()
    green = [await box.endpoint(bad), await box.endpoint(other)]
    await on_trial(box, green, [await box.endpoint(good)], retry=Retries(rescue=False))
    box.grant(1)
    assert (await (await box.client()).request("/")).status == 200
    assert seen(bad, other, good) == [1, 1, 0]
    assert (box.retries("rescued"), box.retries("retried")) == (0, 1)


@pytest.mark.parametrize(
    ("share", "rescue", "status"), [(1, True, 200), (0, True, 502), (1, False, 502)]
)
async def test_the_pool_in_charge_is_rescued_only_by_a_pool_with_weight(
    box: Box, share: int, *, rescue: bool, status: int
) -> None:
    bad, good = Failing(), Good()
    blue, green = await box.endpoint(bad), await box.endpoint(good)
    pools = (box.pool("blue", [blue], WHOLE - share), box.pool("green", [green], share))
    await box.apply(box.shop(*pools, retry=Retries(rescue=rescue)))
    live = box.plane.table.services[0]
    live.sequence = Sequence(next(n for n in range(9) if live.split.index(Sequence(n).next()) == 0))
    box.grant(1)
    assert (await (await box.client()).request("/")).status == status
    assert seen(bad, good) == [1, int(status == 200)]
    assert box.retries("rescued") == int(status == 200)


PREVIEW = Preview(header="X-Preview", cookie="preview", secret="s")


@pytest.mark.parametrize("endpoints", [1, 2])
async def test_a_preview_stays_in_its_pool(box: Box, endpoints: int) -> None:
    bad, other, good = Failing(), Good(), Good()
    green = [await box.endpoint(play) for play in (bad, other)][:endpoints]
    await on_trial(box, green, [await box.endpoint(good)], preview=PREVIEW)
    box.grant(1)
    answer = await (await box.client()).request("/", headers={"X-Preview": "s:green"})
    assert answer.status == (200 if endpoints == 2 else 502)
    assert seen(bad, other, good) == [1, endpoints - 1, 0]


COOKIE = Sticky(by="cookie", name="turnout", keys=("00" * 32,))


async def bound(box: Box) -> str:
    wire = await box.client()
    answer = await wire.request("/bind")
    return str(answer.header("set-cookie")).partition(";")[0]


async def test_a_rescued_client_keeps_its_cookie_and_its_pool(box: Box) -> None:
    flaky, good = Flaky(), Good()
    await on_trial(box, [await box.endpoint(flaky)], [await box.endpoint(good)], sticky=COOKIE)
    box.grant(10)
    cookie = await bound(box)
    flaky.is_broken = True
    wire = await box.client()
    rescued = await wire.request("/2", headers={"Cookie": cookie})
    assert (rescued.status, rescued.header("set-cookie")) == (200, None)
    assert seen(good) == [1]
    flaky.is_broken = False
    again = await wire.request("/3", headers={"Cookie": cookie})
    assert (again.status, again.header("set-cookie")) == (200, None)
    assert seen(good) == [1], "its own pool answers again"


async def test_a_new_client_is_not_bound_by_a_failure(box: Box) -> None:
    await on_trial(box, [await box.endpoint(Failing())], [await box.endpoint()], sticky=COOKIE)
    box.grant(1)
    answer = await (await box.client()).request("/")
    assert (answer.status, answer.header("set-cookie")) == (200, None)


async def test_a_bound_client_that_is_to_fail_with_its_pool_is_not_rescued(box: Box) -> None:
    flaky, good = Flaky(), Good()
    sticky = Sticky(by="cookie", name="turnout", keys=("00" * 32,), on_unavailable="fail")
    await on_trial(box, [await box.endpoint(flaky)], [await box.endpoint(good)], sticky=sticky)
    box.grant(10)
    cookie = await bound(box)
    flaky.is_broken = True
    answer = await (await box.client()).request("/2", headers={"Cookie": cookie})
    assert answer.status == 502
    assert seen(good) == [0]


async def test_a_client_that_finishes_its_session_stays_in_its_old_pool(box: Box) -> None:
    """Blue is the old release, not one on trial: another endpoint of it knows the session."""
    flaky, other, good = Flaky(), Good(), Good()
    blue = [await box.endpoint(flaky), await box.endpoint(other)]
    green = await box.endpoint(good)
    finish = Sticky(by="cookie", name="turnout", keys=("00" * 32,), on_zero="finish")
    more = {"sticky": finish, "balance": "round_robin"}
    await box.apply(box.shop(box.pool("blue", blue, WHOLE), box.pool("green", [green], 0), **more))
    box.grant(10)
    cookie = await bound(box)
    flaky.is_broken = True
    now = box.plane.clock.now
    drain = Drain(since_s=now, requests_by_s=now + 60, streams_by_s=now + 60)
    pools = (box.pool("blue", blue, 0, drain=drain), box.pool("green", [green], WHOLE))
    await box.apply(box.shop(*pools, active="green", **more))
    wire = await box.client()
    for _ in range(4):
        assert (await wire.request("/2", headers={"Cookie": cookie})).status == 200
    assert seen(good) == [0]
    assert box.retries("retried") >= 1


async def test_a_retry_follows_the_newest_snapshot(box: Box) -> None:
    async def waits(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await go.wait()
        peer.abort()

    asked, go, good, other = asyncio.Event(), asyncio.Event(), Good(), Good()
    blue = [await box.endpoint(waits), await box.endpoint(other)]
    green = [await box.endpoint(good)]
    await box.apply(
        box.shop(box.pool("blue", blue, WHOLE), box.pool("green", green, 0), balance="round_robin")
    )
    box.grant(1)
    wire = await box.client()
    await wire.send(request_bytes("/"))
    await asked.wait()
    pools: tuple[Pool, Pool] = (box.pool("blue", blue, 0), box.pool("green", green, WHOLE))
    await box.apply(box.shop(*pools, active="green", balance="round_robin"))
    go.set()
    assert (await wire.answer()).status == 200
    assert seen(other, good) == [0, 1]


# ---- endpoints that fall silent ----


@pytest.mark.parametrize("bit", [stats.DOWN, stats.EJECTED])
async def test_a_request_is_taken_from_an_endpoint_that_went_down_while_it_waits(
    box: Box, bit: int
) -> None:
    frozen, good = Failing("silent"), Good()
    await two(box, frozen, good, timeouts=Timeouts(response_s=30.0))
    box.grant(1)
    wire = await box.client()
    await wire.send(request_bytes("/"))
    await until(lambda: seen(frozen) == [1], "it waits")
    box.board.mark(box.live(box.endpoints[0]).slot, bit, on=True)
    box.board.publish()
    assert (await wire.answer()).status == 200
    assert box.failures("timeout") == 1
    assert box.of_endpoint(box.endpoints[0], stats.E_FAILURES) == 1
    assert seen(frozen, good) == [1, 1]


@pytest.mark.parametrize(("method", "granted"), [("POST", 5), ("GET", 0)])
async def test_what_may_not_be_tried_elsewhere_waits_on_at_an_endpoint_that_is_down(
    box: Box, method: str, granted: int
) -> None:
    async def slow(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.send(OK)

    go, other = asyncio.Event(), Good()
    await box.serve(await box.endpoint(slow), await box.endpoint(other), balance="round_robin")
    box.grant(granted)
    wire = await box.client()
    await wire.send(request_bytes("/", method=method))
    await until(lambda: box.endpoints[0].connections, "it waits")
    box.board.mark(box.live(box.endpoints[0]).slot, stats.DOWN, on=True)
    box.board.publish()
    assert await wire.stays_open(1.5)
    go.set()
    assert box.failures("timeout") == 0
    assert box.retries("no_budget") == 0, "nobody was turned away"
    await until(lambda: box.answers(2) == 1, "it is answered after all")
    assert seen(other) == [0]


# ---- nobody else is available ----


async def test_an_endpoint_that_was_unreachable_a_moment_ago_may_have_the_retry(box: Box) -> None:
    bad, back = Failing(), Good()
    await two(box, bad, back)
    box.grant(1)
    box.live(box.endpoints[1]).failed_to_connect(box.plane.clock.now)
    assert (await (await box.client()).request("/")).status == 200
    assert seen(bad, back) == [1, 1]
    assert box.retries("retried") == 1


@pytest.mark.parametrize(("panic", "status", "asked"), [(WHOLE // 2, 200, 1), (None, 502, 0)])
async def test_in_panic_an_endpoint_that_is_ejected_may_have_the_retry(
    box: Box, panic: int | None, status: int, asked: int
) -> None:
    bad, ejected = Failing(), Good()
    members = [await box.endpoint(play) for play in (bad, ejected)]
    await box.serve(*members, balance="round_robin", panic=panic)
    box.grant(1)
    live = box.live(members[1])
    box.board.mark(live.slot, stats.EJECTED, on=True)
    box.board.publish()
    await until(lambda: live.state, "the worker has seen it")
    assert (await (await box.client()).request("/")).status == status
    assert seen(bad, ejected) == [1, asked]


async def test_panic_takes_no_request_from_an_endpoint_that_may_come_back(box: Box) -> None:
    frozen, down = Failing("silent"), Good()
    members = [await box.endpoint(play) for play in (frozen, down, down)]
    await box.serve(*members, balance="round_robin", timeouts=Timeouts(response_s=30.0))
    box.grant(1)
    wire = await box.client()
    await wire.send(request_bytes("/"))
    await until(lambda: seen(frozen) == [1], "it waits")
    for member in members:
        box.board.mark(box.live(member).slot, stats.DOWN, on=True)
    box.board.publish()
    assert await wire.stays_open(1.5)
    assert seen(frozen, down) == [1, 0]


# ---- the ends ----


async def test_a_client_that_leaves_during_a_retry_leaves_nothing_behind(box: Box) -> None:
    silent = Failing("silent")
    await two(box, Failing(), silent)
    box.grant(1)
    wire = await box.client()
    await wire.send(request_bytes("/"))
    await until(lambda: seen(silent) == [1], "the second endpoint is asked")
    wire.close()
    await until(lambda: not any(box.in_flight()), "it is not in flight any more")
    assert [box.retries(outcome) for outcome in stats.RETRY_OUTCOMES] == [0, 0, 0, 0]
    assert (box.of_service(stats.S_RETRIES), box.answers(4)) == (1, 1)


async def test_a_retry_whose_endpoint_cannot_be_connected_to_goes_on(box: Box) -> None:
    bad, dead, good = Failing(), await box.endpoint(), Good()
    await box.serve(await box.endpoint(bad), dead, await box.endpoint(good), balance="round_robin")
    dead.refuse()
    box.grant(1)
    assert (await (await box.client()).request("/")).status == 200
    assert seen(bad, good) == [1, 1]
    assert (box.retries("retried"), box.of_pool(stats.P_PASSED_OVER)) == (1, 1)


async def test_the_access_log_tells_of_the_first_failure(box: Box, tmp_path: Path) -> None:
    bad = await box.endpoint(Failing())
    pool = box.pool("blue", [bad, await box.endpoint(always_ok)], WHOLE)
    log = AccessLog(path=str(tmp_path / "log"))
    await box.apply(box.shop(pool, balance="round_robin"), access_log=log)
    box.grant(1)
    wire = await box.client()
    await wire.request("/1")
    await wire.request("/2", method="PUT", body=b"x")
    await until(lambda: box.words[stats.W_LOG_WRITTEN] >= 1, "the first line is written")
    line = json.loads((tmp_path / "log").read_bytes().splitlines()[0])
    assert (line["status"], line["attempts"]) == (200, 2)
    assert line["first_failure"] == {"endpoint": bad.address, "error": "connection_terminated"}
