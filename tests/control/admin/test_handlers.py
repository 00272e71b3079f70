from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from proxy.control.admin.handlers import MOST_WAITING

if TYPE_CHECKING:
    from tests.control.admin.conftest import Admin

Until = Callable[[Callable[[], bool]], Awaitable[None]]


async def test_health_is_ok_while_the_process_lives(admin: Admin) -> None:
    reply = await admin.get("/healthz")
    assert (reply.status, reply.json) == (200, {"status": "ok"})


async def test_ready_says_yes_or_which_reasons_speak_against_it(admin: Admin) -> None:
    reply = await admin.get("/readyz")
    assert (reply.status, reply.json) == (200, {"ready": True})
    admin.desk.reasons = ["shop has no available endpoint."]
    reply = await admin.get("/readyz")
    assert reply.status == 503
    assert reply.json == {"ready": False, "reasons": ["shop has no available endpoint."]}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/services", [{"name": "shop"}]),
        ("/v1/config", {"admin": {"token": "***"}}),
        ("/v1/decisions", [{"id": 1, "service": None, "limit": 100}]),
        (
            "/v1/decisions?since=41&limit=5&service=shop",
            [{"id": 42, "service": "shop", "limit": 5}],
        ),
        ("/v1/services/shop/decisions?since=2", [{"id": 3, "service": "shop", "limit": 100}]),
    ],
)
async def test_views_are_what_the_desk_shows(admin: Admin, path: str, expected: Any) -> None:
    reply = await admin.get(path)
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    if path == "/v1/services":
        assert [view["name"] for view in reply.json] == ["shop"]
    else:
        assert reply.json == expected


async def test_the_status_page_holds_everything(admin: Admin) -> None:
    page = (await admin.get("/v1/status")).json
    assert page["config"]["path"] == "turnout.yaml"
    assert page["services"][0]["name"] == "shop"


async def test_a_service_comes_with_its_tag(admin: Admin) -> None:
    reply = await admin.get("/v1/services/shop")
    assert reply.json["active"] == "blue"
    assert reply.headers["ETag"] == '"1"'


@pytest.mark.parametrize("path", ["", "/decisions", "/drain"])
async def test_an_unknown_service_is_a_404_with_a_sentence(admin: Admin, path: str) -> None:
    reply = await admin.get(f"/v1/services/nope{path}")
    assert reply.status == 404
    assert reply.json["detail"] == "There is no service nope."
    assert reply.json["title"] == "Not found"


async def test_weights_reach_the_desk_without_float_noise(admin: Admin) -> None:
    body = '{"weights": {"blue": 62.5, "green": 37.50}, "reason": "trial", "ttl": "1h30m"}'
    reply = await admin.put("/v1/services/shop/weights", body)
    assert reply.status == 200
    assert reply.json["weights"]["in_force"] == {"blue": 62.5, "green": 37.5}
    assert reply.headers["ETag"] == '"2"'
    (asked,) = admin.desk.asked
    assert asked["weights"] == {"blue": Decimal("62.5"), "green": Decimal("37.5")}
    assert (asked["reason"], asked["ttl_s"], asked["who"]) == ("trial", 5400.0, "api")


async def test_a_desk_that_finds_the_weights_invalid_makes_a_422(admin: Admin) -> None:
    reply = await admin.put("/v1/services/shop/weights", {"weights": {"blue": 1}})
    assert reply.status == 422
    assert reply.json["detail"] == "The weights of shop must sum to 100."


async def test_a_pool_is_filled_with_addresses_and_weights(admin: Admin) -> None:
    endpoints = ["127.0.0.1:9101", {"address": "unix:/run/green.sock", "weight": 2}]
    reply = await admin.put(
        "/v1/services/shop/pools/green", {"endpoints": endpoints, "release": "v42"}
    )
    assert reply.status == 200
    (asked,) = admin.desk.asked
    assert asked["endpoints"] == [("127.0.0.1:9101", 1), ("unix:/run/green.sock", 2)]
    assert (asked["pool"], asked["release"]) == ("green", "v42")


async def test_an_empty_pool_without_a_release_is_possible(admin: Admin) -> None:
    reply = await admin.put("/v1/services/shop/pools/green", {"endpoints": [], "release": None})
    assert reply.status == 200
    assert (admin.desk.asked[0]["endpoints"], admin.desk.asked[0]["release"]) == ([], None)


async def test_a_switch_answers_with_the_service_as_it_is_now(admin: Admin) -> None:
    reply = await admin.post("/v1/services/shop/switch", {"to": "green", "force": True})
    assert (reply.status, reply.json["active"]) == (200, "green")
    assert admin.desk.asked[0]["force"] is True


async def test_a_refused_switch_is_a_409_with_the_reason(admin: Admin) -> None:
    reply = await admin.post("/v1/services/shop/switch", {"to": "blue"})
    assert reply.status == 409
    assert reply.json["detail"] == "blue is already active."
    assert reply.json["type"] == "urn:turnout:problem:refused"


async def test_a_rollback_needs_no_body(admin: Admin) -> None:
    assert (await admin.post("/v1/services/shop/rollback")).status == 200
    assert (await admin.post("/v1/services/shop/rollback", {"reason": "5xx"})).status == 200
    assert [asked["reason"] for asked in admin.desk.asked] == ["", "5xx"]


async def test_a_hold_has_its_defaults_and_answers_with_the_service(admin: Admin) -> None:
    reply = await admin.post("/v1/services/shop/hold")
    assert (reply.status, reply.json["name"], reply.headers["ETag"]) == (200, "shop", '"2"')
    body = {"timeout": "90s", "most": 50, "reason": "migration", "ttl": "10m"}
    assert (await admin.post("/v1/services/shop/hold", body)).status == 200
    first, second = admin.desk.asked
    assert (first["timeout_s"], first["most"], first["ttl_s"]) == (30.0, 1000, None)
    assert (second["timeout_s"], second["most"], second["ttl_s"]) == (90.0, 50, 600.0)
    assert second["reason"] == "migration"


async def test_a_release_has_its_defaults_and_may_be_at_once(admin: Admin) -> None:
    for body in ({}, {"over": "0s", "reason": "done"}):
        reply = await admin.post("/v1/services/shop/release", body)
        assert (reply.status, reply.json["name"]) == (200, "shop")
    assert [asked["over_s"] for asked in admin.desk.asked] == [5.0, 0.0]


@pytest.mark.parametrize(
    ("verb", "body", "error"),
    [
        ("hold", {"timeout": "0s"}, "timeout: 0s is out of range (expected above 0, up to 3600s)"),
        ("hold", {"timeout": 30}, "timeout: wrong: a number (expected a duration such as"),
        ("hold", {"timeout": "2h"}, "timeout: 2h is out of range"),
        ("hold", {"most": 0}, "most: wrong: a number (expected a whole number from 1 to 100000)"),
        ("hold", {"most": 1.5}, "most: wrong: a number"),
        ("hold", {"most": True}, "most: wrong: a boolean"),
        ("hold", {"over": "5s"}, "over: unknown"),
        ("release", {"over": "5"}, "over: '5' is no duration"),
        ("release", {"over": "2h"}, "over: 2h is out of range (expected 0 up to 3600s)"),
    ],
)
async def test_a_hold_that_can_never_be_right_is_a_422(
    admin: Admin, verb: str, body: dict[str, Any], error: str
) -> None:
    reply = await admin.post(f"/v1/services/shop/{verb}", body)
    assert reply.status == 422
    assert any(each.startswith(error) for each in reply.json["errors"]), reply.json["errors"]
    assert admin.desk.asked == []


async def test_a_hold_asked_for_twice_with_one_key_is_made_once(admin: Admin) -> None:
    for _ in range(2):
        reply = await admin.post("/v1/services/shop/hold", {}, headers={"Idempotency-Key": "k"})
        assert reply.status == 200
    assert len(admin.desk.asked) == 1
    stale = await admin.post("/v1/services/shop/release", {}, headers={"If-Match": '"1"'})
    assert stale.status == 412


async def test_a_started_drain_is_a_202_with_the_drain_to_watch(admin: Admin) -> None:
    reply = await admin.post("/v1/services/shop/drain", {"pool": "blue"})
    assert reply.status == 202
    assert reply.json["pool"] == "blue"
    assert reply.json["remaining"] == {"request": 3}
    assert reply.headers["Location"] == "/v1/services/shop/drain"
    assert reply.headers["ETag"] == '"2"'


async def test_a_drain_of_an_endpoint_names_both(admin: Admin) -> None:
    body = {"pool": "blue", "endpoint": "127.0.0.1:9001", "reason": "kernel"}
    await admin.post("/v1/services/shop/drain", body)
    asked = admin.desk.asked[0]
    assert (asked["pool"], asked["endpoint"], asked["undo"]) == ("blue", "127.0.0.1:9001", False)


async def test_an_undone_drain_answers_with_the_service(admin: Admin) -> None:
    reply = await admin.post("/v1/services/shop/drain", {"pool": "blue", "undo": True})
    assert (reply.status, reply.json["name"]) == (200, "shop")


async def test_no_drain_is_null(admin: Admin) -> None:
    reply = await admin.get("/v1/services/shop/drain?wait=30s")
    assert (reply.status, reply.json) == (200, {"drain": None})


async def test_a_wait_lasts_until_the_drain_is_empty(admin: Admin, until: Until) -> None:
    await admin.post("/v1/services/shop/drain", {})
    waiting = asyncio.gather(admin.get("/v1/services/shop/drain?wait=30s"))
    await until(lambda: admin.desk.waited == [30.0])
    assert not waiting.done()
    admin.desk.drained.set()
    (reply,) = await waiting
    assert reply.json["remaining"] == {"request": 0}
    assert reply.json["drain"]["remaining"] == {"request": 0}


async def test_a_wait_that_is_over_says_what_is_left(admin: Admin) -> None:
    await admin.post("/v1/services/shop/drain", {})
    reply = await admin.get("/v1/services/shop/drain?wait=10ms")
    assert (reply.status, reply.json["remaining"]) == (200, {"request": 3})


async def test_no_wait_is_longer_than_ten_minutes(admin: Admin) -> None:
    await admin.get("/v1/services/shop/drain?wait=5h")
    await admin.get("/v1/services/shop/drain")
    assert admin.desk.waited == [600.0, 0.0]


async def test_who_waits_for_a_drain_is_answered_when_the_server_stops(
    admin: Admin, until: Until
) -> None:
    await admin.post("/v1/services/shop/drain", {})
    waiting = asyncio.gather(admin.get("/v1/services/shop/drain?wait=5m"))
    await until(lambda: admin.desk.waited == [300.0])
    began = time.monotonic()
    await admin.server.stop()
    (reply,) = await waiting
    assert reply.json["remaining"] == {"request": 3}
    assert time.monotonic() - began < 20, "not five minutes"


async def test_a_wait_ends_with_the_client_that_asked(admin: Admin, until: Until) -> None:
    await admin.post("/v1/services/shop/drain", {})
    short = aiohttp.ClientTimeout(total=1.0)
    with pytest.raises(TimeoutError):
        await admin.get("/v1/services/shop/drain?wait=5m", timeout=short)
    await until(lambda: admin.desk.given_up == 1)


async def test_only_so_many_wait_at_a_time_but_everybody_may_look(
    admin: Admin, until: Until
) -> None:
    await admin.post("/v1/services/shop/drain", {})
    path = "/v1/services/shop/drain?wait=5m"
    waiting = asyncio.gather(*(admin.get(path) for _ in range(MOST_WAITING)))
    await until(lambda: len(admin.desk.waited) == MOST_WAITING)
    assert (await admin.get(path)).status == 503
    assert (await admin.get("/v1/services/shop/drain")).status == 200
    admin.desk.drained.set()
    assert {reply.status for reply in await waiting} == {200}
    assert (await admin.get(path)).status == 200


async def test_an_applied_reload_says_so(admin: Admin) -> None:
    reply = await admin.post("/v1/config/reload")
    assert (reply.status, reply.json["applied"]) == (200, True)


async def test_an_invalid_file_is_a_422_with_every_error(admin: Admin) -> None:
    admin.desk.invalid = ["a.yaml:1:2: x: wrong", "a.yaml:2:2: y: wrong", "a.yaml:3:2: z: wrong"]
    reply = await admin.post("/v1/config/reload", "{}")
    assert reply.status == 422
    assert reply.json["errors"] == admin.desk.invalid
    assert reply.json["detail"] == "a.yaml:1:2: x: wrong (and 2 more problems)"


async def test_a_checked_text_is_ok_or_not_but_always_a_200(admin: Admin) -> None:
    good, bad = [await admin.post("/v1/config/check", text) for text in (b"good", b"bad")]
    assert (good.status, good.json) == (200, {"ok": True, "errors": []})
    assert bad.status == 200
    assert bad.json == {"ok": False, "errors": ["turnout.yaml:1:1: services: missing"]}


async def test_a_text_that_is_not_utf_8_is_a_422(admin: Admin) -> None:
    reply = await admin.post("/v1/config/check", b"ab\xff")
    assert (reply.status, reply.json["detail"]) == (422, "the body is not UTF-8: byte 2")


@pytest.mark.parametrize(
    ("if_match", "status"),
    [
        ('"1"', 200),
        ("*", 200),
        ('"7", "1"', 200),
        ('"7"', 412),
        ('W/"1"', 412),
        ("1", 412),
    ],
)
async def test_a_change_goes_through_only_on_the_expected_state(
    admin: Admin, if_match: str, status: int
) -> None:
    path, headers = "/v1/services/shop/switch", {"If-Match": if_match}
    reply = await admin.post(path, {"to": "green"}, headers=headers)
    assert reply.status == status
    # Either way the answer brings the tag for the next try.
    assert reply.headers["ETag"] == ('"2"' if status == 200 else '"1"')
    if status == 412:
        assert admin.desk.active == "blue"
        assert "has changed" in reply.json["detail"]


@pytest.mark.parametrize(
    "path", ["/v1/status?x=1", "/v1/decisions?sinc=1", "/v1/services/shop/drain?timeout=3s"]
)
async def test_an_unknown_parameter_is_refused(admin: Admin, path: str) -> None:
    reply = await admin.get(path)
    assert reply.status == 422
    assert "unknown parameter" in reply.json["detail"]


DEPLOY = "/v1/services/shop/deploy"


async def test_a_deploy_has_its_defaults_and_is_a_202_with_the_service_to_watch(
    admin: Admin,
) -> None:
    reply = await admin.post(DEPLOY, {"endpoints": ["127.0.0.1:9102"]})
    assert (reply.status, reply.json["rollout"]["phase"]) == (202, "warming")
    assert reply.headers["Location"] == "/v1/services/shop"
    assert reply.headers["ETag"] == '"2"'
    (asked,) = admin.desk.asked
    assert {key: asked[key] for key in asked if key != "who"} == {
        "verb": "deploy",
        "endpoints": [("127.0.0.1:9102", 1)],
        "release": None,
        "pool": None,
        "steps": None,
        "now": False,
        "ready_timeout_s": 60.0,
        "min_ready": None,
        "force": False,
        "reason": "",
        "if_match": None,
    }


async def test_a_deploy_says_everything_that_can_be_said(admin: Admin) -> None:
    body = {
        "endpoints": [{"address": "127.0.0.1:9102", "weight": 2}, "unix:/run/g.sock"],
        "release": "v43",
        "pool": "green",
        "steps": [{"weight": 0.5, "bake": "5m", "pause": True}, {"weight": 100}],
        "ready_timeout": "2m",
        "min_ready": 1,
        "force": True,
        "reason": "pipeline 7",
    }
    assert (await admin.post(DEPLOY, body)).status == 202
    (asked,) = admin.desk.asked
    assert asked["endpoints"] == [("127.0.0.1:9102", 2), ("unix:/run/g.sock", 1)]
    assert (asked["release"], asked["pool"], asked["min_ready"]) == ("v43", "green", 1)
    assert asked["steps"] == [(50, 300.0, True), (10_000, 0.0, False)]
    assert (asked["ready_timeout_s"], asked["force"]) == (120.0, True)
    assert asked["reason"] == "pipeline 7"


async def test_a_deploy_to_100_is_one_step_with_everything(admin: Admin) -> None:
    await admin.post(DEPLOY, {"endpoints": ["127.0.0.1:9102"], "to": 100, "now": True})
    (asked,) = admin.desk.asked
    assert (asked["steps"], asked["now"]) == ([(10_000, 0.0, False)], True)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"endpoints": []}, "endpoints: empty (expected one address at least)"),
        ({"endpoints": None}, "endpoints: wrong: null"),
        ({"to": 50}, "to: wrong (expected 100"),
        ({"to": "100"}, "to: wrong (expected 100"),
        ({"to": 100, "steps": [{"weight": 100}]}, "to: excludes steps"),
        ({"now": True, "steps": [{"weight": 100}]}, "now: excludes steps"),
        ({"min_ready": 0}, "min_ready: wrong"),
        ({"ready_timeout": "0s"}, "ready_timeout: 0s is out of range"),
        ({"bake": "5m"}, "bake: unknown key"),
    ],
)
async def test_a_deploy_that_can_never_be_right_is_a_422(
    admin: Admin, more: dict[str, Any], error: str
) -> None:
    reply = await admin.post(DEPLOY, {"endpoints": ["127.0.0.1:9102"], **more})
    assert reply.status == 422
    (found,) = reply.json["errors"]
    assert found.startswith(error)
    assert admin.desk.asked == []


async def test_a_started_rollout_is_a_202_and_a_second_one_a_409(admin: Admin) -> None:
    body = {"to": "green", "steps": [{"weight": 100, "bake": "1m"}], "ready_timeout": "5s"}
    reply = await admin.post("/v1/services/shop/rollout", body)
    assert (reply.status, reply.headers["Location"]) == (202, "/v1/services/shop")
    (asked,) = admin.desk.asked
    assert (asked["to"], asked["steps"]) == ("green", [(10_000, 60.0, False)])
    assert (asked["ready_timeout_s"], asked["force"]) == (5.0, False)
    again = await admin.post("/v1/services/shop/rollout", {"to": "green"})
    assert again.status == 409
    assert "rollout 1 to green is warming" in again.json["detail"]


@pytest.mark.parametrize("body", [{}, {"to": ""}, {"to": "green", "endpoints": []}])
async def test_a_rollout_needs_its_pool_and_takes_no_endpoints(
    admin: Admin, body: dict[str, Any]
) -> None:
    assert (await admin.post("/v1/services/shop/rollout", body)).status == 422
    assert admin.desk.asked == []


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "abort", "rejudge"])
async def test_each_verb_on_a_rollout_is_passed_on_or_refused(admin: Admin, verb: str) -> None:
    path = f"/v1/services/shop/rollout/{verb}"
    refused = await admin.post(path)
    assert (refused.status, refused.json["title"]) == (409, "Refused")
    admin.desk.phase = "baking"
    reply = await admin.post(path, {"reason": "lunch"})
    assert (reply.status, reply.json["name"], reply.headers["ETag"]) == (200, "shop", '"2"')
    assert [(asked["verb"], asked["reason"]) for asked in admin.desk.asked] == [
        (verb, ""),
        (verb, "lunch"),
    ]
    forced = await admin.post(path, {"force": True})
    assert forced.status == (200 if verb == "abort" else 422)
    assert (await admin.post(path, {}, headers={"If-Match": '"1"'})).status == 412


async def test_an_abort_is_forced_only_when_told(admin: Admin) -> None:
    admin.desk.phase = "baking"
    for body in ({}, {"force": True}):
        await admin.post("/v1/services/shop/rollout/abort", body)
    assert [asked["force"] for asked in admin.desk.asked] == [False, True]


async def test_an_unlock_answers_with_the_service(admin: Admin) -> None:
    reply = await admin.post("/v1/services/shop/unlock", {"reason": "mended outside"})
    assert (reply.status, reply.json["name"]) == (200, "shop")
    assert admin.desk.asked[0]["reason"] == "mended outside"


async def test_a_rollback_locks_the_release_only_when_told(admin: Admin) -> None:
    for body in ({}, {"lock": True, "reason": "5xx"}):
        assert (await admin.post("/v1/services/shop/rollback", body)).status == 200
    assert [asked["lock"] for asked in admin.desk.asked] == [False, True]


async def test_a_deploy_asked_for_twice_with_one_key_begins_once(admin: Admin) -> None:
    body, key = {"endpoints": ["127.0.0.1:9102"]}, {"Idempotency-Key": "pipeline-7"}
    replies = [await admin.post(DEPLOY, body, headers=key) for _ in range(2)]
    assert [reply.status for reply in replies] == [202, 202]
    assert len(admin.desk.asked) == 1
