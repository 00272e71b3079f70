"""drain: what is begun, how long is waited, and what is said about what is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from proxy.cli import drain as module
from proxy.cli.drain import parse_target

Build = Callable[..., Any]
BEGIN = "POST /v1/services/shop/drain"
LOOK = "GET /v1/services/shop/drain"


@pytest.mark.parametrize(
    ("text", "service", "body"),
    [
        ("shop", "shop", {}),
        ("shop/blue", "shop", {"pool": "blue"}),
        ("shop/blue/10.0.0.1:80", "shop", {"pool": "blue", "endpoint": "10.0.0.1:80"}),
        ("shop/g/unix:/run/x.sock", "shop", {"pool": "g", "endpoint": "unix:/run/x.sock"}),
    ],
)
def test_a_target_is_split_at_its_first_two_slashes(
    text: str, service: str, body: dict[str, str]
) -> None:
    assert parse_target(text) == (service, body)


@pytest.mark.parametrize("text", ["", "/blue", "shop//x:1"])
def test_a_target_without_its_names_is_a_usage_error(admin: Any, turnout: Build, text: str) -> None:
    assert turnout("drain", text).code == 2
    assert admin.calls == []


def test_a_drain_that_begins_says_what_is_in_flight(
    admin: Any, turnout: Build, drain_view: Build
) -> None:
    admin.set(BEGIN, 202, drain_view(3, 1))
    ran = turnout("drain", "shop/blue")
    assert ran.code == 0
    assert ran.out == "shop: blue drains: 3 requests, 1 tunnel, 4m58s left.\n"
    assert admin.calls[0].body == {"pool": "blue", "undo": False}


def test_undo_is_one_call(admin: Any, turnout: Build, service_view: Build) -> None:
    admin.set(BEGIN, 200, service_view())
    ran = turnout("drain", "shop/blue/127.0.0.1:9001", "--undo")
    assert ran.out == "shop/blue/127.0.0.1:9001: takes new traffic again.\n"
    assert admin.calls[0].body["undo"] is True


def test_undo_and_wait_exclude_each_other(admin: Any, turnout: Build) -> None:
    assert turnout("drain", "shop", "--undo", "--wait").code == 2
    assert admin.calls == []


def test_waiting_ends_when_it_is_empty(admin: Any, turnout: Build, drain_view: Build) -> None:
    admin.set(BEGIN, 202, drain_view(3))
    admin.then(LOOK, 200, {"drain": drain_view(1), **drain_view(1)})
    admin.then(LOOK, 200, {"drain": drain_view(), **drain_view()})
    ran = turnout("drain", "shop", "--wait")
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "shop: blue is empty."
    assert [call.method for call in admin.calls] == ["POST", "GET", "GET"]
    assert "wait=20000ms" in admin.calls[1].path


def test_waiting_tells_what_was_cut_at_the_deadline(
    admin: Any, turnout: Build, drain_view: Build
) -> None:
    admin.set(BEGIN, 202, drain_view(0, 2))
    admin.set(LOOK, 200, drain_view(cut={"request": 0, "stream": 0, "tunnel": 2}))
    ran = turnout("drain", "shop", "--wait")
    assert ran.code == 0
    assert "2 tunnels cut at the deadline" in ran.out


def test_no_drain_at_all_is_nothing_to_wait_for(
    admin: Any, turnout: Build, drain_view: Build
) -> None:
    admin.set(BEGIN, 202, drain_view())
    admin.set(LOOK, 200, {"drain": None})
    ran = turnout("drain", "shop", "--wait")
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "shop: nothing drains."


def test_empty_but_not_done_goes_on_waiting(admin: Any, turnout: Build, drain_view: Build) -> None:
    admin.set(BEGIN, 202, drain_view())
    admin.then(LOOK, 200, drain_view(done=False, deadline_s=1.0))
    admin.then(LOOK, 200, drain_view())
    assert turnout("drain", "shop", "--wait").code == 0
    assert len(admin.calls) == 3


def test_the_verbs_own_timeout_is_exit_5_and_names_what_is_left(
    admin: Any, turnout: Build, drain_view: Build
) -> None:
    item = {"class": "tunnel", "age_s": 62.0, "endpoint": "127.0.0.1:9001", "route": "GET /ws"}
    admin.set(BEGIN, 202, drain_view(0, 1))
    admin.set(LOOK, 200, drain_view(0, 1, items=[item]))
    ran = turnout("drain", "shop", "--wait", "--timeout", "200ms")
    assert ran.code == 5
    assert ran.err == (
        "turnout: shop: blue is not empty yet: 1 tunnel left; the drain goes on\n"
        "  tunnel     1m2s  127.0.0.1:9001  GET /ws\n"
    )


def test_a_timeout_in_json_is_the_last_body_and_exit_5(
    admin: Any, turnout: Build, drain_view: Build
) -> None:
    admin.set(BEGIN, 202, drain_view(1))
    admin.set(LOOK, 200, drain_view(1))
    ran = turnout("drain", "shop", "--wait", "--timeout", "0s", "--output", "json")
    assert ran.code == 5
    assert json.loads(ran.out) == drain_view(1)


def test_long_after_the_deadline_the_waiting_ends_too(
    admin: Any, turnout: Build, drain_view: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.1)
    admin.set(BEGIN, 202, drain_view(1))
    admin.set(LOOK, 200, drain_view(1, deadline_s=0.0))
    assert turnout("drain", "shop", "--wait").code == 5


@pytest.mark.parametrize("timeout", ["5", "soon", "-1s", ""])
def test_a_timeout_that_is_no_duration_is_a_usage_error(
    admin: Any, turnout: Build, timeout: str
) -> None:
    ran = turnout("drain", "shop", "--wait", "--timeout", timeout)
    assert ran.code == 2
    assert "duration" in ran.err
    assert admin.calls == []


def test_a_timeout_without_waiting_is_a_usage_error(admin: Any, turnout: Build) -> None:
    assert turnout("drain", "shop", "--timeout", "5m").code == 2
    assert admin.calls == []


def test_another_drain_that_began_since_is_not_waited_for(
    admin: Any, turnout: Build, drain_view: Build, service_view: Build
) -> None:
    view = service_view()
    admin.set(BEGIN, 202, drain_view(2))
    admin.set(LOOK, 200, drain_view(1, pool="green", endpoint="unix:/run/g.sock"))
    admin.then("GET /v1/services/shop", 200, view)
    empty = {**view["pools"]["blue"], "in_flight": {"request": 0, "stream": 0, "tunnel": 0}}
    admin.then("GET /v1/services/shop", 200, {**view, "pools": {"blue": empty}})
    ran = turnout("drain", "shop/blue", "--wait")
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "shop: blue is empty."
    assert len(admin.calls) == 5


def test_an_endpoint_that_was_removed_meanwhile_is_empty(
    admin: Any, turnout: Build, drain_view: Build, service_view: Build
) -> None:
    admin.set(BEGIN, 202, drain_view(2, endpoint="10.0.0.9:80"))
    admin.set(LOOK, 200, drain_view(1))
    admin.set("GET /v1/services/shop", 200, service_view())
    ran = turnout("drain", "shop/blue/10.0.0.9:80", "--wait")
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "shop: 10.0.0.9:80 of blue is empty.")


def test_an_interrupted_wait_says_that_the_drain_goes_on(
    admin: Any, turnout: Build, drain_view: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_waiting: module.Waiting) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Waiting, "until_empty", interrupt)
    admin.set(BEGIN, 202, drain_view(1))
    ran = turnout("drain", "shop", "--wait")
    assert (ran.code, ran.err) == (130, "turnout: shop: the drain goes on\n")
