"""A switch under load: nothing fails, nothing is closed, nothing is stale."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from websockets.asyncio.client import connect

from tests.e2e.load import Load, pools
from tests.e2e.stage import Stage


async def test_twenty_switches_under_load_lose_nothing_and_are_never_late(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue", "v41", 2), stage.origin("green", "v42", 2))
    switches: list[tuple[float, float, str]] = []
    async with AsyncExitStack() as stack:
        url = f"ws://127.0.0.1:{turnout.port}/ws"
        socket = await stack.enter_async_context(connect(url, proxy=None))
        assert '"blue"' in str(await socket.recv())
        load = await stack.enter_async_context(Load(turnout.port, clients=12))
        for number in range(20):
            to = ("green", "blue")[number % 2]
            began_s = time.monotonic()
            await asyncio.to_thread(turnout.switch, to)
            switches.append((began_s, time.monotonic(), to))
            await load.more(40)
            await socket.send(f"still here {number}")
            assert await socket.recv() == f"still here {number}"
    assert load.failures == []
    assert set(load.shares()) == {"blue", "green"}
    ends = [began_s for began_s, _, _ in switches[1:]] + [time.monotonic()]
    for (_, answered_s, to), until_s in zip(switches, ends, strict=True):
        within = [
            seen for seen in load.seen if answered_s < seen.sent_s and seen.answered_s < until_s
        ]
        assert len(within) >= 20
        assert [seen for seen in within if seen.pool != to] == []


def test_after_a_switch_every_worker_has_a_connection_open_before_a_request_comes(
    stage: Stage,
) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green", "v1", 2), workers=2)
    turnout.switch("green")
    deadline = time.monotonic() + 20
    while True:
        green = turnout.service()["pools"]["green"]["endpoints"]
        if [each["idle"] for each in green] == [2, 2]:
            break
        assert time.monotonic() < deadline, green
        time.sleep(0.05)


async def test_the_request_after_a_change_sees_it_on_any_connection(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), workers=2)
    for to in ("green", "blue", "green"):
        turnout.switch(to)
        assert set(await pools(turnout.port, 32, clients=16)) == {to}


def test_a_switch_to_a_pool_that_is_not_fit_is_refused_with_the_reason(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), [])
    for to, word in (("green", "endpoint"), ("blue", "active")):
        reply = turnout.ask("POST", "/v1/services/shop/switch", {"to": to})
        assert reply.status == 409
        assert reply.headers["Content-Type"].startswith("application/problem+json")
        assert word in reply.json()["detail"]
    assert turnout.service()["active"] == "blue"


async def test_a_rollback_goes_to_the_pool_that_was_active_before(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"))
    turnout.switch("green")
    async with Load(turnout.port) as load:
        await load.more(50)
        view = await asyncio.to_thread(
            turnout.change, "POST", "/v1/services/shop/rollback", {"reason": "prices are wrong"}
        )
        answered_s = time.monotonic()
        await load.more(50)
    assert view["active"] == "blue"
    assert load.failures == []
    assert load.shares(answered_s) == {"blue": 100}
    newest = turnout.get("/v1/services/shop/decisions")
    records = newest if isinstance(newest, list) else newest["decisions"]
    assert any("prices are wrong" in str(record["why"]) for record in records)


async def test_an_idle_pool_is_filled_and_switched_to(stage: Stage) -> None:
    green = stage.origin("green", "v43")
    turnout = stage.turnout(stage.origin("blue"), [])
    body = {"endpoints": green.addresses, "release": "v43"}
    view = turnout.change("PUT", "/v1/services/shop/pools/green", body)
    assert view["pools"]["green"]["release"] == "v43"
    turnout.switch("green")
    assert await pools(turnout.port, 20) == {"green": 20}
