"""Calls to a real HTTP server that answers as it is told to."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from proxy import __version__
from proxy.control import hooks as module
from proxy.control.config.schema import ServiceConfig
from proxy.control.declared import hooks as declared_hooks
from proxy.control.hooks import Hook, Hooks
from tests.control.conftest import print_failure, wait_until

RECORD = {"id": 7, "what": "rollout", "why": "step 2 of 4"}


class Receiver:
    """Answers with the statuses it was given, the last one for ever, and keeps what it got."""

    def __init__(self) -> None:
        self.statuses = [200]
        self.text = ""
        self.got: list[tuple[web.Request, dict[str, Any]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.port = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.BaseRequest)
        self.got.append((request, await request.json()))  # type: ignore[arg-type]
        await self.gate.wait()
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        headers = {"Location": "/elsewhere"} if 300 <= status < 400 else {}
        return web.Response(status=status, text=self.text, headers=headers)

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def moments(self) -> list[str]:
        return [body["moment"] for _, body in self.got]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    runner = web.ServerRunner(web.Server(made), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    yield made
    made.gate.set()
    await runner.cleanup()


Build = Callable[..., Hooks]


@pytest.fixture
async def build() -> AsyncIterator[Build]:
    """Hooks of the service `shop`, without the pauses between tries."""
    made: list[Hooks] = []

    def build(*hooks: Hook, pauses_s: tuple[float, ...] = (0.0, 0.0)) -> Hooks:
        found = {"shop": hooks, "mail": hooks}
        made.append(Hooks(found.__getitem__, print_failure, pauses_s=pauses_s))
        return made[-1]

    yield build
    for each in made:
        await each.close()


async def test_a_record_arrives_with_its_service_and_moment(
    receiver: Receiver, build: Build
) -> None:
    hook = Hook(on=("step",), url=receiver.url("/in?token=s3cret"))
    hooks = build(hook)
    assert await hooks.post(hook, "shop", "step", RECORD) is None
    ((request, body),) = receiver.got
    assert body == {**RECORD, "service": "shop", "moment": "step"}
    assert (request.method, request.path_qs) == ("POST", "/in?token=s3cret")
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"] == f"turnout/{__version__}"
    assert len(request.headers["X-Turnout-Delivery"]) == 32


async def test_credentials_in_the_url_are_sent_and_nowhere_shown(
    receiver: Receiver, build: Build
) -> None:
    receiver.statuses = [403]
    url = f"http://ann:pass@127.0.0.1:{receiver.port}/secret-path?token=s3cret"
    hook = Hook(on=("step",), url=url)
    words = await build(hook).post(hook, "shop", "step", RECORD)
    assert words == f"http://127.0.0.1:{receiver.port} answered 403"
    ((request, _),) = receiver.got
    told = base64.b64encode(b"ann:pass").decode()
    assert request.headers["Authorization"] == f"Basic {told}"
    assert "pass" not in repr(hook)
    assert "s3cret" not in repr(hook)


@pytest.mark.parametrize("first", [500, 503, 429, 408])
async def test_what_may_pass_is_tried_again_with_the_same_delivery(
    receiver: Receiver, build: Build, first: int
) -> None:
    receiver.statuses = [first, first, 204]
    hook = Hook(on=("step",), url=receiver.url())
    assert await build(hook).post(hook, "shop", "step", RECORD) is None
    assert len(receiver.got) == 3
    assert len({request.headers["X-Turnout-Delivery"] for request, _ in receiver.got}) == 1


async def test_three_tries_are_all_and_the_last_answer_is_told(
    receiver: Receiver, build: Build
) -> None:
    receiver.statuses, receiver.text = [503], "come\tback \x1b[31mlater\n" + "x" * 900
    hook = Hook(on=("step",), url=receiver.url())
    words = await build(hook).post(hook, "shop", "step", RECORD)
    assert words is not None
    assert "answered 503: come back [31mlater xxx" in words
    assert words.isprintable()
    assert len(words) < 300
    assert len(receiver.got) == 3


@pytest.mark.parametrize("status", [301, 302, 307, 400, 403, 409])
async def test_other_answers_are_a_no_and_redirections_are_not_followed(
    receiver: Receiver, build: Build, status: int
) -> None:
    receiver.statuses, receiver.text = [status], "not on a Friday"
    hook = Hook(on=("step",), url=receiver.url())
    words = await build(hook).post(hook, "shop", "step", RECORD)
    assert words == f"http://127.0.0.1:{receiver.port} answered {status}: not on a Friday"
    assert [request.path for request, _ in receiver.got] == ["/hook"]


async def test_no_answer_ends_each_try_in_time(receiver: Receiver, build: Build) -> None:
    receiver.gate.clear()
    hook = Hook(on=("step",), url=receiver.url(), timeout_s=0.5)
    async with asyncio.timeout(30):
        words = await build(hook).post(hook, "shop", "step", RECORD)
    assert words is not None
    assert words.endswith("gave no answer within 0.5 s")
    assert len(receiver.got) == 3


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:1/x?token=s3cret", "connection refused"),
        ("http://127.0.0.1:99999/x?token=s3cret", ""),
        ("https://127.0.0.1:1/x?token=s3cret", "connection refused"),
    ],
)
async def test_whoever_cannot_be_reached_is_told_in_words_without_secrets(
    build: Build, url: str, why: str
) -> None:
    hook = Hook(on=("step",), url=url, timeout_s=2.0)
    words = await build(hook).post(hook, "shop", "step", RECORD)
    assert words is not None
    assert f"cannot be called: {why}" in words
    assert "s3cret" not in words


async def test_something_that_is_no_http_is_told_in_words(build: Build) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ready\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    hook = Hook(on=("step",), url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    words = await build(hook).post(hook, "shop", "step", RECORD)
    server.close()
    assert words is not None
    assert "the answer is no valid HTTP" in words


# ---- telling ----


async def test_those_who_want_to_know_are_told_in_order_and_without_waiting(
    receiver: Receiver, build: Build
) -> None:
    receiver.gate.clear()
    hooks = build(Hook(on=("started", "step", "promoted"), url=receiver.url()))
    for moment in ("started", "step", "step", "rolled_back", "promoted"):
        hooks.tell("shop", moment, RECORD)
    assert hooks.pending == 4, "of rolled_back it does not want to know"
    await wait_until(lambda: len(receiver.got) == 1)
    receiver.gate.set()
    await wait_until(lambda: not hooks.pending)
    assert receiver.moments == ["started", "step", "step", "promoted"]
    assert hooks.calls == {("shop", "delivered"): 4}


async def test_one_that_is_down_neither_fills_the_queue_nor_delays_the_others(
    receiver: Receiver, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    receiver.gate.clear()
    other = Receiver()
    hooks = build(
        Hook(on=("step",), url=receiver.url("/slow")),
        Hook(on=("step",), url=receiver.url("/other")),
    )
    for _ in range(5):
        hooks.tell("shop", "step", RECORD)
    hooks.tell("mail", "step", RECORD)
    assert hooks.pending == 8
    assert hooks.calls == {("shop", "dropped"): 4}
    await wait_until(lambda: len(receiver.got) == 4)
    assert other.got == []
    receiver.gate.set()
    await wait_until(lambda: not hooks.pending)
    assert hooks.calls[("shop", "delivered")] == 6


async def test_all_queues_together_have_a_limit(
    receiver: Receiver, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_PENDING", 2)
    receiver.gate.clear()
    hooks = build(Hook(on=("step",), url=receiver.url()))
    for service in ("shop", "mail", "shop", "mail"):
        hooks.tell(service, "step", RECORD)
    assert hooks.pending == 2
    assert hooks.calls == {("shop", "dropped"): 1, ("mail", "dropped"): 1}


async def test_a_call_that_fails_is_counted_and_the_next_one_is_made(
    receiver: Receiver, build: Build
) -> None:
    receiver.statuses = [404, 200]
    hooks = build(Hook(on=("started", "step"), url=receiver.url()))
    hooks.tell("shop", "started", RECORD)
    hooks.tell("shop", "step", RECORD)
    await wait_until(lambda: not hooks.pending)
    assert receiver.moments == ["started", "step"]
    assert hooks.calls == {("shop", "failed"): 1, ("shop", "delivered"): 1}


async def test_closing_gives_up_what_waits(receiver: Receiver, build: Build) -> None:
    receiver.gate.clear()
    hooks = build(Hook(on=("step",), url=receiver.url()))
    for _ in range(3):
        hooks.tell("shop", "step", RECORD)
    await wait_until(lambda: len(receiver.got) == 1)
    async with asyncio.timeout(4):  # less than one of them may wait for its answer
        await hooks.close()
    assert hooks.pending == 0


# ---- asking ----


async def test_all_who_are_asked_have_to_agree(receiver: Receiver, build: Build) -> None:
    hooks = build(
        Hook(on=("step",), url=receiver.url("/one"), blocking=True),
        Hook(on=("step",), url=receiver.url("/two"), blocking=True),
        Hook(on=("started",), url=receiver.url("/not-of-this"), blocking=True),
        Hook(on=("step",), url=receiver.url("/told-only")),
    )
    assert await hooks.ask("shop", "step", RECORD) is None
    assert {request.path for request, _ in receiver.got} == {"/one", "/two"}
    receiver.statuses, receiver.text = [200, 409], "freeze"
    words = await hooks.ask("shop", "step", RECORD)
    assert words == f"http://127.0.0.1:{receiver.port} answered 409: freeze"
    assert hooks.calls == {("shop", "delivered"): 3, ("shop", "failed"): 1}
    assert hooks.pending == 0


async def test_where_nobody_is_asked_nobody_is_waited_for(build: Build) -> None:
    hooks = build(Hook(on=("step",), url="http://127.0.0.1:1/"))
    assert await hooks.ask("shop", "step", RECORD) is None
    assert hooks.calls == {}


async def test_a_blocking_one_is_asked_at_a_step_and_told_of_the_end(
    receiver: Receiver, build: Build
) -> None:
    hooks = build(Hook(on=("step", "rolled_back"), url=receiver.url(), blocking=True))
    hooks.tell("shop", "step", RECORD)
    assert hooks.pending == 0
    hooks.tell("shop", "rolled_back", RECORD)
    await wait_until(lambda: not hooks.pending)
    assert receiver.moments == ["rolled_back"]


async def test_a_record_with_values_that_json_does_not_know_arrives_all_the_same(
    receiver: Receiver, build: Build
) -> None:
    hook = Hook(on=("step",), url=receiver.url())
    assert (
        await build(hook).post(
            hook,
            "shop",
            "step",
            {
                "numbers": {
                    1,
                }
            },
        )
        is None
    )
    assert json.loads(json.dumps(receiver.got[0][1]))["numbers"] == "{1}"


def test_the_configuration_says_who_is_told_of_what() -> None:
    service = ServiceConfig.model_validate(
        {
            "routes": [{}],
            "pools": {"blue": {}},
            "active": "blue",
            "rollout": {
                "hooks": [
                    {"on": ["started", "step"], "url": "https://gate.example/x", "blocking": True},
                    {"on": ["rolled_back"], "url": "http://chat.example:81/y", "timeout": "2s"},
                ]
            },
        }
    )
    asked, told = declared_hooks(service)
    assert asked == Hook(on=("started", "step"), url="https://gate.example/x", blocking=True)
    assert (told.timeout_s, told.blocking, told.name) == (2.0, False, "http://chat.example:81")
