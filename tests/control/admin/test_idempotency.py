from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
import structlog

from proxy.clock import ManualClock
from proxy.control.admin.answer import Answer, ok
from proxy.control.admin.idempotency import KEPT, KEPT_S, Replies
from proxy.control.admin.problem import Problem

if TYPE_CHECKING:
    from tests.control.admin.conftest import Admin

Until = Callable[[Callable[[], bool]], Awaitable[None]]
SWITCH = "/v1/services/shop/switch"
KEY = {"Idempotency-Key": "deploy-42"}


async def test_a_change_sent_twice_is_made_once_and_answered_twice(admin: Admin) -> None:
    first = await admin.post(SWITCH, {"to": "green"}, headers=KEY)
    second = await admin.post(SWITCH, {"to": "green"}, headers=KEY)
    assert len(admin.desk.asked) == 1
    assert (second.status, second.text) == (first.status, first.text)
    assert second.headers["ETag"] == first.headers["ETag"]
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"


async def test_a_refusal_is_remembered_too(admin: Admin) -> None:
    for _ in range(2):
        reply = await admin.post(SWITCH, {"to": "blue"}, headers=KEY)
        assert reply.status == 409
        assert reply.headers["Content-Type"] == "application/problem+json"
    assert len(admin.desk.asked) == 1


async def test_a_failure_is_not_remembered(admin: Admin) -> None:
    admin.desk.failure = RuntimeError("disk")
    with structlog.testing.capture_logs():
        assert (await admin.post(SWITCH, {"to": "green"}, headers=KEY)).status == 500
    admin.desk.failure = None
    assert (await admin.post(SWITCH, {"to": "green"}, headers=KEY)).status == 200


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (SWITCH, {"to": "green", "force": True}, {}),
        ("/v1/services/shop/rollback", {"to": "green"}, {}),
        (SWITCH, {"to": "green"}, {"If-Match": '"1"'}),
    ],
)
async def test_a_key_used_for_another_request_is_a_422(
    admin: Admin, path: str, body: dict[str, object], headers: dict[str, str]
) -> None:
    await admin.post(SWITCH, {"to": "green"}, headers=KEY)
    reply = await admin.post(path, body, headers={**KEY, **headers})
    assert reply.status == 422
    assert "another request" in reply.json["detail"]
    assert len(admin.desk.asked) == 1


async def test_the_second_waits_while_the_first_still_runs(admin: Admin, until: Until) -> None:
    admin.desk.gate.clear()
    both = asyncio.gather(
        *(admin.post(SWITCH, {"to": "green"}, headers=KEY) for _ in range(2)),
    )
    await until(lambda: len(admin.desk.asked) == 1)
    admin.desk.gate.set()
    replies = await both
    assert [reply.status for reply in replies] == [200, 200]
    assert sorted("Idempotent-Replayed" in reply.headers for reply in replies) == [False, True]
    assert len(admin.desk.asked) == 1


async def test_after_a_day_the_key_is_new(admin: Admin) -> None:
    await admin.post(SWITCH, {"to": "green"}, headers=KEY)
    admin.clock.advance(KEPT_S - 1)
    assert (await admin.post(SWITCH, {"to": "green"}, headers=KEY)).status == 200
    admin.clock.advance(1)
    assert (await admin.post(SWITCH, {"to": "green"}, headers=KEY)).status == 409


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9"])
async def test_a_key_is_short_and_printable(admin: Admin, key: str) -> None:
    reply = await admin.post(SWITCH, {"to": "green"}, headers={"Idempotency-Key": key})
    assert reply.status == 422
    assert admin.desk.asked == []


async def answered() -> Answer:
    return ok({})


async def test_only_the_most_recently_used_answers_are_kept() -> None:
    replies = Replies(ManualClock())
    for number in range(KEPT):
        await replies.answer(str(number), b"", answered)
    await replies.answer("0", b"", answered)
    await replies.answer("one more", b"", answered)
    assert len(replies) == KEPT
    assert (await replies.answer("0", b"", answered)).headers
    assert not (await replies.answer("1", b"", answered)).headers


async def test_what_still_runs_is_never_forgotten(until: Until) -> None:
    replies, gate = Replies(ManualClock()), asyncio.Event()

    async def slow() -> Answer:
        await gate.wait()
        return ok({})

    first = asyncio.gather(replies.answer("slow", b"", slow))
    await until(lambda: len(replies) == 1)
    for number in range(KEPT + 10):
        await replies.answer(str(number), b"", answered)
    with pytest.raises(Problem):
        await replies.answer("slow", b"other", answered)
    gate.set()
    await first
    assert len(replies) <= KEPT
