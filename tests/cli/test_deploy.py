"""deploy: what is sent, what is told on the way, and what its exit code says of the end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from proxy.cli import polling, progress
from proxy.cli.deploy import parse_endpoints

Build = Callable[..., Any]
SHOP = "/v1/services/shop"
POST, GET = f"POST {SHOP}/deploy", f"GET {SHOP}"
GO = ("deploy", "shop", "--endpoints", "10.0.0.1:8000,10.0.0.2:8000")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


@pytest.fixture
def play(admin: Any, turnout: Build) -> Build:
    """Run the deploy against these views in turn."""

    def run(first: dict[str, Any], *views: dict[str, Any], argv: tuple[str, ...] = ()) -> Any:
        admin.set(POST, 202, first)
        for view in views:
            admin.then(GET, 200, view)
        return turnout(*GO, *argv)

    return run


def lines_of(out: str) -> list[str]:
    """The lines without their times, which are those of a busy machine."""
    lines = [re.sub(r"^\d\d:\d\d:\d\d  ", "", line) for line in out.splitlines()]
    return [re.sub(r"after \d(\.\d)?s;", "after a moment;", line) for line in lines]


def done(rollout_view: Build, emptied: Build, **more: Any) -> dict[str, Any]:
    view: dict[str, Any] = emptied(rollout_view("promoted", 100, **more))
    return view


def test_a_deploy_that_goes_well_is_told_step_by_step(
    play: Build, rollout_view: Build, emptied: Build
) -> None:
    first = {"step": 1, "bake_left_s": 120.0, "requests": 3}
    ran = play(
        rollout_view("warming", 0),
        rollout_view("baking", 1, rollout=first),
        rollout_view("baking", 1, rollout={**first, "bake_left_s": 100.0}),
        rollout_view("baking", 10),
        rollout_view("promoted", 100),
        done(rollout_view, emptied),
    )
    assert ran.code == 0
    numbers = "failed in the last second: green 0 of 10, blue 1 of 90; evidence 0.3 of 5.3 (errors)"
    assert lines_of(ran.out) == [
        "warming: green gets nothing before it is ready; unix:/run/g.sock: unreachable",
        "step 1 of 3: green 1 %, 2m of 2m left; waits for 97 of 100 requests; 3 requests; "
        + numbers,
        "step 2 of 3: green 10 %, 3m12s of 5m left; 812 requests; " + numbers,
        "promoted: green has everything; blue drains: 9 requests, 2 streams, 1 tunnel, 1s left",
        "shop: green (v42) has everything after a moment; blue is empty and may be stopped.",
    ]


def test_everything_that_was_asked_for_is_sent(
    play: Build, admin: Any, rollout_view: Build, emptied: Build
) -> None:
    end = done(rollout_view, emptied)
    play(
        end, argv=("--release", "v42", "--pool", "green", "--min-ready", "1", "--steps", "5:1m,100")
    )
    assert admin.calls[0].body == {
        "endpoints": ["10.0.0.1:8000", "10.0.0.2:8000"],
        "release": "v42",
        "pool": "green",
        "min_ready": 1,
        "now": False,
        "ready_timeout": "60s",
        "force": False,
        "reason": "",
        "steps": [{"weight": 5, "bake": "1m"}, {"weight": 100}],
    }
    play(end, argv=("--to", "100", "--wait", "--force", "--reason", "pipeline 7"))
    body = admin.calls[-1].body
    assert (body["to"], body["force"], body["reason"]) == (100, True, "pipeline 7")
    play(end, argv=("--now",))
    assert admin.calls[-1].body["now"] is True


def test_who_does_not_wait_is_told_how_to_watch(
    play: Build, admin: Any, rollout_view: Build
) -> None:
    ran = play(rollout_view("warming", 0), argv=("--no-wait",))
    assert (ran.code, len(admin.calls)) == (0, 1)
    assert "rollout 12 to green (v42) has begun" in ran.out


def test_a_release_that_is_not_ready_is_exit_3(play: Build, rollout_view: Build) -> None:
    reason = "not ready within 60 s: 10.0.0.1:8000: connection refused"
    ran = play(
        rollout_view("warming", 0),
        rollout_view("steady", 0, rollout={"reason": reason, "end": "not_ready"}),
    )
    assert ran.code == 3
    assert ran.err == f"turnout: shop: green was {reason}; nothing has changed\n"


def test_a_rollback_by_the_guard_is_exit_4_with_its_numbers(
    play: Build, rollout_view: Build
) -> None:
    reason = "errors: candidate 23 of 412 (5.6 %), active 9 of 7,905 (0.11 %)"
    locked = {"release": "v42", "since": None, "until": None, "reason": reason, "rollout": 12}
    after = rollout_view("rolled_back", 0, rollout={"reason": reason}, lockout=locked)
    ran = play(rollout_view("warming", 0), rollout_view("baking", 10), after)
    assert ran.code == 4
    assert ran.err == (
        f"turnout: shop: rolled back after 14s at 10 %: {reason}; all traffic to blue\n"
        "  v42 is locked out: deploy another release, or say 'turnout unlock shop' first\n"
    )


@pytest.mark.parametrize(
    ("end", "reason", "said"),
    [
        ("aborted", None, "aborted after 14s at 10 %; all traffic to blue"),
        ("aborted", "wrong build", "aborted after 14s at 10 %: wrong build; all traffic to blue"),
        (
            "superseded",
            "superseded by the file",
            "ended after 14s at 10 %: superseded by the file; all traffic to blue",
        ),
        # A person may write what the proxy says of a candidate that never had anything.
        ("aborted", "not ready", "aborted after 14s at 10 %: not ready; all traffic to blue"),
    ],
)
def test_an_abort_is_exit_4(
    play: Build, rollout_view: Build, end: str, reason: str | None, said: str
) -> None:
    ran = play(rollout_view(), rollout_view("steady", 0, rollout={"reason": reason, "end": end}))
    assert (ran.code, ran.err) == (4, f"turnout: shop: {said}\n")


def test_a_rollback_while_the_old_pool_drains_is_exit_4(
    play: Build, rollout_view: Build, drain_view: Build
) -> None:
    draining = rollout_view("promoted", 100, drain=drain_view(0, 1))
    ran = play(
        draining,
        rollout_view("asking", 80),
        rollout_view("rolled_back", 0, rollout={"reason": "record"}),
    )
    assert ran.code == 4
    assert "rolled back after 14s at 80 %: record" in ran.err


def test_the_old_pool_has_to_be_empty_not_only_left(
    play: Build, admin: Any, rollout_view: Build, drain_view: Build
) -> None:
    def view(*left: int, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = rollout_view("promoted", 100, drain=drain_view(*left, **more))
        return found

    cut = {"request": 0, "stream": 0, "tunnel": 2}
    ran = play(view(3, 2), view(0, 2), view(done=False, deadline_s=1.0), view(cut=cut))
    assert ran.code == 0
    assert len(admin.calls) == 4
    assert ran.out.splitlines()[-1].endswith(
        "blue is empty (2 tunnels cut at the deadline) and may be stopped."
    )


def test_another_drain_is_not_mistaken_for_that_of_the_old_pool(
    play: Build, admin: Any, rollout_view: Build, drain_view: Build, emptied: Build
) -> None:
    other = drain_view(pool="green", endpoint="10.0.0.9:80")
    ran = play(
        rollout_view("promoted", 100, drain=other),
        emptied(rollout_view("promoted", 100, drain=other)),
    )
    assert (ran.code, len(admin.calls)) == (0, 2)


def test_a_finished_rollout_whose_old_pool_is_empty_is_done(
    play: Build, rollout_view: Build, emptied: Build
) -> None:
    assert play(rollout_view(), emptied(rollout_view("steady", 100))).code == 0


def test_a_drain_that_does_not_end_is_exit_5(
    play: Build, rollout_view: Build, drain_view: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.cli.following.GRACE_S", 0.05)
    stuck = rollout_view("promoted", 100, drain=drain_view(0, 1, deadline_s=0.0))
    ran = play(stuck, stuck)
    assert ran.code == 5
    assert "blue is not empty long after its deadline: 1 tunnel left" in ran.err


def test_out_of_time_says_where_it_is_and_that_it_goes_on(play: Build, rollout_view: Build) -> None:
    paused = {"paused": "operator", "reason": "lunch"}
    ran = play(rollout_view("paused", 10, rollout=paused), argv=("--timeout", "0s"))
    assert ran.code == 5
    assert "not done within 0s: paused at step 2 of 3: green 10 % (operator): lunch" in ran.err
    assert "the rollout goes on ('turnout rollout abort shop' stops it)" in ran.err


def test_another_rollout_in_its_place_is_not_taken_for_ours(
    play: Build, rollout_view: Build, emptied: Build
) -> None:
    other = emptied(rollout_view("promoted", 100, rollout={"id": 13}))
    ran = play(rollout_view(), other)
    assert ran.code == 1
    assert "rollout 12 was not seen to its end, and rollout 13 to green (v42)" in ran.err


def test_a_proxy_that_restarts_is_waited_for(
    play: Build, admin: Any, rollout_view: Build, emptied: Build, refusal: Build
) -> None:
    admin.then(GET, 503, refusal(503, "starting"))
    ran = play(rollout_view(), done(rollout_view, emptied))
    assert (ran.code, lines_of(ran.out)[1]) == (0, "starting")


def test_a_proxy_that_is_gone_is_exit_6(
    play: Build, admin: Any, rollout_view: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "PATIENCE_S", 0.0)
    admin.set(GET, 200, b"<html>somebody else's page</html>")
    assert play(rollout_view()).code == 6


def test_a_refused_deploy_is_exit_1_and_nothing_is_waited_for(
    admin: Any, turnout: Build, refusal: Build
) -> None:
    admin.set(POST, 409, refusal(409, "v42 is locked out since rollout 11 was rolled back"))
    ran = turnout(*GO)
    assert (ran.code, len(admin.calls)) == (1, 1)


@pytest.mark.parametrize(
    "argv",
    [
        ("--to", "50"),
        ("--to", "100", "--steps", "100"),
        ("--now", "--steps", "100"),
        ("--min-ready", "0"),
        ("--ready-timeout", "5"),
        ("--timeout", "soon"),
        ("--no-wait", "--timeout", "5m"),
        ("--endpoints", " , "),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    admin: Any, turnout: Build, argv: tuple[str, ...]
) -> None:
    ran = turnout(*GO, *argv)
    assert (ran.code, admin.calls) == (2, [])


def test_endpoints_are_parted_by_commas() -> None:
    assert parse_endpoints("10.0.0.1:80, unix:/run/a.sock,") == ["10.0.0.1:80", "unix:/run/a.sock"]


def test_json_is_a_view_for_each_change_and_the_last_one_at_the_end(
    play: Build, rollout_view: Build, emptied: Build
) -> None:
    later = rollout_view("baking", 10, rollout={"requests": 900})
    end = done(rollout_view, emptied)
    views = rollout_view("warming", 0), rollout_view("baking", 10), later, end
    ran = play(*views, argv=("--output", "json"))
    assert ran.code == 0
    assert [json.loads(line) for line in ran.out.splitlines()] == [views[0], views[1], end]
    assert ran.err == ""


def test_json_ends_with_the_view_of_the_failure_too(play: Build, rollout_view: Build) -> None:
    end = rollout_view("rolled_back", 0, rollout={"reason": "errors"})
    ran = play(rollout_view(), end, argv=("--output", "json"))
    assert (ran.code, json.loads(ran.out.splitlines()[-1])) == (4, end)


def test_a_line_comes_at_least_every_half_minute(
    play: Build, rollout_view: Build, emptied: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    same = rollout_view()
    ran = play(same, same, same, done(rollout_view, emptied))
    assert sum("step 2 of 3" in line for line in ran.out.splitlines()) == 3


def test_an_interrupt_leaves_it_going_on_and_says_so(admin: Any, rollout_view: Build) -> None:
    admin.set(POST, 202, rollout_view())
    admin.set(GET, 200, rollout_view())
    command = [sys.executable, "-u", "-m", "proxy.cli.main", *GO]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert "step 2 of 3" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ("turnout: shop: the rollout goes on ('turnout rollout abort shop' stops it)\n")
