"""The verbs of the admin API: from a call to the controller to an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.control import given, hold
from proxy.control.admin.answer import Answer, ok
from proxy.control.admin.body import Fields, parse_object
from proxy.control.admin.desk import Desk, RolloutVerb, View
from proxy.control.admin.metrics import FleetCollector, render
from proxy.control.admin.problem import Problem, invalid
from proxy.control.admin.query import Query
from proxy.tasks import spawn

LONGEST_WAIT_S = 600.0
LARGEST_ID = 2**53
MOST_DECISIONS = 1_000
READY_TIMEOUT_S = 60.0
LONGEST_READY_TIMEOUT_S = 86400.0
MOST_READY = 100_000
MOST_WAITING = 64
"""Waits for drains at a time: each looks at the gauges many times a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to the admin API, read and let in."""

    path: str
    who: str
    service: str = ""
    pool: str = ""
    query: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    if_match: str | None = None
    accept: str = ""

    def fields(self) -> Fields:
        return parse_object(self.body)


Handler = Callable[[Call], Awaitable[Answer]]


class Handlers:
    def __init__(self, desk: Desk, collector: FleetCollector, stopping: asyncio.Event) -> None:
        self._desk = desk
        self._collector = collector
        self._stopping = stopping
        self._waiting = 0

    # ---- reading ----

    async def healthz(self, call: Call) -> Answer:
        _no_query(call)
        return ok({"status": "ok"})

    async def readyz(self, call: Call) -> Answer:
        _no_query(call)
        is_ready, reasons = self._desk.ready()
        if is_ready:
            return ok({"ready": True})
        return ok({"ready": False, "reasons": reasons}, status=503)

    async def metrics(self, call: Call) -> Answer:
        body, content_type = render(self._collector, call.accept)
        return Answer(status=200, body=body, content_type=content_type)

    async def status(self, call: Call) -> Answer:
        _no_query(call)
        return ok(self._desk.status())

    async def services(self, call: Call) -> Answer:
        _no_query(call)
        return ok(self._desk.services())

    async def service(self, call: Call) -> Answer:
        _no_query(call)
        return _service_answer(self._desk.service(call.service))

    async def decisions(self, call: Call) -> Answer:
        return self._decisions(call, None)

    async def service_decisions(self, call: Call) -> Answer:
        self._desk.service(call.service)  # 404 for a service that never was, not an empty list
        return self._decisions(call, call.service)

    async def config(self, call: Call) -> Answer:
        _no_query(call)
        return ok(self._desk.config_view())

    async def drain_status(self, call: Call) -> Answer:
        query = Query(call.query)
        wait_s = query.seconds("wait", 0.0)
        query.done()
        if self._waiting >= MOST_WAITING and wait_s > 0:
            raise Problem(503, f"{MOST_WAITING} others wait already; ask again without `wait`.")
        self._waiting += 1
        try:
            view = await self._watch_drain(call.service, min(wait_s, LONGEST_WAIT_S))
        finally:
            self._waiting -= 1
        return ok(_drain_view(view))

    # ---- changing ----

    async def set_weights(self, call: Call) -> Answer:
        fields = call.fields()
        weights, reason, ttl_s = fields.weights(), fields.reason(), fields.ttl_s()
        fields.done()
        view = await self._desk.set_weights(
            call.service,
            weights,
            who=call.who,
            reason=reason,
            ttl_s=ttl_s,
            if_match=self._expected(call),
        )
        return _service_answer(view)

    async def set_pool(self, call: Call) -> Answer:
        fields = call.fields()
        endpoints, release = fields.endpoints(), fields.name_or_none("release")
        reason = fields.reason()
        fields.done()
        view = await self._desk.set_pool(
            call.service,
            call.pool,
            endpoints=endpoints,
            release=release,
            who=call.who,
            reason=reason,
            if_match=self._expected(call),
        )
        return _service_answer(view)

    async def switch(self, call: Call) -> Answer:
        fields = call.fields()
        to, force, reason = fields.name("to"), fields.flag("force"), fields.reason()
        fields.done()
        view = await self._desk.switch(
            call.service,
            to,
            force=force,
            who=call.who,
            reason=reason,
            if_match=self._expected(call),
        )
        return _service_answer(view)

    async def rollback(self, call: Call) -> Answer:
        fields = call.fields()
        reason, force, lock = fields.reason(), fields.flag("force"), fields.flag("lock")
        fields.done()
        view = await self._desk.rollback(
            call.service,
            reason=reason,
            force=force,
            lock=lock,
            who=call.who,
            if_match=self._expected(call),
        )
        return _service_answer(view)

    async def deploy(self, call: Call) -> Answer:
        fields = call.fields()
        endpoints, release = fields.some_endpoints(), fields.name_or_none("release")
        pool, steps = fields.name_or_none("pool"), fields.steps(or_to=True)
        now, min_ready = fields.flag("now"), fields.count_or_none("min_ready", most=MOST_READY)
        ready_timeout_s = _ready_timeout_s(fields)
        force, reason = fields.flag("force"), fields.reason()
        fields.exclude("now", "steps")
        fields.done()
        view = await self._desk.deploy(
            call.service,
            endpoints=endpoints,
            release=release,
            pool=pool,
            steps=steps,
            now=now,
            ready_timeout_s=ready_timeout_s,
            min_ready=min_ready,
            force=force,
            who=call.who,
            reason=reason,
            if_match=self._expected(call),
        )
        return _begun(call, view)

    async def start_rollout(self, call: Call) -> Answer:
        fields = call.fields()
        to, steps, ready_timeout_s = fields.name("to"), fields.steps(), _ready_timeout_s(fields)
        force, reason = fields.flag("force"), fields.reason()
        fields.done()
        view = await self._desk.start_rollout(
            call.service,
            to,
            steps=steps,
            ready_timeout_s=ready_timeout_s,
            force=force,
            who=call.who,
            reason=reason,
            if_match=self._expected(call),
        )
        return _begun(call, view)

    def move_rollout(self, verb: RolloutVerb) -> Handler:
        """Return the handler of one of the verbs on a rollout that is under way."""

        async def move(call: Call) -> Answer:
            fields = call.fields()
            # Only an abort can be refused because the old pool has nothing to offer.
            force = fields.flag("force") if verb == "abort" else False
            reason = fields.reason()
            fields.done()
            view = await self._desk.move_rollout(
                call.service,
                verb,
                force=force,
                who=call.who,
                reason=reason,
                if_match=self._expected(call),
            )
            return _service_answer(view)

        return move

    async def unlock(self, call: Call) -> Answer:
        fields = call.fields()
        reason = fields.reason()
        fields.done()
        view = await self._desk.unlock(
            call.service, who=call.who, reason=reason, if_match=self._expected(call)
        )
        return _service_answer(view)

    async def drain(self, call: Call) -> Answer:
        fields = call.fields()
        pool, endpoint = fields.name_or_none("pool"), fields.name_or_none("endpoint")
        undo, reason = fields.flag("undo"), fields.reason()
        fields.done()
        view = await self._desk.drain(
            call.service,
            pool,
            endpoint,
            undo=undo,
            who=call.who,
            reason=reason,
            if_match=self._expected(call),
        )
        if undo:
            return _service_answer(self._desk.service(call.service))
        where = {"Location": call.path, "ETag": self._desk.etag(call.service)}
        return ok(_drain_view(view), status=202, headers=where)

    async def hold(self, call: Call) -> Answer:
        fields = call.fields()
        timeout_s = fields.seconds("timeout", hold.TIMEOUT_S, most=given.LONGEST_HOLD_S)
        most = fields.count("most", hold.MOST, most=given.MOST_HELD)
        reason, ttl_s = fields.reason(), fields.ttl_s()
        fields.done()
        view = await self._desk.hold(
            call.service,
            timeout_s=timeout_s,
            most=most,
            ttl_s=ttl_s,
            who=call.who,
            reason=reason,
            if_match=self._expected(call),
        )
        return _service_answer(view)

    async def release(self, call: Call) -> Answer:
        fields = call.fields()
        over_s = fields.seconds("over", hold.OVER_S, most=given.LONGEST_HOLD_S, may_be_zero=True)
        reason = fields.reason()
        fields.done()
        view = await self._desk.release(
            call.service, over_s=over_s, who=call.who, reason=reason, if_match=self._expected(call)
        )
        return _service_answer(view)

    async def reload(self, call: Call) -> Answer:
        call.fields().done()
        view = await self._desk.reload(who=call.who)
        if view["applied"]:
            return ok(view)
        raise invalid(view["errors"] or ["the configuration was not applied"])

    async def check(self, call: Call) -> Answer:
        try:
            text = call.body.decode()
        except UnicodeDecodeError as error:
            raise invalid([f"the body is not UTF-8: byte {error.start}"]) from error
        # A large file takes a while to read; the other callers need not wait for it.
        errors = await asyncio.to_thread(self._desk.check_text, text)
        return ok({"ok": not errors, "errors": errors})

    # ---- in common ----

    def _decisions(self, call: Call, service: str | None) -> Answer:
        query = Query(call.query)
        since = query.number("since", 0, least=0, most=LARGEST_ID)
        limit = query.number("limit", 100, least=1, most=MOST_DECISIONS)
        if service is None:
            service = query.text("service")
        query.done()
        return ok(self._desk.decisions(service, since, limit))

    def _expected(self, call: Call) -> str | None:
        """Return the tag that If-Match asks for: None for any, the present one if it is listed."""
        if call.if_match is None:
            return None
        current = self._desk.etag(call.service)
        tags = [tag.strip() for tag in call.if_match.split(",")]
        if "*" in tags:
            return None
        return current if current in tags else tags[0]

    async def _watch_drain(self, service: str, wait_s: float) -> View | None:
        """Wait for the drain, but no longer than this server has to live."""
        status = self._desk.drain_status(service, wait_s)
        waiting = spawn(status, name="admin-drain-wait", report=_raised_here)
        stopping = spawn(self._stopping.wait(), name="admin-stopping", report=_raised_here)
        try:
            await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                view: View | None = await waiting
                return view
        finally:
            waiting.cancel()
            stopping.cancel()
        return await self._desk.drain_status(service, 0.0)


def _raised_here(_name: str, _error: BaseException) -> None:
    """Report nothing: who waits for the task raises its failure."""


def _service_answer(view: View) -> Answer:
    # The tag of what is shown: asked for now, it could be that of a change made since.
    return ok(view, headers={"ETag": f'"{view["revision"]}"'})


def _begun(call: Call, view: View) -> Answer:
    """What has begun and is to be watched: the service, which shows its rollout."""
    where = {"Location": call.path.rpartition("/")[0], "ETag": f'"{view["revision"]}"'}
    return ok(view, status=202, headers=where)


def _ready_timeout_s(fields: Fields) -> float:
    return fields.seconds("ready_timeout", READY_TIMEOUT_S, most=LONGEST_READY_TIMEOUT_S)


def _no_query(call: Call) -> None:
    Query(call.query).done()


def _drain_view(view: View | None) -> dict[str, Any]:
    # The object itself, and again under `drain` as in the service: `.drain` reads the same in both.
    return {**(view or {}), "drain": view}
