"""The admin API of a running proxy: conditions, terms, metrics and what it says of itself."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.load import pools
from tests.e2e.stage import Stage, Turnout, wait_until

WEIGHTS = "/v1/services/shop/weights"


@pytest.fixture(scope="module")
def turnout(module_stage: Stage) -> Turnout:
    return module_stage.turnout(module_stage.origin("blue"), module_stage.origin("green"))


@pytest.fixture(autouse=True)
def _as_in_the_file(turnout: Turnout) -> None:
    turnout.weights(blue=100, green=0)


def test_a_change_under_an_old_etag_is_refused(turnout: Turnout) -> None:
    etag = turnout.ask("GET", "/v1/services/shop").headers["ETag"]
    body = {"weights": {"blue": 90, "green": 10}}
    reply = turnout.ask("PUT", WEIGHTS, body, {"If-Match": etag})
    assert reply.status == 200
    assert turnout.ask("GET", "/v1/services/shop").headers["ETag"] != etag
    stale = turnout.ask("PUT", WEIGHTS, body, {"If-Match": etag})
    assert stale.status == 412
    assert stale.headers["Content-Type"].startswith("application/problem+json")
    assert stale.json()["detail"]


def test_a_repeated_key_is_one_change(turnout: Turnout) -> None:
    body = {"weights": {"blue": 80, "green": 20}}
    before = _revision(turnout)
    first = turnout.ask("PUT", WEIGHTS, body, {"Idempotency-Key": "k-1"})
    again = turnout.ask("PUT", WEIGHTS, body, {"Idempotency-Key": "k-1"})
    assert (first.status, again.status) == (200, 200)
    assert first.json()["revision"] == again.json()["revision"]
    assert _revision(turnout) == first.json()["revision"] > before


def _revision(turnout: Turnout) -> int:
    return int(turnout.service()["revision"])


@pytest.mark.parametrize(
    "weights",
    [
        {"blue": 60, "green": 60},
        {"blue": 101, "green": -1},
        {"blue": 99.999, "green": 0.001},
        {"blue": 50, "purple": 50},
        {"blue": "half", "green": 50},
    ],
)
def test_weights_that_make_no_whole_are_422(turnout: Turnout, weights: dict[str, object]) -> None:
    reply = turnout.ask("PUT", WEIGHTS, {"weights": weights})
    assert reply.status == 422
    assert reply.json()["detail"]
    assert turnout.service()["weights"]["in_force"] == {"blue": 100, "green": 0}


def test_what_is_not_there_is_not_found(turnout: Turnout) -> None:
    assert turnout.ask("POST", "/v1/services/shop/rollout/jump", {}).status == 404
    assert turnout.ask("GET", "/v1/services/nothing").status == 404
    assert turnout.ask("DELETE", "/v1/services/shop").status == 405


async def test_weights_with_a_term_end_with_it(turnout: Turnout) -> None:
    body = {"weights": {"blue": 0, "green": 100}, "ttl": "4s", "reason": "a look"}
    turnout.change("PUT", WEIGHTS, body)
    assert await pools(turnout.port, 20) == {"green": 20}
    view = turnout.service()
    assert view["weights"]["source"] == "api"
    override = next(one for one in view["overrides"] if one["key"] == "weights")
    assert override["reason"] == "a look"
    assert override["until"]
    await asyncio.to_thread(
        wait_until,
        lambda: turnout.service()["weights"]["in_force"] == {"blue": 100, "green": 0},
        "the term has ended",
    )
    assert await pools(turnout.port, 20) == {"blue": 20}


def test_every_change_leaves_a_record(turnout: Turnout) -> None:
    body = {"weights": {"blue": 66, "green": 34}, "reason": "because"}
    view = turnout.change("PUT", WEIGHTS, body)
    answer = turnout.get("/v1/services/shop/decisions")
    records = answer if isinstance(answer, list) else answer["decisions"]
    (record,) = [one for one in records if one["revision"] == view["revision"]]
    assert set(record) >= {"id", "at", "service", "who", "what", "from", "to", "why", "revision"}
    assert record["service"] == "shop"
    assert "because" in str(record["why"])


def test_the_status_page_knows_the_processes_and_the_file(turnout: Turnout) -> None:
    status = turnout.get("/v1/status")
    assert {worker["pid"] for worker in status["workers"]} < set(turnout.pids())
    assert len(status["workers"]) == 2
    assert status["config"]["path"] == str(turnout.path)
    assert status["config"]["hash"]
    assert status["config"]["last_error"] is None
    assert status["version"]
    assert status["uptime_s"] > 0
    assert [service["name"] for service in status["services"]] == ["shop"]


def test_a_web_page_cannot_command_the_proxy(turnout: Turnout) -> None:
    body = {"weights": {"blue": 0, "green": 100}}
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        reply = turnout.ask("PUT", WEIGHTS, body, headers)
        assert reply.status in {400, 403, 421}
    assert turnout.service()["weights"]["in_force"] == {"blue": 100, "green": 0}


def test_without_its_token_nothing_is_told_or_done(module_stage: Stage) -> None:
    turnout = module_stage.turnout(module_stage.origin("blue"), [], start=False)
    turnout.config["admin"] |= {"token": "write-it", "read_token": "read-it"}
    turnout.write(turnout.config)
    turnout.start()
    assert turnout.ask("GET", "/healthz").status == 200

    def status(method: str, path: str, token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body = None if method == "GET" else {"weights": {"blue": 100, "green": 0}}
        return turnout.ask(method, path, body, headers).status

    assert [status("GET", "/v1/status", token) for token in ("", "x", "read-it", "write-it")] == [
        401,
        401,
        200,
        200,
    ]
    assert [status("PUT", WEIGHTS, token) for token in ("", "read-it", "write-it")] == [
        401,
        403,
        200,
    ]
    config = turnout.ask("GET", "/v1/config", headers={"Authorization": "Bearer write-it"})
    assert b"read-it" not in config.body
    assert b"write-it" not in config.body
    assert b"***" in config.body


async def test_the_metrics_are_there_by_name_and_count(turnout: Turnout) -> None:
    before = turnout.metric("turnout_requests_total", service="shop", pool="blue", code_class="2xx")
    await pools(turnout.port, 100)
    samples = turnout.metrics()
    for name in (
        "turnout_requests_total",
        "turnout_request_duration_seconds_bucket",
        "turnout_request_duration_seconds_count",
        "turnout_request_duration_seconds_sum",
        "turnout_weight",
        "turnout_endpoints",
        "turnout_in_flight",
        "turnout_drain_remaining",
        "turnout_config_revision",
        "turnout_config_last_reload_successful",
        "turnout_config_last_reload_success_timestamp_seconds",
        "turnout_connections",
        "turnout_worker_up",
        "turnout_build_info",
        "process_resident_memory_bytes",
    ):
        assert name in samples, f"{name} is missing"
    after = turnout.metric("turnout_requests_total", service="shop", pool="blue", code_class="2xx")
    assert after == before + 100
    durations = turnout.metric("turnout_request_duration_seconds_count", pool="blue")
    assert durations >= 100
    assert turnout.metric("turnout_weight", service="shop", pool="blue") == 100
    assert turnout.metric("turnout_config_revision") == turnout.get("/v1/status")["revision"]
    assert len({labels["worker"] for labels, _ in samples["turnout_worker_up"]}) == 2
    assert set(samples["turnout_endpoints"][0][0]) == {"service", "pool", "state"}
    assert set(samples["turnout_connections"][0][0]) == {"listener", "state"}


def test_a_file_is_checked_without_being_applied(turnout: Turnout) -> None:
    reply = turnout.ask(
        "POST",
        "/v1/config/check",
        "services: {a: {rutes: []}}",
        {"Content-Type": "application/yaml"},
    )
    assert reply.status in {200, 422}
    assert b"rutes" in reply.body
    assert turnout.get("/v1/status")["config"]["last_error"] is None
