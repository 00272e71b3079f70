"""The guard, seen from outside: real proxies turn bad releases back while clients send 400 a second.

Times are measured at the endpoints: from the first bad answer to the last request that the
candidate gets. They are printed; bounds are twice what holds on a quiet machine.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.e2e.load import Load
from tests.e2e.stage import Origin, Stage, Turnout, wait_until

ROLLOUT = "/v1/services/shop/rollout"
BAKE: dict[str, Any] = {
    "steps": [{"weight": 10, "bake": "60s"}, {"weight": 100, "bake": "60s"}],
    "keep_old": "120s",
}
RATE = 400.0
HEALTH = {"path": "/healthz", "interval": "500ms", "rise": 1}
PATIENT = {"budget": "100%", "floor": 1000}
"""A budget for retries that saves every client that can be saved."""


class Trial:
    """A service with two pools under load, and a rollout from blue to green."""

    def __init__(self, turnout: Turnout, blue: Origin, green: Origin, load: Load) -> None:
        self.turnout = turnout
        self.blue = blue
        self.green = green
        self.load = load
        self.baking_s = 0.0

    async def ask(self, path: str, body: Any = None, *, status: int | None = None) -> Any:
        reply = await asyncio.to_thread(
            self.turnout.ask, "POST", f"/v1/services/shop{path}", body or {}
        )
        assert reply.status == status or (status is None and reply.status in {200, 202}), reply.body
        return reply.json()

    async def view(self) -> Any:
        return await asyncio.to_thread(self.turnout.service)

    async def until(
        self, condition: Callable[[Any], Any], what: str, timeout_s: float = 60.0
    ) -> Any:
        """Wait for what the service's view shows; return that view."""
        return await asyncio.to_thread(
            wait_until,
            lambda: (view := self.turnout.service()) and condition(view) and view,
            what,
            timeout_s=timeout_s,
        )

    async def phase(self, phase: str, timeout_s: float = 60.0) -> Any:
        return await self.until(
            lambda view: view["rollout"] and view["rollout"]["phase"] == phase,
            f"the rollout is {phase}",
            timeout_s,
        )

    async def start(self, **more: Any) -> Any:
        await self.ask("/rollout", {"to": "green", **more})
        view = await self.phase("baking")
        self.baking_s = time.monotonic()
        await self.load.more(400)
        return view

    async def everything_on_green(self) -> None:
        """Green has everything, after seconds in which both were well, so that there is a record."""
        await self.start()
        await self.load.more(1200)
        await self.ask("/rollout/promote")
        await self.phase("promoted")
        await self.load.more(400)

    async def breaks(self, origin: Origin, share: float, how: str = "500") -> None:
        await asyncio.to_thread(origin.misbehave, share, how)

    async def turned_back(self, timeout_s: float) -> tuple[Any, float]:
        """Wait for the rollback; the view then, and seconds from first bad answer to last request.

        Seconds of a machine on which the clients get their 400 answers a second.
        """
        view = await self.phase("rolled_back", timeout_s)
        assert view["weights"]["in_force"] == {"blue": 100.0, "green": 0.0}, view["weights"]
        await self.load.more(100)
        seen = await asyncio.to_thread(self.green.stats)
        await self.load.more(400)
        assert [each["requests"] - each["checks"] for each in await self._green()] == [
            each["requests"] - each["checks"] + 1 for each in seen
        ], "nothing reaches green any more but this question"
        first = min(each["first_failed_s"] for each in seen if each["first_failed_s"])
        last = max(each["last_asked_s"] for each in seen)
        took_s = (last - first) * min(1.0, self._rate(first, last) / RATE)
        print(f"turned back {took_s:.2f} s after the first bad answer: {view['rollout']['reason']}")  # noqa: T201
        return view, took_s

    def _rate(self, first_s: float, last_s: float) -> float:
        """Answers a second meanwhile: where the machine is busy, the judge sees less in a second."""
        count = sum(first_s <= seen.answered_s <= last_s for seen in self.load.seen)
        return count / max(last_s - first_s, 0.001)

    async def _green(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.green.stats)

    async def decisions(self) -> list[Any]:
        listed: list[Any] = await asyncio.to_thread(self.turnout.get, "/v1/services/shop/decisions")
        return listed


@pytest.fixture
async def trial(stage: Stage) -> AsyncIterator[Trial]:
    async with on_trial(stage) as made:
        yield made


@asynccontextmanager
async def on_trial(stage: Stage, **service: Any) -> AsyncIterator[Trial]:
    blue, green = stage.origin("blue", "v41", 2), stage.origin("green", "v42", 2)
    keys = {"rollout": BAKE, "health": HEALTH, "retry": PATIENT, **service}
    turnout = await asyncio.to_thread(lambda: stage.turnout(blue, green, **keys))
    async with Load(turnout.port, clients=44, pause_s=0.1) as load:
        await load.more(400)
        yield Trial(turnout, blue, green, load)


# ---- a release that fails ----


@pytest.mark.parametrize(
    ("share", "how", "within_s"),
    [(1.0, "reset", 3.0), (1.0, "500", 3.0), (0.5, "500", 4.0), (0.1, "500", 15.0)],
)
async def test_a_bad_release_is_turned_back_and_locked_out(
    trial: Trial, share: float, how: str, within_s: float
) -> None:
    await trial.start()
    await trial.breaks(trial.green, share, how)
    view, took_s = await trial.turned_back(60)
    assert took_s < within_s * 2
    assert view["lockout"]["release"] == "v42"
    assert view["active"] == "blue"
    assert trial.turnout.metric("turnout_rollbacks_total", service="shop") == 1


async def test_a_release_whose_failures_are_all_rescued_is_turned_back_all_the_same(
    trial: Trial,
) -> None:
    await trial.start()
    await trial.breaks(trial.green, 1.0, "reset")
    _, took_s = await trial.turned_back(60)
    assert took_s < 6.0
    assert trial.load.failures == [], "no user has seen any of it"
    assert trial.turnout.metric("turnout_retries_total", outcome="rescued") > 0


async def test_the_decision_says_why_with_the_numbers(trial: Trial) -> None:
    await trial.start()
    await trial.breaks(trial.green, 0.5)
    view, _ = await trial.turned_back(60)
    decision = next(
        each for each in reversed(await trial.decisions()) if each["what"] == "rollback"
    )
    assert decision["who"] == "guard"
    assert decision["why"] == view["rollout"]["reason"] == view["lockout"]["reason"]
    assert re.search(r"green [0-9,]+ of [0-9,]+ \(.* %\), blue 0 of", decision["why"])
    assert decision["numbers"]["verdict"] == "FAIL"
    (failing,) = [each for each in decision["numbers"]["tests"] if each["name"] == "errors"]
    assert failing["bar"] > 0


async def test_what_is_locked_out_does_not_start_again_until_it_is_unlocked(
    trial: Trial,
) -> None:
    await trial.start()
    await trial.breaks(trial.green, 1.0)
    await trial.turned_back(60)
    await trial.breaks(trial.green, 0.0)
    refusal = await trial.ask("/rollout", {"to": "green"}, status=409)
    assert "lock" in refusal["detail"]
    refusal = await trial.ask("/switch", {"to": "green"}, status=409)
    assert "lock" in refusal["detail"]
    view = await trial.ask("/unlock", {"reason": "it was the database"})
    assert view["lockout"] is None
    await trial.start()
    assert trial.load.shares(trial.baking_s)["green"] == pytest.approx(10, abs=4)


# ---- an outage that is nobody's release ----


async def test_where_both_pools_fail_alike_it_holds_and_does_not_turn_back(trial: Trial) -> None:
    await trial.start()
    await asyncio.gather(trial.breaks(trial.green, 0.3), trial.breaks(trial.blue, 0.3))
    view = await trial.until(lambda view: view["guard"]["verdict"] == "HOLD", "the judge holds")
    left_s = view["rollout"]["bake_left_s"]
    until = time.monotonic() + 10
    while time.monotonic() < until:
        view = await trial.view()
        assert view["rollout"]["phase"] == "baking", view["rollout"]
        await asyncio.sleep(0.25)
    assert view["weights"]["in_force"]["green"] == 10.0
    assert view["rollout"]["bake_left_s"] == pytest.approx(left_s, abs=4), "the clock stands"
    assert view["lockout"] is None


async def test_at_everything_an_outage_of_both_is_not_turned_back(trial: Trial) -> None:
    await trial.everything_on_green()
    await asyncio.gather(trial.breaks(trial.green, 0.3), trial.breaks(trial.blue, 0.3))
    phases = set()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        view = await trial.view()
        phases.add(view["rollout"]["phase"])
        await asyncio.sleep(0.1)
    assert phases == {"promoted", "asking"}
    assert view["weights"]["in_force"]["green"] == 100.0
    assert view["lockout"] is None


# ---- a release that fails once it has everything ----


async def test_a_release_that_breaks_once_it_has_everything_is_turned_back(trial: Trial) -> None:
    await trial.everything_on_green()
    await trial.breaks(trial.green, 0.5)
    view, took_s = await trial.turned_back(80)
    assert took_s < 20
    assert view["active"] == "blue"
    assert view["lockout"]["release"] == "v42"


@pytest.mark.parametrize("share", [1.0, 0.1])
async def test_after_a_plain_switch_a_bad_release_is_turned_back_too(
    trial: Trial, share: float
) -> None:
    """What is too little for the guards is held against what blue was like before the switch."""
    await trial.load.more(1200)
    await trial.ask("/switch", {"to": "green"})
    await trial.load.more(400)
    await trial.breaks(trial.green, share)
    view, took_s = await trial.turned_back(80)
    assert took_s < 30
    assert view["active"] == "blue"


# ---- what the guard is told ----


async def test_where_it_only_observes_it_says_what_it_would_have_done(stage: Stage) -> None:
    async with on_trial(stage, guard={"mode": "observe"}) as trial:
        await trial.start()
        await trial.breaks(trial.green, 1.0)
        await trial.until(lambda view: view["guard"]["verdict"] == "FAIL", "the verdict")
        await trial.load.more(800)
        view = await trial.view()
        assert view["rollout"]["phase"] == "baking"
        assert view["weights"]["in_force"]["green"] == 10.0
        said = [each for each in await trial.decisions() if each["what"] == "guard"]
        assert len(said) == 1
        assert "would have rolled back" in said[0]["why"]


# ---- deaths ----


async def test_after_kill_9_of_everything_the_same_step_goes_on_and_is_judged(
    trial: Trial,
) -> None:
    before = (await trial.start())["rollout"]
    await asyncio.to_thread(wait_until, lambda: _baked(trial, 8.0), "some of it is baked")
    await asyncio.to_thread(trial.turnout.kill_all)
    await asyncio.to_thread(trial.turnout.start)
    after = (await trial.view())["rollout"]
    assert (after["id"], after["phase"], after["step"]) == (before["id"], "baking", 1)
    assert after["bake_left_s"] < 56, "what was baked stays baked, but for the last seconds"
    since_s = time.monotonic()
    await trial.load.more(800)
    assert trial.load.shares(since_s)["green"] == pytest.approx(10, abs=4)
    await trial.breaks(trial.green, 1.0)
    _, took_s = await trial.turned_back(60)
    assert took_s < 6.0


def _baked(trial: Trial, seconds: float) -> bool:
    left: float = trial.turnout.service()["rollout"]["bake_left_s"]
    return left < 60.0 - seconds
