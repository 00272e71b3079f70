"""Answers as endpoints give them: what the client gets, and that nothing reaches another one.

Where a case does not say what the client sends, it is `ASK`. The answer comes whole, byte by byte,
and with another answer behind it that nobody asked for. Afterwards there is one more request, from
the same client or from another one: it must get its own answer, and from another connection to
the endpoint, unless the answer was one whose connection may be kept.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.dataplane.box import Box
from tests.wire.case import Case, Step, read_cases
from tests.wire.message import UnreadableError, read_message
from tests.wire.play import NEXT, OK, End, Mode, Play

CASES = read_cases(Path(__file__).parent / "answers")
ASK = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
MODES: tuple[Mode, ...] = ("whole", "bytes", "followed")


class AnswerPlay(Play):
    """A play whose endpoint is the one that is looked at."""

    def _trailing(self) -> bytes:
        return b""

    @property
    def _is_poisoned(self) -> bool:
        return self._mode == "followed"

    async def _play(self) -> None:
        steps = self._case.steps
        if not self._case.has("client"):
            steps[:0] = [Step("client", ASK), Step("endpoint gets", ASK)]
        last = max(i for i, step in enumerate(steps) if step.action == "endpoint")
        if self._is_poisoned:
            said = steps[last]
            steps[last] = Step("endpoint", said.data + POISON)
        await super()._play()
        await self._serve_another()

    async def _serve_another(self) -> None:
        """One more client: it gets its own answer, and nothing of what was said before."""
        await self._box.loop.create_connection(
            lambda: End(self, self.clients), "127.0.0.1", self._box.port
        )
        client = self.clients[-1]
        self.let_retry()
        client.write(NEXT)
        await self._client_gets(client, Step("client gets", OK))
        await self._endpoint_gets(Step("endpoint gets", NEXT))
        self._must(not client.data, "more came than was asked for")
        if self._is_poisoned:
            end = self.endpoints[0]
            await self._until(lambda: end.has_ended, "a connection with more on it is closed")

    async def _client_step(self, client: End, step: Step) -> bool:
        if "late" in step.words:
            await self._skip_interim(client)
        if not (step.status and step.data.strip()):
            return await super()._client_step(client, step)
        # The fault shows in the first read, and is answered; or later, and cuts the answer.
        await self._until(lambda: len(client.data) > len(b"HTTP/1.1 200"), "the answer begins")
        is_own = client.data.startswith(b"HTTP/1.1 %d" % step.status)
        self._must(is_own or self._mode == "bytes", "it is cut, though nothing was passed on")
        if is_own:
            step = Step(step.action, status=step.status, words=step.words - {"cut"})
        else:
            step = Step(step.action, step.data, words=step.words)
        return await super()._client_step(client, step)

    async def _skip_interim(self, client: End) -> None:
        """What came of the answer byte by byte, and was passed on before its fault showed."""
        status = 100
        while status < 200:
            await self._until(lambda: b"\r\n\r\n" in client.data, "the client gets an answer")
            message, size = read_message(client.data)
            status = message.status
            if status < 200:
                client.take(size)


def modes_of(case: Case) -> tuple[Mode, ...]:
    """What follows an answer means something only where it is known where the answer ends."""
    ends = case.has("endpoint closes", "endpoint resets", "endpoint half-closes")
    if ends or case.has("client gets bytes", "endpoint gets bytes") or case.given:
        return MODES[:2]
    return MODES


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_an_answer_is_passed_on_refused_or_broken_off_as_written(
    box: Box, case: Case
) -> None:
    is_uvloop = type(asyncio.get_running_loop()).__module__.startswith("uvloop")
    for mode in modes_of(case) if is_uvloop else MODES[:1]:
        copy = Case(case.family, case.name, case.given, list(case.steps))
        try:
            await AnswerPlay(box, copy, mode).run()
        except UnreadableError as unreadable:
            raise AssertionError(f"{case} ({mode}): {unreadable}") from unreadable
