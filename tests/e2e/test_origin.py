"""The tools of these tests, held against each other without a proxy between them."""

from __future__ import annotations

import hashlib

import pytest

from tests.e2e.load import Load
from tests.e2e.stage import Stage
from tests.e2e.wire import Wire, WireError


async def test_an_endpoint_says_who_it_is_and_keeps_the_connection(stage: Stage) -> None:
    origin = stage.origin("blue", "v41", 2)
    async with await Wire.to(origin.ports[1]) as wire:
        for _ in range(3):
            answer = await wire.request("/who")
            assert answer.json() == {"pool": "blue", "release": "v41", "endpoint": "blue-2"}
    assert [one["connections"] for one in origin.stats()] == [1, 2]


async def test_bodies_of_every_framing_are_read_whole(stage: Stage) -> None:
    port = stage.origin("blue").ports[0]
    async with await Wire.to(port) as wire:
        body = b"b" * 100_000
        echoed = (await wire.request("/echo", method="POST", body=body)).json()
        assert echoed["sha256"] == hashlib.sha256(body).hexdigest()
        chunked = await wire.request("/chunked")
        assert (chunked.body, chunked.trailers) == (b"hello, world", [("x-sum", "12")])
        assert (await wire.request("/status?code=304")).framing == "none"
        assert (await wire.request("/hints")).interim[0].status == 103
        assert (await wire.request("/close")).body == b"to the end of the connection"


@pytest.mark.parametrize("how", ["length", "chunked", "chunk"])
async def test_a_body_cut_midway_is_found_out(stage: Stage, how: str) -> None:
    async with await Wire.to(stage.origin("blue").ports[0]) as wire:
        with pytest.raises(WireError):
            await wire.request(f"/broken?how={how}")


async def test_a_malformed_request_is_answered_400_and_remembered(stage: Stage) -> None:
    origin = stage.origin("blue")
    async with await Wire.to(origin.ports[0]) as wire:
        await wire.send(b"GET /who HTTP/1.1\r\n\r\n")
        assert (await wire.answer()).status == 400
    assert origin.malformed() == ["no Host"]


async def test_the_load_reports_a_connection_that_the_server_closed(stage: Stage) -> None:
    port = stage.origin("blue").ports[0]
    async with Load(port, clients=2) as fine:
        await fine.more(20)
    assert fine.failures == []
    assert fine.shares() == {"blue": 100}
    async with Load(port, clients=2, path="/die") as broken:
        with pytest.raises(TimeoutError):
            await broken.more(1, timeout_s=0.2)
    assert "closed" in broken.failures[0][2]
