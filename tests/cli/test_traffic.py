"""weights, switch and rollback: what they send, and what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Build = Callable[..., Any]


@pytest.fixture
def shop(admin: Any, service_view: Build) -> Any:
    admin.set("GET /v1/services/shop", 200, service_view(90))
    return admin


def test_a_switch_says_what_was_and_what_drains(
    shop: Any, turnout: Build, service_view: Build, drain_view: Build
) -> None:
    after = service_view(0, active="green", drain=drain_view(3, 1))
    shop.set("POST /v1/services/shop/switch", 200, after)
    ran = turnout("switch", "shop", "--to", "green", "--reason", "v42")
    assert ran.code == 0
    assert ran.out == (
        "shop: all traffic to green (was blue 90 %, green 10 %)."
        " blue drains: 3 requests, 1 tunnel, 4m58s left.\n"
    )
    assert shop.calls[-1].body == {"to": "green", "force": False, "reason": "v42"}


def test_a_refused_switch_exits_1_with_the_reason_on_stderr(
    shop: Any, turnout: Build, refusal: Build
) -> None:
    why = "green is not ready: 127.0.0.1:9101: connection refused"
    shop.set("POST /v1/services/shop/switch", 409, refusal(409, why))
    ran = turnout("switch", "shop", "--to", "green")
    assert (ran.code, ran.out, ran.err) == (1, "", f"turnout: {why}\n")


def test_force_is_passed_on(shop: Any, turnout: Build, service_view: Build) -> None:
    shop.set("POST /v1/services/shop/switch", 200, service_view(0))
    shop.set("POST /v1/services/shop/rollback", 200, service_view(100))
    turnout("switch", "shop", "--to", "green", "--force")
    assert shop.calls[-1].body["force"] is True
    turnout("rollback", "shop", "--force", "--reason", "errors")
    assert shop.calls[-1].body == {"reason": "errors", "force": True, "lock": False}
    turnout("rollback", "shop", "--lock")
    assert shop.calls[-1].body == {"reason": "", "force": False, "lock": True}


def test_weights_are_sent_as_numbers_of_percent(
    shop: Any, turnout: Build, service_view: Build
) -> None:
    shop.set("PUT /v1/services/shop/weights", 200, service_view(62.5))
    ran = turnout("weights", "shop", "blue=62.50", "green=37.5%", "--ttl", "2h")
    assert ran.code == 0
    assert ran.out == (
        "shop: blue 62.5 %, green 37.5 % (was blue 90 %, green 10 %). Back again after 2h.\n"
    )
    body = shop.calls[-1].body
    assert body == {"weights": {"blue": 62.5, "green": 37.5}, "reason": "", "ttl": "2h"}


def test_whole_weights_are_sent_as_whole_numbers(
    shop: Any, turnout: Build, service_view: Build
) -> None:
    shop.set("PUT /v1/services/shop/weights", 200, service_view(90))
    ran = turnout("weights", "shop", "blue=90", "green=10")
    assert json.dumps(shop.calls[-1].body["weights"]) == '{"blue": 90, "green": 10}'
    assert "(as before)" in ran.out
    assert "ttl" not in shop.calls[-1].body


@pytest.mark.parametrize(
    "shares",
    [["blue"], ["blue="], ["=9"], ["blue=x"], ["blue=nan"], ["blue=-1"], ["blue=101"]],
)
def test_what_is_no_share_is_a_usage_error_and_asks_nobody(
    shop: Any, turnout: Build, shares: list[str]
) -> None:
    ran = turnout("weights", "shop", *shares)
    assert ran.code == 2
    assert shares[0] in ran.err
    assert shop.calls == []


def test_a_pool_given_twice_is_a_usage_error(shop: Any, turnout: Build) -> None:
    assert turnout("weights", "shop", "blue=50", "blue=50").code == 2
    assert shop.calls == []


def test_weights_that_do_not_sum_up_are_a_usage_error_in_the_proxys_words(
    shop: Any, turnout: Build, refusal: Build
) -> None:
    shop.set("PUT /v1/services/shop/weights", 422, refusal(422, "the weights sum to 90, not 100"))
    ran = turnout("weights", "shop", "blue=80", "green=10")
    assert (ran.code, ran.err) == (2, "turnout: the weights sum to 90, not 100\n")


def test_a_rollback_says_where_everything_went(
    shop: Any, turnout: Build, service_view: Build
) -> None:
    shop.set("POST /v1/services/shop/rollback", 200, service_view(100))
    ran = turnout("rollback", "shop")
    assert ran.out == "shop: all traffic to blue (was blue 90 %, green 10 %).\n"


def test_an_unknown_service_is_refused(admin: Any, turnout: Build, refusal: Build) -> None:
    admin.set(
        "GET /v1/services/shp", 404, refusal(404, "there is no service shp; did you mean shop?")
    )
    ran = turnout("switch", "shp", "--to", "green")
    assert ran.code == 1
    assert "did you mean shop?" in ran.err


def test_json_is_the_apis_body_and_takes_one_call(
    shop: Any, turnout: Build, service_view: Build
) -> None:
    view = service_view(0)
    shop.set("POST /v1/services/shop/switch", 200, json.dumps(view, indent=1).encode())
    ran = turnout("switch", "shop", "--to", "green", "--output", "json")
    assert ran.code == 0
    assert ran.out == json.dumps(view, indent=1) + "\n"
    assert len(shop.calls) == 1


def test_json_of_a_refusal_is_the_problem_document_on_stdout(
    shop: Any, turnout: Build, refusal: Build
) -> None:
    shop.set("POST /v1/services/shop/switch", 409, refusal(409, "no"))
    ran = turnout("switch", "shop", "--to", "green", "--output", "json")
    assert ran.code == 1
    assert json.loads(ran.out) == refusal(409, "no")
    assert ran.err == ""


def test_a_proxy_that_does_not_run_is_exit_6(turnout: Build) -> None:
    ran = turnout("switch", "shop", "--to", "green", "--admin", "unix:none.sock")
    assert ran.code == 6
    assert ran.out == ""
    assert ran.err.startswith("turnout: Turnout does not answer at unix:none.sock")


def test_options_win_over_the_environment(
    unix_admin: Any,
    turnout: Build,
    service_view: Build,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TURNOUT_ADMIN", "http://127.0.0.1:1")
    monkeypatch.setenv("TURNOUT_ADMIN_TOKEN", "fromenv")
    unix_admin.set("GET /v1/services/shop", 200, service_view(90))
    unix_admin.set("POST /v1/services/shop/rollback", 200, service_view(100))
    assert turnout("rollback", "shop", "--admin", unix_admin.url).code == 0
    assert unix_admin.calls[-1].headers["Authorization"] == "Bearer fromenv"
