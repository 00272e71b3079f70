"""The admin API as an aiohttp application: routes, limits, and what goes round every handler."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import get_args

from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy.control.admin.answer import Answer
from proxy.control.admin.auth import Access, actor
from proxy.control.admin.body import read_bounded
from proxy.control.admin.desk import Desk, RolloutVerb
from proxy.control.admin.handlers import LONGEST_WAIT_S, Call, Handler, Handlers
from proxy.control.admin.idempotency import HEADER as IDEMPOTENCY_KEY
from proxy.control.admin.idempotency import Replies
from proxy.control.admin.problem import Problem, answered, problem_answer

SMALL_BODY = 64 * 1024
LARGE_BODY = 1024 * 1024
READ_S = 30.0
CHANGE_S = 90.0
"""A change waits for every worker, and for one that must be replaced."""

HEADERS = {
    "Server": "turnout",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

WebHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One method on one path, and how much of it there may be."""

    method: str
    path: str
    handler: Handler
    limit_s: float = READ_S
    max_body: int = SMALL_BODY


def verbs(handlers: Handlers) -> list[Verb]:
    def get(path: str, handler: Handler, limit_s: float = READ_S) -> Verb:
        return Verb(method="GET", path=path, handler=handler, limit_s=limit_s)

    def put(path: str, handler: Handler) -> Verb:
        return Verb(method="PUT", path=path, handler=handler, limit_s=CHANGE_S)

    def post(path: str, handler: Handler, max_body: int = SMALL_BODY) -> Verb:
        return Verb(method="POST", path=path, handler=handler, limit_s=CHANGE_S, max_body=max_body)

    service = "/v1/services/{service}"
    return [
        get("/healthz", handlers.healthz),
        get("/readyz", handlers.readyz),
        get("/metrics", handlers.metrics),
        get("/v1/status", handlers.status),
        get("/v1/services", handlers.services),
        get(service, handlers.service),
        get(f"{service}/decisions", handlers.service_decisions),
        get(f"{service}/drain", handlers.drain_status, LONGEST_WAIT_S + READ_S),
        get("/v1/decisions", handlers.decisions),
        get("/v1/config", handlers.config),
        put(f"{service}/weights", handlers.set_weights),
        put(f"{service}/pools/{{pool}}", handlers.set_pool),
        post(f"{service}/switch", handlers.switch),
        post(f"{service}/rollback", handlers.rollback),
        post(f"{service}/deploy", handlers.deploy),
        post(f"{service}/rollout", handlers.start_rollout),
        *(
            post(f"{service}/rollout/{verb}", handlers.move_rollout(verb))
            for verb in get_args(RolloutVerb)
        ),
        post(f"{service}/unlock", handlers.unlock),
        post(f"{service}/drain", handlers.drain),
        post(f"{service}/hold", handlers.hold),
        post(f"{service}/release", handlers.release),
        post("/v1/config/reload", handlers.reload),
        post("/v1/config/check", handlers.check, LARGE_BODY),
    ]


def build_app(desk: Desk, handlers: Handlers, access: Access, replies: Replies) -> web.Application:
    # The readers of bodies have their own bounds; this one is for what aiohttp reads by itself.
    app = web.Application(middlewares=[_front(access)], client_max_size=LARGE_BODY)
    app.on_response_prepare.append(_add_headers)
    for verb in verbs(handlers):
        app.router.add_route(verb.method, verb.path, partial(_respond, desk, replies, verb))
        if verb.method == "GET":
            app.router.add_route("HEAD", verb.path, partial(_respond, desk, replies, verb))
    return app


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _front(access: Access) -> Middleware:
    """Let the request in or not; give every refusal and failure its problem document."""

    @web.middleware
    async def front(request: web.Request, handler: WebHandler) -> web.StreamResponse:
        try:
            access.check(request)
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - the one place where all of them end
            return problem_answer(error, request.rel_url.raw_path).response()

    return front


async def _respond(desk: Desk, replies: Replies, verb: Verb, request: web.Request) -> web.Response:
    try:
        async with asyncio.timeout(verb.limit_s) as limit:
            answer = await _answer(replies, verb, request)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise _too_slow(verb) from error
    service = request.match_info.get("service")
    if answer.status == 412 and service is not None:
        answer = answer.with_headers(ETag=desk.etag(service))
    return answer.response()


async def _answer(replies: Replies, verb: Verb, request: web.Request) -> Answer:
    if verb.method == "GET":
        return await verb.handler(_call(request, b""))
    call = _call(request, await read_bounded(request, verb.max_body))
    # What a key remembers is an answer whatever happened, so problems are made inside.
    work = partial(answered, partial(verb.handler, call), call.path)
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return await work()
    return await replies.answer(key, _fingerprint(request, call), work)


def _call(request: web.Request, body: bytes) -> Call:
    return Call(
        path=request.rel_url.raw_path,
        who=actor(request),
        service=request.match_info.get("service", ""),
        pool=request.match_info.get("pool", ""),
        query=tuple(request.query.items()),
        body=body,
        if_match=", ".join(request.headers.getall("If-Match", [])) or None,
        accept=", ".join(request.headers.getall("Accept", [])),
    )


def _fingerprint(request: web.Request, call: Call) -> bytes:
    """Return what two requests with the same key must have in common."""
    digest = hashlib.blake2b(digest_size=32)
    target = (request.method, request.rel_url.raw_path_qs, call.if_match or "")
    for part in (*(text.encode("utf-8", "surrogateescape") for text in target), call.body):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def _too_slow(verb: Verb) -> Problem:
    if verb.method == "GET":
        return Problem(504, f"No answer within {verb.limit_s:g} s.")
    return Problem(
        504,
        f"Not done within {verb.limit_s:g} s; what has begun goes on: GET /v1/status says how far.",
    )
