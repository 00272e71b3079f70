"""Endpoints that fail: passed over where nothing was sent, answered for where something was."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.e2e.load import Load, pools
from tests.e2e.stage import Stage
from tests.e2e.wire import Wire, WireError
from tests.ports import free_port


@pytest.mark.parametrize("balance", ["least_requests", "round_robin", "hash"])
async def test_an_endpoint_that_refuses_is_passed_over_and_no_request_fails(
    stage: Stage, balance: str
) -> None:
    blue = stage.origin("blue")
    dead = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    turnout = stage.turnout([dead[0], *blue.addresses, dead[1]], [], balance=balance)
    assert await pools(turnout.port, 300) == Counter({"blue": 300})


async def test_an_endpoint_that_dies_between_requests_costs_none(stage: Stage) -> None:
    first, second = stage.origin("blue"), stage.origin("blue")
    turnout = stage.turnout([*first.addresses, *second.addresses], [])
    async with await Wire.to(turnout.port) as wire:
        for _ in range(40):
            assert (await wire.request("/who")).status == 200
        first.end()  # its kept connections die too
        for _ in range(100):
            assert (await wire.request("/who")).status == 200


async def test_a_pool_without_any_endpoint_that_answers_is_502_or_503(stage: Stage) -> None:
    turnout = stage.turnout([f"127.0.0.1:{free_port()}"], [])
    async with await Wire.to(turnout.port) as wire:
        for _ in range(3):
            answer = await wire.request("/who")
            assert answer.status in {502, 503}
            assert str(answer.header("proxy-status")).startswith("turnout; error=")
            assert not answer.closes, "our own error is no reason to hang up"


async def test_an_empty_pool_in_charge_is_503_with_retry_after_and_not_ready(stage: Stage) -> None:
    turnout = stage.turnout([], [], start=False)
    turnout.launch()
    await _until_open(turnout.port)
    async with await Wire.to(turnout.port) as wire:
        answer = await wire.request("/who")
        assert answer.status == 503
        assert int(str(answer.header("retry-after"))) > 0
    await _until_open(turnout.admin)  # it opens after the listeners
    reply = turnout.ask("GET", "/readyz")
    assert reply.status == 503
    assert b"shop" in reply.body


async def _until_open(port: int) -> None:
    for _ in range(400):
        try:
            (await Wire.to(port)).close()
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)
        else:
            return
    raise TimeoutError(port)


async def test_an_answer_that_is_no_http_is_502(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), [])
    async with await Wire.to(turnout.port) as wire:
        assert (await wire.request("/garbage")).status == 502
        assert (await wire.request("/die")).status == 502
        assert (await wire.request("/who")).status == 200
    assert turnout.metric("turnout_upstream_failures_total", pool="blue") >= 2


@pytest.mark.parametrize("how", ["length", "chunked", "chunk"])
async def test_an_answer_that_breaks_off_is_broken_off_to_the_client(
    stage: Stage, how: str
) -> None:
    turnout = stage.turnout(stage.origin("blue"), [])
    async with await Wire.to(turnout.port) as wire:
        with pytest.raises(WireError):
            await wire.request(f"/broken?how={how}")
    async with await Wire.to(turnout.port) as wire:
        assert (await wire.request("/who")).status == 200


async def test_an_endpoint_that_is_too_slow_is_504(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), [], timeouts={"response": "500ms"})
    async with await Wire.to(turnout.port) as wire:
        answer = await wire.request("/slow?s=10")
        assert answer.status == 504
        assert str(answer.header("proxy-status")).startswith("turnout; error=")


async def test_endpoints_can_be_replaced_under_load(stage: Stage) -> None:
    old, new = stage.origin("blue", "v41", 2), stage.origin("blue", "v43", 2)
    turnout = stage.turnout(old, [])
    async with Load(turnout.port) as load:
        await load.more(50)
        turnout.change(
            "PUT",
            "/v1/services/shop/pools/blue",
            {"endpoints": new.addresses, "release": "v43"},
        )
        before = sum(one["requests"] for one in old.stats())
        await load.more(100)
        # Asking about it costs each of the two one request.
        assert sum(one["requests"] for one in old.stats()) == before + 2
    assert load.failures == []
