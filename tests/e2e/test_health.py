"""Active checks: who is up gets traffic, from both workers, through reloads, drains and restarts."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from typing import Any

from tests.e2e.load import Load
from tests.e2e.stage import Stage, Turnout, wait_until
from tests.e2e.wire import Wire
from tests.ports import free_port

HEALTH: dict[str, Any] = {"interval": "200ms", "timeout": "3s", "rise": 2, "fall": 3}


async def endpoints(port: int, count: int = 40) -> Counter[str]:
    """Who answers so many requests, sent over eight new connections: both workers get some.

    An answer of the proxy itself counts by its status.
    """

    async def client() -> Counter[str]:
        async with await Wire.to(port) as wire:
            answers = [await wire.request("/who") for _ in range(count // 8)]
            return Counter(
                str(answer.json()["endpoint"]) if answer.status == 200 else str(answer.status)
                for answer in answers
            )

    return sum(await asyncio.gather(*(client() for _ in range(8))), Counter[str]())


async def until(port: int, *names: str) -> None:
    """Wait until exactly these endpoints answer."""
    began = time.monotonic()
    while set(found := await endpoints(port)) != set(names):
        assert time.monotonic() < began + 20, f"{names} wanted, {found} found"
        await asyncio.sleep(0.02)


def events(turnout: Turnout, name: str) -> int:
    return turnout.log().count(f'"event": "{name}"')


def stored(turnout: Turnout) -> str:
    """The health of the service in the state store."""
    with closing(sqlite3.connect(turnout.directory / "state/turnout.db")) as store:
        rows = store.execute("SELECT endpoints FROM health WHERE service = 'shop'").fetchall()
    return "".join(text for (text,) in rows)


async def test_an_endpoint_that_fails_its_checks_gets_nothing_until_it_passes_again(
    stage: Stage,
) -> None:
    blue = stage.origin("blue", count=2)
    turnout = stage.turnout(blue, [], health=HEALTH)
    assert set(await endpoints(turnout.port)) == {"blue-1", "blue-2"}
    blue.set_health(0, status=503)
    await until(turnout.port, "blue-2")
    assert set(await endpoints(turnout.port, 400)) == {"blue-2"}
    down = turnout.endpoint(blue.addresses[0])
    assert (down["available"], down["up"], down["state"]) == (False, False, "down")
    assert down["last_check"].startswith("503 in ")
    assert down["last_check_at"]
    assert turnout.metric("turnout_endpoints", pool="blue", state="down") == 1
    assert turnout.metric("turnout_health_checks_total", pool="blue", result="fail") >= 3
    blue.set_health(0, status=200)
    await until(turnout.port, "blue-1", "blue-2")
    assert (events(turnout, "endpoint_down"), events(turnout, "endpoint_up")) == (1, 3)
    assert blue.malformed() == []


async def test_a_service_that_is_down_says_why_and_is_not_ready(stage: Stage) -> None:
    blue = stage.origin("blue")
    turnout = stage.turnout(blue, [], health=HEALTH)
    blue.set_health(status=500)
    turnout.wait_endpoint(blue.addresses[0], "down")
    ready = turnout.ask("GET", "/readyz")
    assert ready.status == 503
    (reason,) = ready.json()["reasons"]
    assert reason.startswith(f"shop has no available endpoint ({blue.addresses[0]}: 500 in ")


async def test_an_endpoint_asks_to_be_drained_and_comes_back(stage: Stage) -> None:
    blue = stage.origin("blue", count=2)
    turnout = stage.turnout(blue, [], health=HEALTH)
    async with await Wire.to(turnout.port) as wire:
        while (await wire.request("/who")).json()["endpoint"] != "blue-1":
            pass
        # Until that one asks, the second one is kept out of the way.
        blue.set_health(1, status=503)
        await until(turnout.port, "blue-1")
        slow = asyncio.get_running_loop().create_task(wire.request("/slow?s=10"))
        await asyncio.to_thread(
            wait_until,
            lambda: turnout.endpoint(blue.addresses[0])["in_flight"] == 1,
            "the long request is in flight",
        )
        blue.set_health(1, status=200)
        await until(turnout.port, "blue-1", "blue-2")
        blue.set_health(0, status=503, drain=True)
        await until(turnout.port, "blue-2")
        asking = turnout.endpoint(blue.addresses[0])
        assert (asking["asks_to_drain"], asking["up"], asking["available"]) == (True, True, False)
        assert asking["draining"], "whoever asked for it"
        assert asking["last_check"].startswith("503 in ")
        assert not slow.done()
        answer = await slow
        assert (answer.status, answer.json()["endpoint"]) == (200, "blue-1")
        assert set(await endpoints(turnout.port, 200)) == {"blue-2"}
    assert turnout.endpoint(blue.addresses[0])["state"] == "draining", "still up, still asking"
    blue.set_health(0)
    await until(turnout.port, "blue-1", "blue-2")
    assert not turnout.endpoint(blue.addresses[0])["draining"]


async def test_a_new_endpoint_gets_nothing_before_its_first_pass(stage: Stage) -> None:
    blue, new = stage.origin("blue"), stage.origin("new")
    turnout = stage.turnout(blue, [], health=HEALTH)
    new.set_health(status=503)
    async with Load(turnout.port) as load:
        turnout.change(
            "PUT",
            "/v1/services/shop/pools/blue",
            {"endpoints": [*blue.addresses, *new.addresses]},
        )
        await load.more(100)
        wait_until(lambda: new.stats()[0]["checks"] >= 3, "it is asked again and again")
        waiting = turnout.endpoint(new.addresses[0])
        assert (waiting["state"], waiting["checked"]) == ("unchecked", False)
        assert {seen.pool for seen in load.seen} == {"blue"}
        new.set_health(status=200)
        turnout.wait_endpoint(new.addresses[0], "available")
        while load.seen[-1].pool != "new":
            await load.more(1)
    assert load.failures == []


async def test_an_endpoint_that_does_not_exist_yet_costs_no_request_and_joins_when_it_does(
    stage: Stage,
) -> None:
    blue = stage.origin("blue")
    dead = f"127.0.0.1:{free_port()}"
    turnout = stage.turnout([*blue.addresses, dead], [], health=HEALTH)
    assert set(await endpoints(turnout.port, 200)) == {"blue-1"}
    assert turnout.metric("turnout_retries_total") == 0
    assert turnout.endpoint(dead)["last_check"] == "connection refused"


async def test_a_pass_does_not_reopen_what_an_operator_has_drained(stage: Stage) -> None:
    blue = stage.origin("blue", count=2)
    turnout = stage.turnout(blue, [], health=HEALTH)
    drained = {"pool": "blue", "endpoint": blue.addresses[0]}
    turnout.change("POST", "/v1/services/shop/drain", drained)
    blue.set_health(0, status=503)
    wait_until(lambda: not turnout.endpoint(blue.addresses[0])["up"], "it is down")
    blue.set_health(0, status=200)
    wait_until(lambda: turnout.endpoint(blue.addresses[0])["up"], "it is up again")
    assert turnout.endpoint(blue.addresses[0])["available"] is False
    assert set(await endpoints(turnout.port, 200)) == {"blue-2"}
    turnout.change("POST", "/v1/services/shop/drain", {**drained, "undo": True})
    await until(turnout.port, "blue-1", "blue-2")


async def test_who_was_down_before_a_crash_gets_nothing_after_it(stage: Stage) -> None:
    blue = stage.origin("blue", count=2)
    # Nobody is checked again so soon that the new proxy could find out for itself.
    turnout = stage.turnout(blue, [], health={**HEALTH, "interval": "1s", "fall": 1, "rise": 100})
    blue.set_health(0, status=503)
    turnout.wait_endpoint(blue.addresses[0], "down")
    blue.set_health(0, status=200)
    wait_until(lambda: "down" in stored(turnout), "the verdict is in the store")
    turnout.kill_all()
    turnout.start()
    assert set(await endpoints(turnout.port, 200)) == {"blue-2"}
    assert turnout.endpoint(blue.addresses[0])["state"] == "down"


async def test_the_first_request_after_the_start_finds_who_is_up(stage: Stage) -> None:
    blue = stage.origin("blue", count=3)
    blue.set_health(1, status=503)
    turnout = stage.turnout(blue, [], health={**HEALTH, "interval": "1h"})
    assert set(await endpoints(turnout.port)) == {"blue-1", "blue-3"}


async def test_a_reload_keeps_what_is_known_and_follows_other_checks(stage: Stage) -> None:
    blue = stage.origin("blue", count=2)
    turnout = stage.turnout(blue, [], health=HEALTH)
    blue.set_health(0, status=503)
    turnout.wait_endpoint(blue.addresses[0], "down")
    service = turnout.config["services"]["shop"]
    service["timeouts"] = {"response": "7s"}
    turnout.write(turnout.config)
    assert turnout.reload().json()["applied"]
    assert set(await endpoints(turnout.port, 80)) == {"blue-2"}
    service["health"] = {**HEALTH, "path": "/who"}  # which always answers 200
    turnout.write(turnout.config)
    assert turnout.reload().json()["applied"]
    await until(turnout.port, "blue-1", "blue-2")
    service["health"] = "off"
    turnout.write(turnout.config)
    assert turnout.reload().json()["applied"]
    assert turnout.endpoint(blue.addresses[0])["checked"] is None
    checks = blue.stats()[0]["checks"]
    service["health"] = HEALTH
    turnout.write(turnout.config)
    assert turnout.reload().json()["applied"]
    # Who has served without checks is up until proven down.
    assert set(await endpoints(turnout.port, 80)) == {"blue-1", "blue-2"}
    wait_until(lambda: blue.stats()[0]["checks"] > checks, "it is checked again")
    await until(turnout.port, "blue-2")


async def test_a_frozen_or_ended_endpoint_goes_down_by_tcp_or_by_time(stage: Stage) -> None:
    blue, frozen, ended = stage.origin("blue"), stage.origin("ice"), stage.origin("gone")
    addresses = [*blue.addresses, *frozen.addresses, *ended.addresses]
    turnout = stage.turnout(addresses, [], health={**HEALTH, "timeout": "500ms", "fall": 1})
    tcp = stage.turnout(addresses, [], health={**HEALTH, "type": "tcp", "fall": 1})
    frozen.signal(signal.SIGSTOP)
    ended.end()
    try:
        turnout.wait_endpoint(frozen.addresses[0], "down")
        assert turnout.endpoint(frozen.addresses[0])["last_check"] == "no answer within 0.5 s"
        turnout.wait_endpoint(ended.addresses[0], "down")
        tcp.wait_endpoint(ended.addresses[0], "down")
        assert tcp.endpoint(ended.addresses[0])["last_check"] == "connection refused"
        assert tcp.endpoint(frozen.addresses[0])["last_check"].startswith("connected in ")
    finally:
        frozen.signal(signal.SIGCONT)
    await until(turnout.port, "blue-1", "ice-1")


async def test_a_switch_is_refused_by_the_checks_and_done_by_force(stage: Stage) -> None:
    blue, green = stage.origin("blue", count=2), stage.origin("green", count=2)
    green.set_health(0, status=503)
    green.set_health(1, status=503)
    turnout = stage.turnout(blue, green, health=HEALTH)
    refused = turnout.ask("POST", "/v1/services/shop/switch", {"to": "green"})
    assert refused.status == 409
    detail = refused.json()["detail"]
    assert f"{green.addresses[0]}: 503 in " in detail
    assert "--force overrides" in detail
    green.set_health(1, status=200)  # one is half of the two; it is asked once more at once
    turnout.switch("green")
    turnout.switch("blue")
    green.set_health(1, status=503)
    turnout.wait_endpoint(green.addresses[1], "down", "green")
    turnout.change("POST", "/v1/services/shop/switch", {"to": "green", "force": True})
