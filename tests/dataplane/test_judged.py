"""What counts against a release, and what does not, each shown on a real connection."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any, NamedTuple
from zlib import crc32

import pytest

from proxy import stats
from proxy.model import WHOLE, Drain, Hold, Limits, Preview, Retries, Sticky, Timeouts
from tests.dataplane.box import OK, Box, Peer, Play, Scripted, always_ok, until
from tests.dataplane.test_exchange import Mortal, request_while_it_dies
from tests.dataplane.test_retry import KINDS, QUICK, Failing, fail, on_trial
from tests.dataplane.test_room import Gate, ask
from tests.dataplane.test_tunnel import ASK, echo
from tests.e2e.wire import Wire, WireError, request_bytes

COOKIE = Sticky(by="cookie", name="turnout", keys=("00" * 32,))
EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: a\n\n\r\n"
)


class Tally(NamedTuple):
    """Sums over a pool's client buckets."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    timed: int = 0


NOTHING = Tally()
FINE = Tally(requests=1, timed=1)
BAD = Tally(requests=1, errors=1)
BROKEN_OFF = Tally(requests=1, errors=1, timed=1)
"""An error whose head had been in time."""


def tally(box: Box, pool: str = "blue") -> Tally:
    requests, errors, refused, untimed = (
        sum(by_bucket(box, word, pool))
        for word in (stats.J_REQUESTS, stats.J_ERRORS, stats.J_REFUSED, stats.J_UNTIMED)
    )
    counted = Tally(requests, errors, refused, requests - untimed)
    assert sum(latencies(box, pool)) == counted.timed, "the histogram has as many"
    return counted


def by_bucket(box: Box, word: int, pool: str = "blue") -> list[int]:
    first = stats.P_JUDGED + word
    return [box.of_pool(first + number, pool) for number in range(stats.JUDGE_BUCKETS)]


def used(box: Box, pool: str = "blue") -> dict[int, int]:
    """Client buckets with requests, and how many they have."""
    counted = enumerate(by_bucket(box, stats.J_REQUESTS, pool))
    return {bucket: count for bucket, count in counted if count}


def latencies(box: Box, pool: str = "blue") -> list[int]:
    first = stats.P_JUDGED + stats.J_LATENCIES
    return [box.of_pool(first + number, pool) for number in range(stats.BINS)]


def is_slower(box: Box, seconds: float, pool: str = "blue") -> bool:
    """Whether every latency entered is at least so long, to a bin."""
    return not any(latencies(box, pool)[: stats.latency_bin(seconds)])


def set_thresholds(box: Box, *, slow_s: float = 0.0, stall_s: float = 0.0) -> None:
    slot = box.service_slot()
    box.board.words[slot + stats.B_SLOW_MS] = int(slow_s * 1000)
    box.board.words[slot + stats.B_STALL_MS] = int(stall_s * 1000)


def says(answer: bytes, *, then_closes: bool = False, after_s: float = 0.0) -> Play:
    async def play(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(after_s)
            await peer.send(answer)
            if then_closes:
                return

    return play


def status(code: int, *, chunked: bool = False) -> bytes:
    framing = b"Transfer-Encoding: chunked\r\n\r\n0\r\n" if chunked else b"Content-Length: 0\r\n"
    return b"HTTP/1.1 %d Such\r\n%b\r\n" % (code, framing)


async def deaf(peer: Peer) -> None:
    """Take a request, and never answer."""
    await peer.head()
    await peer.gone()


async def dead(box: Box) -> Scripted:
    """An endpoint's address at which nobody listens."""
    endpoint = await box.endpoint()
    endpoint.refuse()
    return endpoint


async def serve(box: Box, play: Play, **service: Any) -> Wire:
    """A client of the service whose pool blue has this one endpoint."""
    await box.serve(await box.endpoint(play), **service)
    return await box.client()


async def gone(box: Box) -> None:
    await until(lambda: not box.plane.connections, "the plane knows that its clients have gone")


# ---- the endpoint's failures ----


@pytest.mark.parametrize("kind", KINDS)
async def test_an_attempt_that_ends_without_an_answer_is_an_error(box: Box, kind: str) -> None:
    wire = await serve(box, Failing(kind), timeouts=QUICK)
    assert (await wire.request("/", method="POST")).status in {502, 504}
    assert tally(box) == BAD


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_from_which_the_other_pool_saved_the_user_is_one_all_the_same(
    box: Box, kind: str
) -> None:
    green, blue = await box.endpoint(Failing(kind)), await box.endpoint()
    await on_trial(box, [green], [blue], timeouts=QUICK)
    box.grant(1)
    assert (await (await box.client()).request("/")).status == 200
    assert tally(box, "green") == BAD
    assert tally(box, "blue") == FINE, "it is the first attempt there"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_retry_on_the_same_pool_is_no_second_request(box: Box, kind: str) -> None:
    endpoints = [await box.endpoint(Failing(kind)), await box.endpoint()]
    await box.serve(*endpoints, balance="round_robin", timeouts=QUICK)
    box.grant(1)
    assert (await (await box.client()).request("/")).status == 200
    assert tally(box) == BAD


async def test_endpoints_that_cannot_be_connected_to_are_one_error_of_their_pool(box: Box) -> None:
    await on_trial(box, [await dead(box), await dead(box)], [await box.endpoint()])
    assert (await (await box.client()).request("/", method="POST")).status == 200
    assert box.failures("connect", "green") == 2
    assert tally(box, "green") == BAD
    assert tally(box, "blue") == FINE


async def test_one_of_two_that_cannot_be_connected_to_is_one_error_though_the_other_answers(
    box: Box,
) -> None:
    await box.serve(await dead(box), await box.endpoint(), balance="round_robin")
    wire = await box.client()
    assert [(await wire.request("/")).status for _ in range(2)] == [200] * 2
    assert tally(box) == Tally(requests=2, errors=1, timed=1)


class Names:
    """A name service without an answer: it says so, or never does."""

    def __init__(self) -> None:
        self.is_silent = False

    async def __call__(self, _: str, __: int) -> list[str]:
        if self.is_silent:
            await asyncio.sleep(60)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_name_that_is_not_resolved_is_an_error(*, is_silent: bool) -> None:
    names = Names()
    names.is_silent = is_silent
    box = Box(resolve=names)
    try:
        timeouts = Timeouts(connect_s=0.1 if is_silent else 10.0)
        await box.serve("app.example.com:80", timeouts=timeouts)
        answer = await (await box.client()).request("/")
        assert answer.status == (504 if is_silent else 502)
        assert tally(box) == BAD
    finally:
        await box.end()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    ],
)
async def test_an_answer_that_breaks_off_is_an_error(box: Box, answer: bytes) -> None:
    wire = await serve(box, says(answer, then_closes=True))
    with pytest.raises(WireError):
        await wire.request("/")
    assert tally(box) == BROKEN_OFF


async def test_an_answer_whose_fault_shows_before_it_is_passed_on_is_one_error(box: Box) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"
    wire = await serve(box, says(answer, then_closes=True))
    assert (await wire.request("/")).status == 502
    assert tally(box) == BROKEN_OFF


async def test_an_answer_that_is_reset_in_its_body_is_an_error(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await fail(peer, "reset")

    wire = await serve(box, play)
    with pytest.raises(WireError):
        await wire.request("/")
    assert tally(box).errors == 1


async def test_an_answer_that_stalls_in_its_body_is_an_error(box: Box) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
    wire = await serve(box, says(half), timeouts=Timeouts(read_stall_s=0.2))
    with pytest.raises(WireError):
        await wire.request("/")
    assert tally(box) == BROKEN_OFF


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("code", [500, 501, 503])
async def test_a_5xx_of_the_endpoint_is_an_error_without_a_latency(
    box: Box, code: int, *, chunked: bool
) -> None:
    wire = await serve(box, says(status(code, chunked=chunked)))
    assert (await wire.request("/")).status == code
    assert tally(box) == BAD


async def test_a_5xx_that_breaks_off_is_one_error(box: Box) -> None:
    half = b"HTTP/1.1 500 Such\r\nContent-Length: 9\r\n\r\nhalf"
    wire = await serve(box, says(half, then_closes=True))
    with pytest.raises(WireError):
        await wire.request("/")
    assert tally(box) == BAD


# ---- the client's side ----


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("code", [400, 401, 404, 429])
async def test_a_4xx_of_the_endpoint_is_counted_apart_and_is_no_error(
    box: Box, code: int, *, chunked: bool
) -> None:
    wire = await serve(box, says(status(code, chunked=chunked)))
    assert (await wire.request("/")).status == code
    assert tally(box) == Tally(requests=1, refused=1, timed=1)


@pytest.mark.parametrize("slow_s", [0.0, 0.8, 60.0])
async def test_a_client_that_leaves_soon_is_not_counted(box: Box, slow_s: float) -> None:
    """Not even if it takes us longer to be sure that it has left."""
    wire = await serve(box, deaf)
    set_thresholds(box, slow_s=slow_s)
    await wire.send(request_bytes("/"))
    await until(lambda: any(box.in_flight()), "it is asked")
    wire.close()
    await gone(box)
    assert box.answers(4) == 1
    assert tally(box) == NOTHING


async def test_a_client_that_leaves_late_is_a_latency_and_no_request(box: Box) -> None:
    wire = await serve(box, deaf)
    set_thresholds(box, slow_s=0.1)
    await wire.send(request_bytes("/"))
    await asyncio.sleep(0.15)
    wire.close()
    await gone(box)
    assert tally(box) == Tally(timed=1)
    assert is_slower(box, 0.1)


async def test_a_client_that_leaves_in_the_middle_of_its_upload_was_not_kept_waiting(
    box: Box,
) -> None:
    wire = await serve(box, deaf)
    set_thresholds(box, slow_s=0.05, stall_s=0.05)
    await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
    await until(lambda: sum(box.in_flight()) >= 1, "the endpoint has it")
    await asyncio.sleep(0.3)
    wire.close()
    await gone(box)
    assert tally(box) == NOTHING


async def test_a_client_that_leaves_in_the_answer_has_had_its_head(box: Box) -> None:
    async def dribble(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            await peer.send(b"x")
            await asyncio.sleep(0.01)

    wire = await serve(box, dribble)
    set_thresholds(box, slow_s=0.001)
    await wire.send(request_bytes("/"))
    assert (await wire.head()).status == 200
    wire.close()
    await gone(box)
    assert tally(box) == FINE


async def test_a_client_that_does_not_read_is_no_error(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 9_000_000)

    await box.serve(await box.endpoint(play), listener={"idle_s": 0.3})
    wire = await box.client(receive=4096)
    await wire.send(request_bytes("/"))
    await until(lambda: tally(box) == FINE, "it has an answer")
    await until(lambda: not any(box.in_flight()), "it is cut")
    assert tally(box) == FINE


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * 40_000), 431),
    ],
)
async def test_what_we_refuse_for_the_request_itself_is_not_counted(
    box: Box, request_: bytes, code: int
) -> None:
    wire = await serve(box, always_ok, max_body=10)
    await wire.send(request_)
    assert (await wire.answer()).status == code
    assert tally(box) == NOTHING


async def test_an_upload_that_is_too_slow_or_grows_too_large_is_not_counted(box: Box) -> None:
    wire = await serve(box, deaf, max_body=10, timeouts=Timeouts(client_body_s=0.2))
    await wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
    assert (await wire.answer()).status == 408
    wire = await box.client()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    await wire.send(head + b"b\r\n" + b"x" * 11 + b"\r\n")
    assert (await wire.answer()).status == 413
    assert tally(box) == NOTHING


# ---- what we do ourselves ----


@pytest.mark.parametrize("limits", [Limits(rate=1), Limits(concurrency=1)])
async def test_a_request_over_a_limit_of_the_service_is_not_counted(
    box: Box, limits: Limits
) -> None:
    wire = await serve(box, always_ok, limits=limits)
    assert (await wire.request("/")).status in {429, 503}
    assert tally(box) == NOTHING


async def test_a_request_over_what_a_pool_can_take_is_not_counted(box: Box) -> None:
    wire = await serve(box, always_ok, limits=Limits(adaptive=True))
    assert (await wire.request("/")).status == 503
    assert tally(box) == NOTHING


async def test_requests_that_wait_in_vain_for_a_connection_are_not_counted(box: Box) -> None:
    gate = Gate()
    endpoint = await box.endpoint(gate)
    box.deal(box.member("blue", endpoint).slot, stats.LOT_CONNECTIONS, 1)
    await box.serve(endpoint, limits=Limits(connections=1, pending=2, pending_s=1.5))
    set_thresholds(box, slow_s=0.01, stall_s=0.1)
    (first,) = await ask(box, 1)
    await until(lambda: gate.asked == 1, "the connection is taken")
    leaving, waiting = await ask(box, 2)
    await until(lambda: box.of_endpoint(endpoint, stats.E_PENDING) == 2, "two wait")
    assert (await (await box.client()).request("/")).status == 503, "no room to wait"
    leaving.close()
    assert (await waiting.answer()).status == 503, "waited too long"
    gate.release()
    assert (await first.answer()).status == 200
    assert tally(box) == FINE


async def test_what_a_hold_refuses_is_not_counted_and_what_it_lets_go_is_not_slow(
    box: Box,
) -> None:
    endpoint = await box.endpoint()
    box.deal(box.service_slot(), stats.LOT_HELD, 2)
    await box.serve(endpoint, hold=Hold(since_s=time.monotonic(), timeout_s=0.2))
    assert (await (await box.client()).request("/")).status == 503
    assert tally(box) == NOTHING
    await box.serve(endpoint, hold=Hold(since_s=time.monotonic()))
    wire = await box.client()
    await wire.send(request_bytes("/"))
    await until(lambda: box.of_service(stats.S_HELD) == 1, "it is held")
    await asyncio.sleep(1.5)
    await box.serve(endpoint)
    assert (await wire.answer()).status == 200
    assert tally(box) == FINE
    assert not is_slower(box, 1.4)


async def test_what_our_drain_cuts_is_not_counted(box: Box) -> None:
    async def play(peer: Peer) -> None:
        if b" /half " in await peer.request():
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await peer.gone()

    blue, green = await box.endpoint(play), await box.endpoint()
    await box.apply(box.shop(box.pool("blue", [blue], WHOLE), box.pool("green", [green], 0)))
    silent, half = await box.client(), await box.client()
    await silent.send(request_bytes("/"))
    await half.send(request_bytes("/half"))
    assert (await half.head()).status == 200
    now = time.monotonic()
    drain = Drain(since_s=now, requests_by_s=now, streams_by_s=now)
    pools = box.pool("blue", [blue], 0, drain=drain), box.pool("green", [green], WHOLE)
    await box.apply(box.shop(*pools, active="green"))
    assert (await silent.answer()).status == 503
    await until(lambda: not any(box.in_flight()), "both are cut")
    assert tally(box) == FINE, "the head that came"


@pytest.mark.parametrize("play", [always_ok, Failing(), says(status(500))])
async def test_previews_are_not_counted(box: Box, play: Play) -> None:
    blue, green = await box.endpoint(), await box.endpoint(play)
    preview = Preview(header="X-Preview", cookie="preview", secret="s" * 20)
    pools = box.pool("blue", [blue], WHOLE), box.pool("green", [green], 0)
    await box.apply(box.shop(*pools, preview=preview))
    wire = await box.client()
    await wire.request("/", headers={"X-Preview": "s" * 20 + ":green"})
    assert len(green.peers) == 1
    assert tally(box, "green") == tally(box, "blue") == NOTHING


async def test_a_kept_connection_that_had_died_is_no_error(box: Box) -> None:
    script = Mortal()
    wire = await serve(box, script)
    assert (await wire.request("/")).status == 200
    assert (await request_while_it_dies(script.peers, wire, "/")).status == 200
    assert box.of_pool(stats.P_STALE) == 1
    assert tally(box) == Tally(requests=2, timed=2)


async def test_a_kept_connection_that_is_closed_on_a_request_is_an_error_though_it_is_spared(
    box: Box,
) -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()

    wire = await serve(box, once)
    box.grant(1)
    assert [(await wire.request("/")).status for _ in range(2)] == [200] * 2
    assert box.of_pool(stats.P_STALE) == 0
    found = tally(box)
    assert (found.requests, found.errors) == (2, 1)


# ---- nobody available ----


def take_down(box: Box, endpoint: Scripted, pool: str) -> None:
    box.board.mark(box.member(pool, endpoint).slot, stats.DOWN, on=True)
    box.board.publish()


async def test_a_pool_with_nobody_available_has_failed_whoever_helps_out(box: Box) -> None:
    green, blue = await box.endpoint(), await box.endpoint()
    take_down(box, green, "green")
    await on_trial(box, [green], [blue])
    assert (await (await box.client()).request("/")).status == 200
    assert tally(box, "green") == BAD
    assert tally(box, "blue") == FINE


@pytest.mark.parametrize("code", [200, 500])
async def test_in_panic_the_answer_is_what_counts(box: Box, code: int) -> None:
    green, blue = await box.endpoint(says(status(code))), await box.endpoint()
    take_down(box, green, "green")
    take_down(box, blue, "blue")
    await on_trial(box, [green], [blue], panic=0)
    assert (await (await box.client()).request("/")).status == code
    assert tally(box, "green") == (FINE if code == 200 else BAD)
    assert tally(box, "blue") == NOTHING


async def test_a_503_because_a_pool_has_nobody_is_an_error_of_that_pool(box: Box) -> None:
    green, blue = await box.endpoint(), await box.endpoint()
    take_down(box, green, "green")
    take_down(box, blue, "blue")
    await on_trial(box, [green], [blue], panic=None)
    assert (await (await box.client()).request("/")).status == 503
    assert (tally(box, "green"), tally(box, "blue")) == (BAD, NOTHING)


async def test_a_preview_of_a_pool_with_nobody_is_not_counted(box: Box) -> None:
    green, blue = await box.endpoint(), await box.endpoint()
    take_down(box, green, "green")
    preview = Preview(header="X-Preview", cookie="preview", secret="s" * 20)
    await on_trial(box, [green], [blue], preview=preview, panic=None)
    wire = await box.client()
    assert (await wire.request("/", headers={"X-Preview": "s" * 20 + ":green"})).status == 503
    assert tally(box, "green") == tally(box, "blue") == NOTHING


# ---- first attempts ----


async def test_a_second_attempt_on_either_pool_is_not_counted(box: Box) -> None:
    plays = {name: Failing() for name in ("green 1", "green 2", "blue 1", "blue 2")}
    ends = {name: await box.endpoint(play) for name, play in plays.items()}
    green, blue = [ends["green 1"], ends["green 2"]], [ends["blue 1"], ends["blue 2"]]
    await on_trial(box, green, blue, retry=Retries(attempts=3))
    box.grant(10)
    assert (await (await box.client()).request("/")).status == 502
    assert sum(len(play.requests) for play in plays.values()) == 4
    assert (tally(box, "green"), tally(box, "blue")) == (BAD, BAD)


async def test_the_rescuer_is_not_as_slow_as_the_one_it_helps(box: Box) -> None:
    green, blue = await box.endpoint(deaf), await box.endpoint()
    await on_trial(box, [green], [blue], timeouts=Timeouts(response_s=1.0))
    set_thresholds(box, stall_s=0.1)
    box.grant(1)
    assert (await (await box.client()).request("/")).status == 200
    assert tally(box, "green") == BROKEN_OFF, "entered once it hung, and then an error"
    assert is_slower(box, 0.1, "green")
    assert tally(box, "blue") == FINE
    assert not is_slower(box, 1.0, "blue")


# ---- latency ----


async def test_an_attempt_that_hangs_is_entered_once_and_its_answer_counts(box: Box) -> None:
    gate = Gate()
    wire = await serve(box, gate)
    set_thresholds(box, stall_s=0.1)
    await wire.send(request_bytes("/"))
    await until(lambda: tally(box) == Tally(timed=1), "it hangs")
    await asyncio.sleep(0.3)  # the sweep comes by again
    assert tally(box) == Tally(timed=1)
    assert is_slower(box, 0.1)
    gate.release()
    assert (await wire.answer()).status == 200
    assert tally(box) == FINE


async def test_a_client_that_leaves_what_hangs_is_entered_once(box: Box) -> None:
    wire = await serve(box, deaf)
    set_thresholds(box, slow_s=0.05, stall_s=0.1)
    await wire.send(request_bytes("/"))
    await until(lambda: tally(box) == Tally(timed=1), "it hangs")
    wire.close()
    await gone(box)
    assert tally(box) == Tally(timed=1)


async def test_an_event_stream_is_judged_by_its_head_alone(box: Box) -> None:
    wire = await serve(box, says(EVENTS, then_closes=True))
    await wire.send(request_bytes("/"))
    assert (await wire.head()).status == 200
    await wire.rest()
    await until(lambda: box.failures("truncated"), "the end that was none is seen")
    assert tally(box) == FINE


async def test_a_tunnel_is_judged_by_its_101_alone(box: Box) -> None:
    wire = await serve(box, echo)
    await wire.send(ASK)
    assert (await wire.answer()).status == 101
    assert tally(box) == FINE
    wire.close()
    await until(lambda: not any(box.in_flight()), "it is over")
    assert tally(box) == FINE


async def test_an_upgrade_that_is_refused_is_an_answer_like_others(box: Box) -> None:
    wire = await serve(box, says(status(403)))
    await wire.send(ASK)
    assert (await wire.answer()).status == 403
    assert tally(box) == Tally(requests=1, refused=1, timed=1)


@pytest.mark.parametrize("is_slow_to_end", [False, True])
@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.13])
async def test_the_latency_is_the_time_to_the_head(
    box: Box, delay_s: float, *, is_slow_to_end: bool
) -> None:
    """Between what the endpoint took at least and what the client saw at most, to a bin."""

    async def play(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(delay_s)
        if is_slow_to_end:
            await peer.send(OK[:-1])
            await asyncio.sleep(0.3)
            await peer.send(OK[-1:])
        else:
            await peer.send(OK)
        await peer.gone()

    wire = await serve(box, play)
    began = time.monotonic()
    await wire.send(request_bytes("/"))
    await wire.head()
    most_s = time.monotonic() - began
    await until(lambda: tally(box) == FINE, "it is entered")
    (place,) = (index for index, count in enumerate(latencies(box)) if count)
    least_s = max(delay_s - 0.002, 1e-6)  # timers may be a tick early
    assert stats.latency_bin(least_s) <= place <= stats.latency_bin(most_s)
    assert sum(by_bucket(box, stats.J_LOG_SUMS)) == place
    assert sum(by_bucket(box, stats.J_LOG_SQUARES)) == place * place


# ---- client buckets ----


async def test_a_client_with_a_cookie_is_always_in_the_same_bucket(box: Box) -> None:
    await box.serve(await box.endpoint(), sticky=COOKIE)
    first = await (await box.client()).request("/")
    cookie = (first.header("set-cookie") or "").partition(";")[0]
    (bucket,) = used(box)
    for _ in range(3):
        wire = await box.client()
        for _ in range(3):
            await wire.request("/", headers={"Cookie": cookie})
    assert used(box) == {bucket: 10}


async def test_clients_with_cookies_are_spread_over_the_buckets(box: Box) -> None:
    wire = await serve(box, always_ok, sticky=COOKIE)
    for _ in range(200):
        await wire.request("/")
    assert len(used(box)) > 24


async def test_the_same_client_is_in_the_same_bucket_of_both_pools(box: Box) -> None:
    green, blue = await box.endpoint(Failing()), await box.endpoint()
    sticky = Sticky(by="header", name="X-User", keys=("00" * 32,))
    await on_trial(box, [green], [blue], sticky=sticky)
    box.grant(1)
    wire = await box.client()
    assert (await wire.request("/", headers={"X-User": "42"})).status == 200
    (bucket,) = used(box, "green")
    assert used(box, "blue") == {bucket: 1}
    errors = by_bucket(box, stats.J_ERRORS, "green")
    assert errors[bucket] == 1


async def test_without_stickiness_a_client_is_known_by_its_address(box: Box) -> None:
    await box.serve(await box.endpoint())
    for source in ("127.0.0.1", "127.0.0.2", "127.0.0.2"):
        wire = await Wire.to(box.port, source=source)
        await wire.request("/", headers={"X-Forwarded-For": "203.0.113.9"})
        wire.close()
    expected = {crc32(b"127.0.0.1") % 32: 1, crc32(b"127.0.0.2") % 32: 2}
    assert used(box) == expected


async def test_behind_a_trusted_proxy_a_client_is_whom_that_names(box: Box) -> None:
    await box.serve(await box.endpoint(), listener={"trusted_proxies": ("127.0.0.0/8",)})
    wire = await box.client()
    clients = [f"203.0.113.{number}" for number in range(20)]
    for client in clients:
        await wire.request("/", headers={"X-Forwarded-For": f"198.51.100.1, {client}"})
    expected: dict[int, int] = {}
    for client in clients:
        bucket = crc32(client.encode()) % stats.JUDGE_BUCKETS
        expected[bucket] = expected.get(bucket, 0) + 1
    assert used(box) == expected
