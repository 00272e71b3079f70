from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import structlog

from proxy.control.admin.problem import Problem, first_of, problem_answer
from proxy.control.refusal import Invalid, NotFound, Refusal, Refused, Stale

if TYPE_CHECKING:
    from tests.control.admin.conftest import Admin


@pytest.mark.parametrize("kind", [NotFound, Refused, Stale, Invalid])
def test_a_refusal_becomes_its_status_title_and_sentence(kind: type[Refusal]) -> None:
    answer = problem_answer(kind("Not so."), "/v1/x")
    document = json.loads(answer.body)
    assert answer.status == document["status"] == kind.status
    assert answer.content_type == "application/problem+json"
    assert (document["title"], document["detail"]) == (kind.title, "Not so.")
    assert document["type"].startswith("urn:turnout:problem:")
    assert document["instance"] == "/v1/x"


def test_a_problem_of_the_api_itself_lists_its_errors() -> None:
    problem = Problem(422, "a", errors=["a", "b"], headers={"X": "y"})
    answer = problem_answer(problem, "/")
    document = json.loads(answer.body)
    assert document["errors"] == ["a", "b"]
    assert (document["type"], document["title"]) == ("about:blank", "Unprocessable Entity")
    assert answer.headers == {"X": "y"}


def test_the_sentence_counts_what_it_leaves_out() -> None:
    assert first_of(["a"]) == "a"
    assert first_of(["a", "b"]) == "a (and 1 more problem)"
    assert first_of(["a", "b", "c"]) == "a (and 2 more problems)"


async def test_an_unforeseen_failure_is_logged_and_not_shown(admin: Admin) -> None:
    admin.desk.failure = RuntimeError("secret inside")
    with structlog.testing.capture_logs() as logs:
        reply = await admin.get("/v1/status")
    assert reply.status == 500
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert "secret" not in reply.text
    assert "Traceback" not in reply.text
    (entry,) = logs
    assert entry["exc_info"] is admin.desk.failure
    assert entry["reference"] == reply.json["reference"]
    assert entry["reference"] in reply.json["detail"]


async def test_after_a_failure_the_next_request_is_served(admin: Admin) -> None:
    admin.desk.failure = RuntimeError("once")
    with structlog.testing.capture_logs():
        await admin.post("/v1/services/shop/switch", {"to": "green"})
    admin.desk.failure = None
    assert (await admin.post("/v1/services/shop/switch", {"to": "green"})).status == 200
