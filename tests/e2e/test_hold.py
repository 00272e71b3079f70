"""Hold and paced release under load, with real processes: nobody fails, nobody is lost."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

from tests.e2e.load import Load
from tests.e2e.stage import Stage, Turnout, wait_until
from tests.e2e.wire import Wire, request_bytes

HOLD = "/v1/services/shop/hold"
RELEASE = "/v1/services/shop/release"


class Uploads:
    """Clients that post bodies of several sizes, and check that they arrived whole."""

    def __init__(self, port: int, clients: int) -> None:
        self._port = port
        self._stopping = False
        self._tasks = [
            asyncio.get_running_loop().create_task(self._client(n)) for n in range(clients)
        ]
        self.times: list[tuple[float, float]] = []
        """Sent and answered, monotonic seconds."""

    async def end(self) -> None:
        self._stopping = True
        async with asyncio.timeout(30):
            await asyncio.gather(*self._tasks)

    async def _client(self, number: int) -> None:
        body = bytes([number]) * (1 << (8 + number % 12))  # 256 bytes to 512 KiB
        digest = hashlib.sha256(body).hexdigest()
        async with await Wire.to(self._port) as wire:
            while not self._stopping:
                sent_s = time.monotonic()
                answer = await wire.request("/echo", method="POST", body=body)
                assert answer.status == 200, answer.body
                assert answer.json()["sha256"] == digest
                self.times.append((sent_s, time.monotonic()))
                await asyncio.sleep(0.05)


async def _change(turnout: Turnout, path: str, body: Any) -> Any:
    return await asyncio.to_thread(turnout.change, "POST", path, body)


async def test_held_for_seconds_under_load_and_released_over_two_nobody_fails(
    stage: Stage,
) -> None:
    blue = stage.origin("blue", count=2)
    turnout = stage.turnout(blue, stage.origin("green"), workers=2)
    async with Load(turnout.port, clients=30, pause_s=0.02) as load:
        uploads = Uploads(turnout.port, 30)
        await load.more(100)
        view = await _change(turnout, HOLD, {"reason": "database switch-over"})
        held_s = time.monotonic()
        assert view["hold"]["reason"] == "database switch-over"
        await asyncio.to_thread(
            wait_until, lambda: turnout.service()["hold"]["held"] == 60, "all clients are held"
        )
        assert turnout.metric("turnout_held_requests", service="shop") == 60
        await asyncio.sleep(3.0 - (time.monotonic() - held_s))
        released_s = time.monotonic()
        view = await _change(turnout, RELEASE, {"over": "2s"})
        assert view["hold"]["releasing"]
        await asyncio.to_thread(
            wait_until, lambda: turnout.service()["hold"] is None, "the release is over"
        )
        await load.more(100)
        await uploads.end()
    assert load.failures == []
    assert blue.malformed() == []
    times = [(each.sent_s, each.answered_s) for each in load.seen] + uploads.times
    waited = [answered for sent, answered in times if sent < released_s and answered > held_s + 1]
    assert len(waited) == 60
    moments = sorted(answered - released_s for answered in waited)
    assert moments[-1] < 2.0 + 5.0, moments
    assert moments[-1] - moments[0] > 1.2, "over two seconds"
    assert moments[45] - moments[15] > 0.3, "and not at once: half of them take half of the time"
    ends = {outcome: _ended(turnout, outcome) for outcome in ("released", "timed_out", "refused")}
    assert ends == {"released": 60, "timed_out": 0, "refused": 0}
    decisions = [each["what"] for each in turnout.get("/v1/services/shop/decisions")]
    assert decisions[-2:] == ["hold", "release"]


async def test_what_is_held_goes_where_the_switch_went_meanwhile(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"))
    await _change(turnout, HOLD, {})
    wires = [await Wire.to(turnout.port) for _ in range(8)]
    for wire in wires:
        await wire.send(request_bytes("/who"))
    wait_until(lambda: turnout.service()["hold"]["held"] == 8, "all are held")
    turnout.switch("green")
    await _change(turnout, RELEASE, {"over": "0s"})
    assert {(await wire.answer()).pool for wire in wires} == {"green"}
    for wire in wires:
        wire.close()


async def test_the_count_holds_over_both_workers_and_the_time_for_each(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), workers=2)
    await _change(turnout, HOLD, {"most": 10, "timeout": "3s"})
    wires = [await Wire.to(turnout.port) for _ in range(40)]
    began_s = time.monotonic()
    for wire in wires:
        await wire.send(request_bytes("/who"))
    answers = await asyncio.gather(*(wire.answer() for wire in wires))
    assert {answer.status for answer in answers} == {503}
    assert {answer.header("retry-after") for answer in answers} == {"1"}
    assert 2.8 < time.monotonic() - began_s < 15
    timed_out, refused = _ended(turnout, "timed_out"), _ended(turnout, "refused")
    assert timed_out + refused == 40
    assert 5 <= timed_out <= 10
    assert turnout.metric("turnout_requests_total", service="shop") == 0
    for wire in wires:
        wire.close()


async def test_a_hold_survives_the_death_of_everything(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"))
    await _change(turnout, HOLD, {"reason": "migration"})
    turnout.kill_all()
    turnout.start()
    assert turnout.service()["hold"]["reason"] == "migration"
    wire = await Wire.to(turnout.port)
    await wire.send(request_bytes("/who"))
    wait_until(lambda: turnout.service()["hold"]["held"] == 1, "it is held")
    await _change(turnout, RELEASE, {})
    assert (await wire.answer()).pool == "blue"
    wire.close()


async def test_a_proxy_that_is_stopped_answers_those_it_holds(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"))
    await _change(turnout, HOLD, {})
    wire = await Wire.to(turnout.port)
    await wire.send(request_bytes("/who"))
    wait_until(lambda: turnout.service()["hold"]["held"] == 1, "it is held")
    stopping = asyncio.to_thread(turnout.stop)
    answer, code = await asyncio.gather(wire.answer(), stopping)
    assert (answer.pool, answer.closes, code) == ("blue", True, 0)
    wire.close()


def _ended(turnout: Turnout, outcome: str) -> float:
    return turnout.metric("turnout_held_total", service="shop", outcome=outcome)
