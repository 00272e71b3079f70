"""rollout and unlock: what they send, and what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
import pytest

from proxy.cli.rollout import parse_steps

Build = Callable[..., Any]
SHOP = "/v1/services/shop"


def test_a_start_sends_its_steps_and_says_how_to_watch(
    admin: Any, turnout: Build, rollout_view: Build
) -> None:
    admin.set(f"POST {SHOP}/rollout", 202, rollout_view("warming", 0))
    ran = turnout("rollout", "start", "shop", "--to", "green", "--steps", "1:2m,10:5m:pause,100")
    assert ran.code == 0
    assert ran.out == (
        "shop: rollout 12 to green (v42) has begun: warming: green gets nothing before it is"
        " ready; unix:/run/g.sock: unreachable. 'turnout status shop --watch' shows it.\n"
    )
    assert admin.calls[-1].body == {
        "to": "green",
        "steps": [
            {"weight": 1, "bake": "2m"},
            {"weight": 10, "bake": "5m", "pause": True},
            {"weight": 100},
        ],
        "ready_timeout": "60s",
        "force": False,
        "reason": "",
    }


def test_a_start_without_steps_leaves_them_to_the_configuration(
    admin: Any, turnout: Build, rollout_view: Build
) -> None:
    admin.set(f"POST {SHOP}/rollout", 202, rollout_view("warming", 0))
    turnout("rollout", "start", "shop", "--to", "green", "--force", "--ready-timeout", "2m")
    body = admin.calls[-1].body
    assert "steps" not in body
    assert (body["force"], body["ready_timeout"]) == (True, "2m")


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("100", [{"weight": 100}]),
        ("0.5%:1h30m, 100", [{"weight": 0.5, "bake": "1h30m"}, {"weight": 100}]),
        ("50:pause,100", [{"weight": 50, "pause": True}, {"weight": 100}]),
    ],
)
def test_steps_are_weight_bake_and_pause(text: str, steps: list[dict[str, Any]]) -> None:
    assert parse_steps(text) == steps


@pytest.mark.parametrize(
    "text", ["", "x", "10:", "10:5", "10:5m:stop", "10:5m:pause:1", "101", "1,"]
)
def test_steps_that_are_none_are_a_usage_error(text: str) -> None:
    with pytest.raises(click.UsageError):
        parse_steps(text)


def test_a_refused_start_exits_1_and_an_impossible_one_2(
    admin: Any, turnout: Build, refusal: Build
) -> None:
    why = "rollout 11 to green is baking"
    admin.set(f"POST {SHOP}/rollout", 409, refusal(409, why))
    ran = turnout("rollout", "start", "shop", "--to", "green")
    assert (ran.code, ran.err) == (1, f"turnout: {why}\n")
    admin.set(f"POST {SHOP}/rollout", 422, refusal(422, "steps", errors=["steps[0].weight: is 0"]))
    ran = turnout("rollout", "start", "shop", "--to", "green", "--steps", "0,100")
    assert (ran.code, ran.err) == (2, "turnout: steps\n  steps[0].weight: is 0\n")


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "abort", "rejudge"])
def test_each_verb_posts_its_reason_and_says_where_the_rollout_is(
    admin: Any, turnout: Build, rollout_view: Build, verb: str
) -> None:
    admin.set(f"POST {SHOP}/rollout/{verb}", 200, rollout_view("baking"))
    ran = turnout("rollout", verb, "shop", "--reason", "lunch")
    assert (ran.code, admin.calls[-1].body) == (0, {"reason": "lunch"})
    assert (
        ran.out == "shop: rollout 12 to green (v42): step 2 of 3: green 10 %, 3m12s of 5m left.\n"
    )
    ran = turnout("rollout", verb, "shop", "--output", "json")
    assert json.loads(ran.out) == rollout_view("baking")


def test_an_abort_can_be_forced(admin: Any, turnout: Build, rollout_view: Build) -> None:
    admin.set(f"POST {SHOP}/rollout/abort", 200, rollout_view("steady", 0))
    assert turnout("rollout", "abort", "shop", "--force").code == 0
    assert admin.calls[-1].body == {"force": True, "reason": ""}


def test_an_abort_says_who_has_the_traffic_and_what_drains(
    admin: Any, turnout: Build, rollout_view: Build, drain_view: Build
) -> None:
    after = rollout_view("steady", 0, drain=drain_view(3, pool="green"))
    admin.set(f"POST {SHOP}/rollout/abort", 200, after)
    assert turnout("rollout", "abort", "shop").out == (
        "shop: rollout 12 to green (v42): ended. Now all traffic to blue."
        " green drains: 3 requests, 4m58s left.\n"
    )


def test_an_unlock_names_the_release(admin: Any, turnout: Build, rollout_view: Build) -> None:
    locked = {"release": "v42", "since": None, "until": None, "reason": "errors", "rollout": 12}
    admin.set(f"GET {SHOP}", 200, rollout_view("rolled_back", 0, lockout=locked))
    admin.set(f"POST {SHOP}/unlock", 200, rollout_view("steady", 0))
    ran = turnout("unlock", "shop", "--reason", "it was the cache")
    assert (ran.code, ran.out) == (0, "shop: v42 may start again.\n")
    assert admin.calls[-1].body == {"reason": "it was the cache"}
    assert json.loads(turnout("unlock", "shop", "--output", "json").out)["lockout"] is None


def test_a_verb_of_rollout_that_is_none_is_a_usage_error(admin: Any, turnout: Build) -> None:
    ran = turnout("rollout", "stop", "shop")
    assert ran.code == 2
    assert "stop" in ran.err
    assert admin.calls == []
