"""Tells others of a rollout's moves: a POST of the decision's record, tried three times.

Whoever only wants to know is told in the background, in the order of the moves, and never
holds up a change. Whoever is asked (`blocking`) is waited for, within a bound.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import structlog
from yarl import URL

from proxy import __version__
from proxy.control.probe import in_words
from proxy.tasks import Report, spawn

Moment = Literal["started", "step", "promoted", "rolled_back"]
ASKING = frozenset({"started", "step"})
"""The moments at which a rollout can wait for leave to go on."""
OUTCOMES = ("delivered", "failed", "dropped")
"""What becomes of a call: a 2xx came; none came; it was not made, since too many wait."""

USER_AGENT = f"turnout/{__version__}"
DELIVERY = "X-Turnout-Delivery"
"""The same for all tries of a call: who has it already can tell."""
PAUSES_S = (0.5, 2.0)
"""Before the second try and the third."""
MOST_PENDING = 200
MOST_WAITING = 20
"""Calls that wait for one receiver: one that is down must not take the place of all others."""
MOST_BODY = 4 * 1024
"""Bytes of an answer that are read, for its words."""
MOST_WORDS = 200

log = structlog.get_logger("turnout.hooks")

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """Who is told of what."""

    on: tuple[str, ...]
    url: str = field(repr=False)
    timeout_s: float = 5.0
    blocking: bool = False

    def is_asked(self, moment: str) -> bool:
        return self.blocking and moment in ASKING

    @property
    def name(self) -> str:
        """Where it goes, for people: a path or a query may hold a secret as well as a password."""
        scheme, _, rest = self.url.partition("://")
        authority = rest.partition("/")[0].partition("?")[0]
        return f"{scheme}://{authority.rpartition('@')[2]}"


@dataclass(frozen=True, slots=True)
class _Call:
    hook: Hook
    service: str
    moment: Moment
    record: Record


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of one try."""

    words: str | None
    """None: delivered."""
    is_final: bool = True


class Hooks:
    """All calls to hooks; one lane for each service and receiver, so that moves come in order."""

    def __init__(
        self,
        hooks_of: Callable[[str], Sequence[Hook]],
        report: Report,
        *,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        # fixed
        self._hooks_of = hooks_of
        self._report = report
        self._pauses_s = tuple(pauses_s)
        # as it goes
        self._session: aiohttp.ClientSession | None = None
        self._lanes: dict[tuple[str, Hook], deque[_Call]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._asked = 0
        self.calls: Counter[tuple[str, str]] = Counter()
        """How many by service and outcome, since the start."""

    @property
    def pending(self) -> int:
        """Calls that wait or are under way."""
        return self._asked + sum(len(lane) for lane in self._lanes.values())

    def tell(self, service: str, moment: Moment, record: Record) -> None:
        """Tell in the background whoever wants to know of this and is not asked."""
        for hook in self._hooks_of(service):
            if moment in hook.on and not hook.is_asked(moment):
                self._put(_Call(hook, service, moment, record))

    async def ask(self, service: str, moment: Moment, record: Record) -> str | None:
        """Ask all who have to agree; None when they do, else who does not, and why.

        Ends within three times the longest timeout and the pauses.
        """
        asked = [
            hook for hook in self._hooks_of(service) if moment in hook.on and hook.is_asked(moment)
        ]
        self._asked += len(asked)
        try:
            answers = await asyncio.gather(
                *(self._carry_out(_Call(hook, service, moment, record)) for hook in asked)
            )
        finally:
            self._asked -= len(asked)
        return "; ".join(words for words in answers if words is not None) or None

    async def close(self) -> None:
        """Give up what waits: it is too late."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lanes.clear()
        if self._session is not None:
            await self._session.close()
            self._session = None

    # ---- in the background ----

    def _put(self, call: _Call) -> None:
        key = (call.service, call.hook)
        lane = self._lanes.get(key)
        if self.pending >= MOST_PENDING or (lane is not None and len(lane) >= MOST_WAITING):
            self._note(call, "dropped", "too many calls wait already")
        elif lane is not None:
            lane.append(call)
        else:
            self._lanes[key] = deque([call])
            task = spawn(self._work_off(key), name="hooks", report=self._report)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work_off(self, key: tuple[str, Hook]) -> None:
        lane = self._lanes[key]
        try:
            while lane:
                await self._carry_out(lane[0])
                lane.popleft()
        finally:
            self._lanes.pop(key, None)

    # ---- one call ----

    async def _carry_out(self, call: _Call) -> str | None:
        """Make the call; None when it was delivered, else why not. Never raises."""
        words = await self.post(call.hook, call.service, call.moment, call.record)
        self._note(call, "delivered" if words is None else "failed", words)
        return words

    async def post(self, hook: Hook, service: str, moment: Moment, record: Record) -> str | None:
        """POST the record; None after an answer of class 2xx, else why not, in words.

        No answer, 408, 429 and 5xx are tried again; anything else is an answer: no.
        """
        body = json.dumps(
            {**record, "service": service, "moment": moment}, separators=(",", ":"), default=str
        ).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            DELIVERY: secrets.token_hex(16),
        }
        answer = _Answer("not called")
        for pause_s in (0.0, *self._pauses_s):
            await asyncio.sleep(pause_s)
            answer = await self._try(hook, body, headers)
            if answer.is_final:
                break
        return None if answer.words is None else f"{hook.name} {answer.words}"

    async def _try(self, hook: Hook, body: bytes, headers: Mapping[str, str]) -> _Answer:
        began = time.monotonic()
        try:
            async with asyncio.timeout(hook.timeout_s):
                return await self._send(hook, body, headers)
        except TimeoutError:
            return _Answer(f"gave no answer within {hook.timeout_s:g} s", is_final=False)
        except (OSError, ValueError, aiohttp.ClientError) as error:
            took = time.monotonic() - began
            return _Answer(f"cannot be called: {_why(error)} ({took:.1f} s)", is_final=False)

    async def _send(self, hook: Hook, body: bytes, headers: Mapping[str, str]) -> _Answer:
        if self._session is None:
            self._session = _session()
        async with self._session.post(
            URL(hook.url, encoded=True), data=body, headers=headers, allow_redirects=False
        ) as answer:
            status = answer.status
            said = b""
            if not 200 <= status <= 299:
                with suppress(OSError, aiohttp.ClientError):
                    said = await answer.content.read(MOST_BODY)
            answer.close()
        if 200 <= status <= 299:
            return _Answer(None)
        words = f"answered {status}"
        if text := _cleaned(said):
            words = f"{words}: {text}"
        return _Answer(words, is_final=status < 500 and status not in {408, 429})

    def _note(self, call: _Call, outcome: str, words: str | None) -> None:
        self.calls[call.service, outcome] += 1
        if words is not None:
            log.warning(
                "hook_not_delivered",
                service=call.service,
                moment=call.moment,
                hook=call.hook.name,
                detail=words,
            )


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the caller has the clock
        auto_decompress=False,
        trust_env=False,
        max_line_size=8 * 1024,
        max_field_size=8 * 1024,
        read_bufsize=MOST_BODY,
        skip_auto_headers=("Accept-Encoding",),
    )


def _cleaned(said: bytes) -> str:
    """The beginning of an answer's text, fit for a line of a log or a terminal."""
    text = said.decode("utf-8", "replace")
    text = "".join(each if each.isprintable() else " " for each in text)
    text = " ".join(text.split())
    return text if len(text) <= MOST_WORDS else f"{text[:MOST_WORDS]}..."


def _why(error: Exception) -> str:
    """Without the address: aiohttp's own words contain the whole URL."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            words = getattr(error.certificate_error, "verify_message", "") or "no valid certificate"
        case aiohttp.ClientConnectorDNSError():
            words = "the name is not known"
        case aiohttp.ClientConnectorError():
            words = in_words(error.os_error)
        case aiohttp.ServerDisconnectedError():
            words = "closed without an answer"
        case aiohttp.InvalidURL():
            words = "the URL is not valid"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            words = "the answer is no valid HTTP"
        case aiohttp.ClientError():
            words = type(error).__name__
        case _:
            words = in_words(error)
    return words
