"""Room at endpoints: never more connections than this worker's share, and a bounded queue for them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from proxy import stats
from proxy.dataplane import upstream
from proxy.model import WHOLE, Drain, Limits, Sticky
from tests.dataplane.box import OK, Box, Peer, Scripted, until
from tests.dataplane.test_retry import fail
from tests.dataplane.test_tunnel import ASK, echo
from tests.e2e.wire import Answer, Wire, request_bytes

GET = request_bytes("/")
DRAIN = Drain(since_s=0, requests_by_s=1e9, streams_by_s=1e9)


class Gate:
    """A script that answers a request only when it is let go; it counts what stands open."""

    def __init__(self, answer: bytes = OK) -> None:
        self.go = asyncio.Semaphore(0)
        self.asked = 0
        self.open = 0
        self.most = 0
        self._answer = answer

    async def __call__(self, peer: Peer) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            while True:
                await peer.request()
                self.asked += 1
                await self.go.acquire()
                await peer.send(self._answer)
        finally:
            self.open -= 1

    def release(self, count: int = 1) -> None:
        for _ in range(count):
            self.go.release()


async def limited(
    box: Box, *endpoints: Scripted, share: int = 1, pending: int = 2, pending_s: float = 5.0
) -> None:
    await box.serve(
        *(give(box, each, share) for each in endpoints), limits=bounds(pending, pending_s)
    )


def bounds(pending: int = 2, pending_s: float = 5.0) -> Limits:
    return Limits(connections=1, pending=pending, pending_s=pending_s)


def give(box: Box, endpoint: Scripted, share: int, pool: str = "blue") -> Scripted:
    box.deal(box.member(pool, endpoint).slot, stats.LOT_CONNECTIONS, share)
    return endpoint


async def ask(box: Box, count: int, request: bytes = GET) -> list[Wire]:
    """That many requests, each on a connection of its own."""
    wires = [await box.client() for _ in range(count)]
    for wire in wires:
        await wire.send(request)
    return wires


def pending(box: Box, endpoint: Scripted) -> int:
    return box.of_endpoint(endpoint, stats.E_PENDING)


def limited_total(box: Box, reason: str = "pending") -> int:
    return box.of_service(stats.S_LIMITED + stats.LIMITS.index(reason))


def is_full(answer: Answer) -> bool:
    return (
        answer.status == 503
        and answer.header("retry-after") == "1"
        and "connection_limit_reached" in (answer.header("proxy-status") or "")
    )


async def test_requests_beyond_the_connections_wait_and_are_served_in_turn(box: Box) -> None:
    gate = Gate()
    endpoint = await box.endpoint(gate)
    await limited(box, endpoint, share=2, pending=10)
    wires = await ask(box, 7)
    await until(lambda: gate.asked == 2 and pending(box, endpoint) == 5, "five wait")
    gate.release(7)
    assert [(await wire.answer()).status for wire in wires] == [200] * 7
    assert (gate.most, endpoint.connections) == (2, 2)
    assert pending(box, endpoint) == 0
    assert box.answers(2) == 7
    assert sum(box.failures(kind) for kind in stats.FAILURE_KINDS) == 0


async def test_a_full_queue_is_a_503_that_is_nobodys_failure(box: Box) -> None:
    gate = Gate()
    endpoint = await box.endpoint(gate)
    await limited(box, endpoint, pending=2)
    wires = await ask(box, 3)
    await until(lambda: pending(box, endpoint) == 2, "two wait")
    wire = await box.client()
    assert is_full(await wire.request("/"))
    assert limited_total(box) == 1
    assert box.answers(5) == 0, "no answer of the pool's"
    assert box.of_endpoint(endpoint, stats.E_FAILURES) == 0
    gate.release(4)
    assert [(await wire.answer()).status for wire in wires] == [200] * 3
    assert (await wire.request("/")).status == 200, "on the same connection, once there is room"


async def test_a_request_that_has_waited_too_long_gets_a_503(box: Box) -> None:
    gate = Gate()
    endpoint = await box.endpoint(gate)
    await limited(box, endpoint, pending_s=0.3)
    first, second = await ask(box, 2)
    assert is_full(await second.answer())
    assert pending(box, endpoint) == 0
    assert limited_total(box) == 1
    gate.release()
    assert (await first.answer()).status == 200


async def test_a_client_that_leaves_is_dropped_from_the_queue(box: Box) -> None:
    gate = Gate()
    endpoint = await box.endpoint(gate)
    await limited(box, endpoint, pending=2)
    first, second, third = await ask(box, 3)
    await until(lambda: pending(box, endpoint) == 2, "two wait")
    second.close()
    await until(lambda: pending(box, endpoint) == 1, "one waits")
    gate.release(2)
    assert (await first.answer()).status == (await third.answer()).status == 200
    assert gate.asked == 2, "its request never reached the endpoint"


async def test_a_closed_connection_makes_room_for_a_new_one(box: Box) -> None:
    gate = Gate(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    endpoint = await box.endpoint(gate)
    await limited(box, endpoint, pending=10)
    wires = await ask(box, 4)
    gate.release(4)
    assert [(await wire.answer()).status for wire in wires] == [200] * 4
    assert endpoint.connections == 4


async def test_a_tunnel_is_a_connection_and_gives_its_room_back(box: Box) -> None:
    endpoint = await box.endpoint(echo)
    await limited(box, endpoint)
    first, second = await box.client(), await box.client()
    await first.send(ASK)
    assert (await first.answer()).status == 101
    await second.send(ASK)
    await until(lambda: pending(box, endpoint) == 1, "the second waits")
    first.close()
    assert (await second.answer()).status == 101


async def test_an_endpoint_with_room_is_taken_before_one_without(box: Box) -> None:
    busy, free = Gate(), Gate()
    members = [await box.endpoint(busy), await box.endpoint(free)]
    give(box, members[0], 1)
    give(box, members[1], 100)
    await box.serve(*members, limits=bounds(pending=100))
    wires = await ask(box, 20)
    await until(lambda: busy.asked + free.asked == 20, "nobody waits")
    beat = box.words[stats.W_HEARTBEAT_MS]
    await until(lambda: box.words[stats.W_HEARTBEAT_MS] > beat + 150, "two sweeps have gone by")
    wires += await ask(box, 20)
    await until(lambda: busy.asked + free.asked == 40, "nobody waits")
    assert busy.asked <= 1
    for gate in (busy, free):
        gate.release(40)
    assert {(await wire.answer()).status for wire in wires} == {200}


async def test_when_all_are_busy_the_queues_are_used_before_anybody_is_refused(box: Box) -> None:
    gates = [Gate(), Gate()]
    endpoints = [await box.endpoint(gate) for gate in gates]
    await limited(box, *endpoints, pending=2)
    wires = await ask(box, 6)
    await until(lambda: sum(pending(box, each) for each in endpoints) == 4, "four wait")
    assert is_full(await (await box.client()).request("/"))
    for gate in gates:
        gate.release(6)
    assert [(await wire.answer()).status for wire in wires] == [200] * 6


async def test_a_full_pool_falls_back_to_the_other_one_where_that_is_allowed(box: Box) -> None:
    gate = Gate()
    blue, green = await box.endpoint(gate), await box.endpoint()
    give(box, blue, 1)
    give(box, green, 100, "green")
    sticky = Sticky(by="client_ip", keys=("00" * 16,))

    async def serve(**more: Any) -> None:
        pools = box.pool("blue", [blue], WHOLE - 1), box.pool("green", [green], 1)
        await box.apply(box.shop(*pools, limits=bounds(1), **more))

    await serve()
    wires = await ask(box, 2)
    await until(lambda: pending(box, blue) == 1, "blue is full")
    wire = await box.client()
    assert (await wire.request("/")).status == 200
    assert box.answers(2, "green") == 1
    sticky_fails = Sticky(by="client_ip", keys=sticky.keys, on_unavailable="fail")
    await serve(sticky=sticky_fails)
    assert is_full(await wire.request("/"))
    gate.release(2)
    assert [(await each.answer()).status for each in wires] == [200] * 2


async def test_who_sticks_to_an_endpoint_waits_for_it(box: Box) -> None:
    gates = [Gate(), Gate()]
    endpoints = [await box.endpoint(gate) for gate in gates]
    for each in endpoints:
        give(box, each, 1)
    sticky = Sticky(by="cookie", name="t", keys=("00" * 16,), endpoint=True)
    await box.serve(*endpoints, limits=bounds(10), sticky=sticky)
    wire = await box.client()
    await wire.send(GET)
    await until(lambda: gates[0].asked + gates[1].asked == 1, "one has it")
    own = 0 if gates[0].asked else 1
    gates[own].release()
    cookie = ((await wire.answer()).header("set-cookie") or "").partition(";")[0]
    again = request_bytes("/", headers={"Cookie": cookie})
    wires = await ask(box, 3, again)
    await until(lambda: pending(box, endpoints[own]) == 2, "they wait for their own")
    assert gates[1 - own].asked == 0
    gates[own].release(3)
    assert [(await each.answer()).status for each in wires] == [200] * 3


async def test_requests_that_wait_at_a_drained_endpoint_go_elsewhere(box: Box) -> None:
    gate = Gate()
    endpoint, other = await box.endpoint(gate), await box.endpoint()
    await limited(box, endpoint)
    first, second = await ask(box, 2)
    await until(lambda: pending(box, endpoint) == 1, "one waits")
    give(box, other, 5)
    members = [box.member("blue", each) for each in (endpoint, other)]
    members[0] = replace(members[0], drain=DRAIN)
    await box.apply(box.shop(box.pool("blue", members, WHOLE), limits=bounds()))
    assert (await second.answer()).status == 200
    assert other.connections == 1
    gate.release()
    assert (await first.answer()).status == 200


async def test_requests_that_wait_at_a_removed_endpoint_go_elsewhere(box: Box) -> None:
    gate = Gate()
    endpoint, other = await box.endpoint(gate), await box.endpoint()
    await limited(box, endpoint)
    _, second = await ask(box, 2)
    await until(lambda: pending(box, endpoint) == 1, "one waits")
    await limited(box, other)
    assert (await second.answer()).status == 200


async def test_requests_that_wait_at_an_endpoint_that_went_down_go_elsewhere(box: Box) -> None:
    gate = Gate()
    endpoint, other = await box.endpoint(gate), await box.endpoint()
    await limited(box, endpoint)
    first, second = await ask(box, 2)
    await until(lambda: pending(box, endpoint) == 1, "one waits")
    await limited(box, endpoint, other)
    box.board.mark(box.live(endpoint).slot, stats.DOWN, on=True)
    box.board.publish()
    assert (await second.answer()).status == 200
    assert other.connections == 1
    gate.release()
    assert (await first.answer()).status == 200


async def test_an_endpoint_that_cannot_be_reached_any_more_is_not_waited_for(box: Box) -> None:
    """The wait for its one connection ends with that connection, not with a queue of attempts."""
    gate = Gate()
    endpoint = await box.endpoint(gate)
    await limited(box, endpoint, pending=5)
    wires = await ask(box, 4)
    await until(lambda: pending(box, endpoint) == 3, "three wait")
    endpoint.refuse()
    assert [(await wire.answer()).status for wire in wires] == [502] * 4
    assert pending(box, endpoint) == 0


async def test_an_endpoint_that_dies_fails_no_request_that_waits(box: Box) -> None:
    gate = Gate()
    endpoint, other = await box.endpoint(gate), await box.endpoint()
    await limited(box, endpoint, pending=5)
    wires = await ask(box, 4)
    await until(lambda: pending(box, endpoint) == 3, "three wait")
    give(box, other, 5)
    await limited(box, endpoint, other, pending=5)
    endpoint.refuse()
    assert sorted([(await wire.answer()).status for wire in wires]) == [200, 200, 200, 502]


async def test_a_share_that_grows_serves_those_who_wait(box: Box) -> None:
    gate = Gate()
    endpoint = await box.endpoint(gate)
    await limited(box, endpoint, share=0)
    wires = await ask(box, 2)
    await until(lambda: pending(box, endpoint) == 2, "both wait")
    assert endpoint.connections == 0
    give(box, endpoint, 2)
    await until(lambda: gate.asked == 2, "both have a connection")
    gate.release(2)
    assert [(await wire.answer()).status for wire in wires] == [200] * 2


async def test_a_share_that_shrinks_closes_what_rests_and_then_what_is_given_back(
    box: Box,
) -> None:
    gate = Gate()
    endpoint = await box.endpoint(gate)
    await limited(box, endpoint, share=3)
    wires = await ask(box, 3)
    await until(lambda: gate.asked == 3, "all are in use")
    gate.release()
    await until(lambda: len(box.live(endpoint).idle) == 1, "one rests")
    give(box, endpoint, 1)
    await until(lambda: gate.open == 2, "what rested is closed")
    gate.release(2)
    await until(lambda: gate.open == 1, "and one of the others")
    await until(lambda: box.of_endpoint(endpoint, stats.E_OPEN) == 1, "the count follows")
    assert [(await wire.answer()).status for wire in wires] == [200] * 3


async def test_a_lifted_limit_serves_those_who_wait(box: Box) -> None:
    gate = Gate()
    endpoint = await box.endpoint(gate)
    await limited(box, endpoint)
    wires = await ask(box, 3)
    await until(lambda: pending(box, endpoint) == 2, "two wait")
    await box.serve(endpoint)
    await until(lambda: gate.asked == 3, "all have a connection")
    gate.release(3)
    assert [(await wire.answer()).status for wire in wires] == [200] * 3


async def test_a_post_that_may_not_have_a_rested_connection_gets_a_new_one(box: Box) -> None:
    endpoint = await box.endpoint()
    await limited(box, endpoint)
    wire = await box.client()
    await wire.request("/")
    (connection,) = box.live(endpoint).idle
    connection.idle_since -= 60
    answer = await wire.request("/", method="POST", body=b"x")
    assert answer.status == 200
    assert endpoint.connections == 2


async def test_a_body_that_comes_while_the_request_waits_is_kept(box: Box) -> None:
    gate = Gate()
    endpoint = await box.endpoint(gate)
    await limited(box, endpoint)
    (first,) = await ask(box, 1)
    await until(lambda: gate.asked == 1, "the connection is in use")
    second = await box.client()
    whole = request_bytes("/", method="POST", body=b"x" * 1000)
    await second.send(whole[:-500])
    await until(lambda: pending(box, endpoint) == 1, "it waits")
    await second.send(whole[-500:])
    gate.release(2)
    assert (await first.answer()).status == (await second.answer()).status == 200


async def test_without_a_limit_no_share_is_asked_for(box: Box) -> None:
    endpoint = await box.endpoint()
    await box.serve(endpoint)
    wires = await ask(box, 10)
    assert [(await wire.answer()).status for wire in wires] == [200] * 10


async def test_connections_opened_ahead_keep_to_the_share(box: Box) -> None:
    endpoint = await box.endpoint()
    give(box, endpoint, 2)
    await box.serve(endpoint, limits=bounds(), warm_connections=5)
    assert await box.plane.warm("shop", "blue", 5.0) == 2
    assert await box.plane.warm("shop", "blue", 5.0) == 0
    assert endpoint.connections == box.of_endpoint(endpoint, stats.E_OPEN) == 2


async def test_a_full_pool_has_not_failed_though_the_other_one_helps_out(box: Box) -> None:
    gate = Gate()
    blue, green = await box.endpoint(gate), await box.endpoint()
    give(box, blue, 1)
    give(box, green, 100, "green")
    pools = box.pool("blue", [blue], WHOLE - 1), box.pool("green", [green], 1)
    await box.apply(box.shop(*pools, limits=bounds(1)))
    wires = await ask(box, 2)
    await until(lambda: pending(box, blue) == 1, "blue is full")
    assert (await (await box.client()).request("/")).status == 200
    assert box.answers(2, "green") == 1
    assert box.failures("unavailable") == 0
    gate.release(2)
    assert [(await wire.answer()).status for wire in wires] == [200] * 2


async def test_a_failed_request_that_waits_elsewhere_in_vain_is_told_of_its_failure(
    box: Box,
) -> None:
    async def fail(peer: Peer) -> None:
        await peer.request()
        peer.abort()

    gate = Gate()
    busy, failing = await box.endpoint(gate), await box.endpoint(fail)
    await limited(box, busy, pending_s=0.3)
    (first,) = await ask(box, 1)
    await until(lambda: gate.asked == 1, "the other one's connection is in use")
    await limited(box, busy, failing, pending_s=0.3)
    box.grant(5)
    answer = await (await box.client()).request("/")
    assert (answer.status, answer.header("proxy-status")) == (
        502,
        "turnout; error=connection_terminated",
    )
    assert (box.failures("reset"), box.answers(5), limited_total(box)) == (1, 1, 1)
    assert box.retries("failed") == 1
    gate.release()
    assert (await first.answer()).status == 200


async def test_a_connection_that_went_from_hand_to_hand_has_not_rested(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a reset on it is the failure of the request that it was given, not of its old age."""
    monkeypatch.setattr(upstream, "RESTED_S", 0.3)
    gate = Gate()

    async def play(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            gate.asked += 1
            await gate.go.acquire()
            await peer.send(OK)
        await peer.request()
        await fail(peer, "reset")

    endpoint = await box.endpoint(play)
    await limited(box, endpoint)
    first, second = await box.client(), await box.client()
    await first.send(GET)
    await until(lambda: gate.asked == 1, "the first is asked")
    await second.send(GET)
    await until(lambda: pending(box, endpoint) == 1, "the second waits")
    gate.release()
    assert (await first.answer()).status == 200
    await until(lambda: gate.asked == 2, "the second is asked")
    await asyncio.sleep(0.5)  # longer than what counts as rest, were it any
    await first.send(GET)
    await until(lambda: pending(box, endpoint) == 1, "the third waits")
    gate.release()
    assert (await second.answer()).status == 200
    assert (await first.answer()).status == 502
    assert (box.failures("reset"), box.of_pool(stats.P_STALE)) == (1, 0)
