"""A preview names its pool by a secret, whatever the weights."""

from __future__ import annotations

import pytest

from tests.e2e.stage import Stage
from tests.e2e.wire import Wire

SECRET = "open-sesame"


@pytest.mark.parametrize("how", ["header", "cookie"])
async def test_a_preview_picks_its_pool_and_nobody_else_is_touched(stage: Stage, how: str) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), preview={"secret": SECRET})
    async with await Wire.to(turnout.port) as wire:
        for value, pool in (
            (f"{SECRET}:green", "green"),
            (f"{SECRET}:blue", "blue"),
            ("open-sesami:green", "blue"),
            (f"{SECRET}:purple", "blue"),
            (":green", "blue"),
            ("", "blue"),
        ):
            header = (
                {"X-Turnout-Preview": value}
                if how == "header"
                else {"Cookie": f"a=b; turnout_preview={value}"}
            )
            assert (await wire.request("/who", headers=header)).pool == pool, value
        assert (await wire.request("/who")).pool == "blue"


async def test_an_empty_secret_turns_previews_off(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), preview={"secret": ""})
    async with await Wire.to(turnout.port) as wire:
        for value in (":green", "green", ""):
            answer = await wire.request("/who", headers={"X-Turnout-Preview": value})
            assert answer.pool == "blue"


async def test_a_preview_leaves_the_sticky_cookie_alone(stage: Stage) -> None:
    turnout = stage.turnout(
        stage.origin("blue"),
        stage.origin("green"),
        preview={"secret": SECRET},
        sticky={"by": "cookie"},
    )
    async with await Wire.to(turnout.port) as wire:
        cookie = str((await wire.request("/who")).header("set-cookie")).partition(";")[0]
        preview = {"Cookie": cookie, "X-Turnout-Preview": f"{SECRET}:green"}
        answer = await wire.request("/who", headers=preview)
        assert (answer.pool, answer.header("set-cookie")) == ("green", None)
        assert (await wire.request("/who", headers={"Cookie": cookie})).pool == "blue"
