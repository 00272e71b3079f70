"""Reloads under load: a valid file is applied, an invalid one changes nothing, nobody notices."""

from __future__ import annotations

import asyncio
import copy
import json
import signal
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import connect

from tests.e2e.load import Load, pools
from tests.e2e.stage import Config, Stage, Turnout, shop, wait_until
from tests.e2e.wire import Wire
from tests.ports import free_port


def _with_green(config: Config, percent: float) -> Config:
    changed = copy.deepcopy(config)
    changed["services"]["shop"]["weights"] = {"blue": 100 - percent, "green": percent}
    return changed


def _green(turnout: Turnout) -> float:
    return float(turnout.service()["weights"]["in_force"]["green"])


def _last_error(turnout: Turnout) -> str:
    return str(turnout.get("/v1/status")["config"]["last_error"] or "")


def _wait_applied(turnout: Turnout, percent: float) -> None:
    wait_until(lambda: _green(turnout) == percent, f"{percent} % are applied")
    wait_until(lambda: not _last_error(turnout), "the error of the last file is gone")


def _save(turnout: Turnout, number: int, text: str) -> None:
    """In turn: renamed over the old file, written into it, written and SIGHUP, written and POST."""
    if number % 4 == 0:
        turnout.write_text(text)
    else:
        turnout.write_in_place(text)
    if number % 4 == 2:
        turnout.signal(signal.SIGHUP)
    if number % 4 == 3:
        turnout.reload()


def _reload_thirty_times(turnout: Turnout) -> None:
    for number in range(30):
        if number % 3 == 1:
            broken = json.dumps({**turnout.config, f"surprise_{number}": 1})
            before = _green(turnout)
            _save(turnout, number, broken)
            wait_until(
                lambda n=number: f"surprise_{n}" in _last_error(turnout),  # type: ignore[misc]
                f"broken file {number} is reported",
            )
            assert turnout.metric("turnout_config_last_reload_successful") == 0
            assert _green(turnout) == before
        else:
            percent = 20 + number
            _save(turnout, number, json.dumps(_with_green(turnout.config, percent)))
            _wait_applied(turnout, percent)
            assert turnout.metric("turnout_config_last_reload_successful") == 1


async def test_thirty_reloads_under_load_are_noticed_by_no_client(stage: Stage) -> None:
    blue, green = stage.origin("blue", "v41", 2), stage.origin("green", "v42", 2)
    quiet = shop(blue, green, routes=[{"host": "quiet.example.com", "path": "/"}])
    services = {"shop": shop(blue, green), "quiet": quiet}
    turnout = stage.turnout(blue, green, top={"services": services})
    async with AsyncExitStack() as stack:
        sockets = []
        for host in ("shop.example.com", "quiet.example.com"):
            url = f"ws://{host}:{turnout.port}/ws"
            socket = await stack.enter_async_context(connect(url, host="127.0.0.1", proxy=None))
            await socket.recv()
            sockets.append(socket)
        load = await stack.enter_async_context(Load(turnout.port))
        await asyncio.to_thread(_reload_thirty_times, turnout)
        for socket in sockets:
            await socket.send("noticed nothing")
            assert await socket.recv() == "noticed nothing"
        await load.more(20)
    assert load.failures == []
    assert len(load.seen) > 300


def test_an_invalid_file_names_line_column_and_everything_wrong(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"))
    broken = copy.deepcopy(turnout.config)
    broken["services"]["shop"]["wieghts"] = {"blue": 100}
    broken["services"]["shop"]["active"] = "purple"
    turnout.write(broken)
    errors = turnout.reload().json()["errors"]
    assert any("wieghts" in error and "weights" in error for error in errors)
    assert any("purple" in error for error in errors)
    assert all(":" in error and str(turnout.path) in error for error in errors)
    turnout.write(turnout.config)
    assert turnout.reload().json() | {"errors": []} == turnout.reload().json()
    assert not _last_error(turnout)


def test_what_cannot_change_live_is_refused_with_a_sentence(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"))
    turnout.write({**turnout.config, "state": str(turnout.directory / "elsewhere")})
    answer = turnout.reload().json()
    assert answer.get("applied") is not True
    assert "state" in str(answer)
    turnout.write(turnout.config)
    turnout.reload()
    assert not _last_error(turnout)


async def test_a_listener_is_added_and_removed_by_a_reload(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"))
    second = free_port()
    path = turnout.directory / "turnout.sock"
    more = copy.deepcopy(turnout.config)
    more["listeners"] += [{"bind": f"127.0.0.1:{second}"}, {"bind": f"unix:{path}"}]
    async with Load(turnout.port, clients=4) as load:
        await load.more(20)
        turnout.write(more)
        assert (await asyncio.to_thread(turnout.reload)).json()["errors"] == []
        assert await pools(second, 20) == {"blue": 20}
        reader, writer = await asyncio.open_unix_connection(str(path))
        async with Wire(reader, writer) as wire:
            assert (await wire.request("/who")).pool == "blue"
        turnout.write(turnout.config)
        assert (await asyncio.to_thread(turnout.reload)).json()["errors"] == []
        with pytest.raises(ConnectionRefusedError):
            await Wire.to(second)
        with pytest.raises(OSError, match=r"refused|No such file"):
            await asyncio.open_unix_connection(str(path))
        await load.more(20)
    assert load.failures == []


async def test_a_run_time_value_survives_a_reload_unless_the_file_changed_that_value(
    stage: Stage,
) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), balance="round_robin")
    turnout.weights(blue=75, green=25)
    other = copy.deepcopy(turnout.config)
    other["services"]["shop"]["balance"] = "least_requests"
    turnout.write(other)
    assert turnout.reload().json()["errors"] == []
    assert _green(turnout) == 25
    assert turnout.service()["weights"]["source"] == "api"
    turnout.write(_with_green(other, 5))
    assert turnout.reload().json()["errors"] == []
    assert _green(turnout) == 5
    assert turnout.service()["weights"]["source"] == "file"


async def test_a_removed_endpoint_gets_nothing_new_and_finishes_what_it_has(stage: Stage) -> None:
    blue = stage.origin("blue", "v41", 2)
    turnout = stage.turnout(blue, stage.origin("green"), balance="round_robin")
    async with Load(turnout.port, clients=6, path="/slow?s=0.3", pause_s=0) as load:
        await load.more(12)
        smaller = copy.deepcopy(turnout.config)
        smaller["services"]["shop"]["pools"]["blue"]["endpoints"] = blue.addresses[:1]
        turnout.write(smaller)
        answer = (await asyncio.to_thread(turnout.reload)).json()
        assert answer["errors"] == []
        before = blue.stats()[1]["requests"]
        await load.more(30)
        # One more is the question itself.
        assert blue.stats()[1]["requests"] == before + 1
    assert load.failures == []
