"""Processes that are killed or asked to go: what is acknowledged holds, what is in flight ends well."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from contextlib import suppress

import pytest

from tests.e2e.load import Load, pools
from tests.e2e.stage import Stage, Turnout, wait_until
from tests.e2e.wire import Answer, Wire, WireError


async def _total_never_falls(turnout: Turnout, until: asyncio.Event) -> list[float]:
    """Read the counter of requests again and again."""
    readings = []
    while not until.is_set():
        readings.append(await asyncio.to_thread(turnout.metric, "turnout_requests_total"))
        await asyncio.sleep(0.05)
    return readings


async def test_a_killed_worker_is_replaced_and_only_its_own_connections_notice(
    stage: Stage,
) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), workers=2)
    done = asyncio.Event()
    async with Load(turnout.port, clients=24) as load, asyncio.TaskGroup() as group:
        await load.more(300)
        counter = group.create_task(_total_never_falls(turnout, done))
        victim, other = turnout.worker_pids()
        killed_s = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(
            wait_until,
            lambda: victim not in (pids := turnout.worker_pids()) and len(pids) == 2,
            "the killed worker is replaced",
        )
        await load.more(500)
        done.set()
    broken = Counter(client for client, _, _ in load.failures)
    assert 0 < len(broken) < 24, "some connections were the victim's, some the other's"
    assert set(broken.values()) == {1}, f"a connection failed twice: {load.failures}"
    assert max(at_s for _, at_s, _ in load.failures) < killed_s + 5
    assert other in turnout.worker_pids()
    readings = counter.result()
    assert readings == sorted(readings)
    # Each request but the few that died uncounted with their worker's last breath.
    assert turnout.metric("turnout_requests_total") >= len(load.seen) - 24
    assert turnout.metric("turnout_worker_up") == 2


async def test_connections_opened_while_a_worker_is_dead_are_all_served(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), workers=2)
    for pid in turnout.worker_pids():
        os.kill(pid, signal.SIGKILL)
    assert await pools(turnout.port, 40, clients=40) == {"blue": 40}


async def test_an_acknowledged_change_is_in_force_from_the_first_request_after_kill_9(
    stage: Stage,
) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"))
    for to in ("green", "blue", "green"):
        async with Load(turnout.port, clients=4) as load:
            await load.more(20)
            await asyncio.to_thread(turnout.switch, to)
            turnout.kill_all()
        turnout.launch()
        first = await _first_answer(turnout)
        assert first.pool == to
        assert set(await pools(turnout.port, 40)) == {to}
        turnout.wait_ready()
        assert turnout.service()["active"] == to
    turnout.weights(blue=70, green=30)
    turnout.kill_all()
    turnout.start()
    assert (await pools(turnout.port, 1000))["green"] == pytest.approx(300, abs=6)
    assert turnout.service()["weights"]["source"] == "api"


async def _first_answer(turnout: Turnout) -> Answer:
    """Knock until somebody opens; the very first answer counts."""
    until = time.monotonic() + 40
    while time.monotonic() < until:
        try:
            async with await Wire.to(turnout.port) as wire:
                return await wire.request("/who")
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
    raise TimeoutError(turnout.log())


async def _ask_slow(turnout: Turnout, seconds: float) -> Answer:
    async with await Wire.to(turnout.port) as wire:
        return await wire.request(f"/slow?s={seconds}")


async def _slow_in_flight(turnout: Turnout, count: int) -> None:
    await asyncio.to_thread(
        wait_until,
        lambda: turnout.metric("turnout_in_flight", **{"class": "request"}) == count,
        f"{count} requests are in flight",
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_lets_requests_in_flight_finish_and_exits_0(
    stage: Stage, number: signal.Signals
) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"))
    async with asyncio.TaskGroup() as group, await Wire.to(turnout.port) as idle:
        await idle.request("/who")
        slow = [group.create_task(_ask_slow(turnout, 6)) for _ in range(20)]
        await _slow_in_flight(turnout, 20)
        turnout.signal(number)
        assert await idle.is_closed()
        await asyncio.to_thread(wait_until, lambda: not _is_open(turnout), "accepting stops")
        assert not any(task.done() for task in slow), "too slow a machine to tell"
    assert [task.result().status for task in slow] == [200] * 20
    assert await asyncio.to_thread(turnout.wait, 30) == 0
    assert turnout.pids() == []


def _is_open(turnout: Turnout) -> bool:
    try:
        turnout.ask("GET", "/healthz")
    except OSError:
        return False
    return turnout.ask("GET", "/readyz").status == 200


async def test_what_is_in_flight_after_the_shutdown_timeout_is_cut(stage: Stage) -> None:
    turnout = stage.turnout(
        stage.origin("blue"), stage.origin("green"), top={"shutdown_timeout": "1s"}
    )
    slow = asyncio.get_running_loop().create_task(_ask_slow(turnout, 19))
    await _slow_in_flight(turnout, 1)
    began_s = time.monotonic()
    turnout.signal(signal.SIGTERM)
    assert await asyncio.to_thread(turnout.wait, 30) == 0
    assert 0.9 < time.monotonic() - began_s < 12
    with suppress(WireError):  # broken off without a word is as good
        assert (await slow).status >= 500


async def test_a_second_signal_ends_it_now(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"))
    slow = asyncio.get_running_loop().create_task(_ask_slow(turnout, 19))
    await _slow_in_flight(turnout, 1)
    turnout.signal(signal.SIGTERM)
    await asyncio.to_thread(wait_until, lambda: not _is_open(turnout), "the first has arrived")
    began_s = time.monotonic()
    turnout.signal(signal.SIGTERM)
    await asyncio.to_thread(turnout.wait, 30)
    assert time.monotonic() - began_s < 12
    assert turnout.pids() == []
    with pytest.raises(WireError):
        await slow


def test_a_configuration_that_is_wrong_at_start_exits_2_and_says_why(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), start=False, balanec="x")
    turnout.launch()
    assert turnout.wait(40) == 2
    assert "balanec" in turnout.log()
    assert "balance" in turnout.log()


def test_a_damaged_store_is_set_aside_and_the_file_counts(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"))
    turnout.switch("green")
    assert turnout.stop() == 0
    state = turnout.directory / "state"
    for file in [path for path in state.rglob("*") if path.is_file()]:
        file.write_bytes(b"this was a database once " * 500)
    turnout.start()
    status = turnout.get("/v1/status")
    assert status["services"][0]["active"] == "blue"
    assert status["state"]["problem"]
    damaged = [path for path in state.rglob("*") if path.is_file() and _is_damaged(path)]
    assert damaged, "the damaged store is kept"


def _is_damaged(path: object) -> bool:
    with open(str(path), "rb") as file:  # noqa: PTH123
        return file.read(25) == b"this was a database once "
