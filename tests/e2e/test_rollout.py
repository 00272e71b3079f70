"""Rollouts and deploys, seen from outside: `turnout deploy` under load, and what its exit code says."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.load import Load
from tests.e2e.stage import Origin, Stage, Turnout, wait_until

HEALTH = {"path": "/healthz", "interval": "200ms", "rise": 1}
QUICK: dict[str, Any] = {
    "steps": [{"weight": 10, "bake": "2s"}, {"weight": 50, "bake": "2s"}, {"weight": 100}],
    "min_requests": 20,
    "keep_old": "60s",
}
SLOW: dict[str, Any] = {**QUICK, "steps": [{"weight": 10, "bake": "60s"}, {"weight": 100}]}


class Site:
    """A service whose pool green is empty, and who deploys there while clients come."""

    def __init__(self, stage: Stage, turnout: Turnout, blue: Origin, load: Load) -> None:
        self.stage = stage
        self.turnout = turnout
        self.blue = blue
        self.load = load

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One command of ours, to its end."""
        admin = f"http://127.0.0.1:{self.turnout.admin}"
        return subprocess.run(
            [sys.executable, "-m", "proxy.cli.main", *words, "--admin", admin],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            cwd=self.turnout.directory,
        )

    async def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(self.cli, *words)

    async def deploy(self, origin: Origin, *more: str) -> subprocess.CompletedProcess[str]:
        return await self.run("deploy", "shop", "--endpoints", ",".join(origin.addresses), *more)

    def deploying(self, origin: Origin) -> asyncio.Task[subprocess.CompletedProcess[str]]:
        """A deploy that is to be watched, or disturbed, meanwhile."""
        return asyncio.get_running_loop().create_task(self.deploy(origin, "--release", "v42"))

    async def view(self) -> Any:
        return await asyncio.to_thread(self.turnout.service)

    async def phase(self, phase: str, timeout_s: float = 60.0) -> Any:
        await asyncio.to_thread(
            wait_until,
            lambda: (
                (view := self.turnout.service())["rollout"] and view["rollout"]["phase"] == phase
            ),
            f"the rollout is {phase}",
            timeout_s=timeout_s,
        )
        return await self.view()


@pytest.fixture(params=[QUICK], ids=["quick"])
async def site(stage: Stage, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    blue = stage.origin("blue", "v41", 2)
    keys = {"rollout": request.param, "health": HEALTH, "retry": {"budget": "100%"}}
    turnout = await asyncio.to_thread(lambda: stage.turnout(blue, [], **keys))
    async with Load(turnout.port, clients=44, pause_s=0.1) as load:
        await load.more(400)
        yield Site(stage, turnout, blue, load)


slowly = pytest.mark.parametrize("site", [SLOW], ids=["slow"], indirect=True)


async def test_a_good_release_gets_everything_step_by_step_and_deploy_exits_0(site: Site) -> None:
    green = site.stage.origin("green", "v42", 2)
    done = await site.deploy(green, "--release", "v42")
    assert done.returncode == 0, done.stdout + done.stderr
    before = await asyncio.to_thread(site.blue.stats)
    view = await site.view()
    assert (view["active"], view["weights"]["in_force"]["green"]) == ("green", 100.0)
    assert view["rollout"]["phase"] in {"promoted", "steady"}
    since_s = time.monotonic()
    await site.load.more(400)
    assert site.load.shares(since_s) == {"green": 100}
    after = await asyncio.to_thread(site.blue.stats)
    asked = [
        (each["requests"] - each["checks"]) - (was["requests"] - was["checks"])
        for was, each in zip(before, after, strict=True)
    ]
    assert asked == [1, 1], "the old pool is empty and stays so, but for our own question"
    weights = [
        each["to"]["weights"]["green"]
        for each in await asyncio.to_thread(site.turnout.get, "/v1/services/shop/decisions")
        if each["what"] == "rollout"
    ]
    assert weights == [0, 10, 50, 99, 100], "the last step leaves a holdback"
    assert site.load.failures == []


async def test_endpoints_that_do_not_come_up_are_exit_3_and_nothing_has_changed(
    site: Site,
) -> None:
    green = site.stage.origin("green", "v42", 2)
    await asyncio.to_thread(green.set_health, 1, status=503)
    before = await site.view()
    done = await site.deploy(green, "--release", "v42", "--ready-timeout", "5s")
    assert done.returncode == 3, done.stdout + done.stderr
    assert green.addresses[1] in done.stderr
    assert "503" in done.stderr, "the last answer to a check, in words"
    view = await site.view()
    assert view["weights"]["in_force"] == before["weights"]["in_force"]
    assert view["pools"]["green"]["endpoints"] == []
    assert view["pools"]["green"]["release"] == before["pools"]["green"]["release"]
    seen = await asyncio.to_thread(green.stats)
    assert sum(each["last_asked_s"] for each in seen) == 0, "nothing was sent to it"
    assert site.load.failures == []


@slowly
async def test_a_bad_release_is_exit_4_and_says_why(site: Site) -> None:
    green = site.stage.origin("green", "v42", 2)
    await asyncio.to_thread(green.misbehave, 1.0, "reset")
    done = await site.deploy(green, "--release", "v42")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "down" in done.stderr
    view = await site.view()
    assert view["weights"]["in_force"]["blue"] == 100.0
    assert view["lockout"]["release"] == "v42"
    assert site.load.failures == [], "every failure was rescued"
    again = await site.deploy(green, "--release", "v42")
    assert again.returncode == 1
    assert "lock" in again.stderr
    await asyncio.to_thread(green.misbehave, 0.0)
    assert (await site.run("unlock", "shop", "--reason", "fixed")).returncode == 0
    done = await site.deploy(green, "--release", "v42", "--now")
    assert done.returncode == 0, done.stdout + done.stderr


@slowly
async def test_a_person_who_turns_back_or_aborts_ends_the_deploy_with_4(site: Site) -> None:
    green = site.stage.origin("green", "v42", 2)
    for verb in (["rollback", "shop", "--reason", "wrong"], ["rollout", "abort", "shop"]):
        deploying = site.deploying(green)
        await site.phase("baking")
        assert (await site.run(*verb)).returncode == 0
        done = await deploying
        assert done.returncode == 4, done.stdout + done.stderr
        view = await site.view()
        assert view["weights"]["in_force"]["blue"] == 100.0
        assert view["lockout"] is None


@slowly
async def test_who_waits_no_longer_gets_5_and_the_rollout_goes_on(site: Site) -> None:
    green = site.stage.origin("green", "v42", 2)
    done = await site.deploy(green, "--release", "v42", "--timeout", "3s")
    assert done.returncode == 5, done.stdout + done.stderr
    view = await site.view()
    assert view["rollout"]["phase"] == "baking"
    refused = await site.deploy(green, "--release", "v43")
    assert refused.returncode == 1
    assert f"rollout {view['rollout']['id']}" in refused.stderr
    assert (await site.run("switch", "shop", "--to", "green")).returncode == 1


@slowly
async def test_pause_resume_and_promote_do_what_they_say(site: Site) -> None:
    green = site.stage.origin("green", "v42", 2)
    deploying = site.deploying(green)
    await site.phase("baking")
    await site.load.more(200)
    assert (await site.run("rollout", "pause", "shop", "--reason", "lunch")).returncode == 0
    view = await site.phase("paused")
    left_s = view["rollout"]["bake_left_s"]
    assert view["rollout"]["paused"] == "operator"
    began_s = time.monotonic()
    await site.load.more(1200)
    assert site.load.shares(began_s)["green"] == pytest.approx(10, abs=2.5)
    view = await site.view()
    assert view["rollout"]["bake_left_s"] == pytest.approx(left_s, abs=0.1)
    assert (await site.run("rollout", "pause", "shop")).returncode == 1, "it is paused already"
    assert (await site.run("rollout", "resume", "shop")).returncode == 0
    await site.phase("baking")
    assert (await site.run("rollout", "promote", "shop")).returncode == 0
    done = await deploying
    assert done.returncode == 0, done.stdout + done.stderr
    assert (await site.view())["active"] == "green"
    assert site.load.failures == []


async def test_a_deploy_goes_on_over_a_kill_9_of_the_proxy(site: Site) -> None:
    """The pipeline's command sees the proxy go and come back."""
    green = site.stage.origin("green", "v42", 2)
    deploying = site.deploying(green)
    await site.phase("baking")
    before = (await site.view())["rollout"]
    await asyncio.to_thread(site.turnout.kill_all)
    await asyncio.to_thread(site.turnout.start)
    after = (await site.view())["rollout"]
    assert after["id"] == before["id"]
    done = await deploying
    assert done.returncode == 0, done.stdout + done.stderr
    assert (await site.view())["active"] == "green"


async def test_as_json_a_deploy_ends_with_one_line_that_a_program_can_read(site: Site) -> None:
    green = site.stage.origin("green", "v42", 2)
    done = await site.deploy(green, "--release", "v42", "--now", "--output", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(last, dict)
