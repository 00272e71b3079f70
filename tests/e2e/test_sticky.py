"""Stickiness: clients move only when the weights do, and only the way the weights moved."""

from __future__ import annotations

import math
import time
from http.cookies import SimpleCookie

import pytest

from tests.e2e.load import pools, requests
from tests.e2e.stage import Stage, Turnout
from tests.e2e.wire import Wire

USERS = 2000
COOKIE = {"by": "cookie", "cookie": "turnout"}


class Users:
    """Clients with a cookie jar each."""

    def __init__(self, turnout: Turnout, count: int) -> None:
        self._port = turnout.port
        self.cookies: list[str | None] = [None] * count
        self.set_cookies = 0

    async def ask(self) -> list[str]:
        """One request of every user; the pool that answered each."""
        headers = [{"Cookie": f"a=1; {cookie}; z=2"} if cookie else {} for cookie in self.cookies]
        answers = await requests(self._port, headers, clients=16)
        self.set_cookies = 0
        for number, (_, set_cookie) in enumerate(answers):
            if set_cookie is not None:
                self.set_cookies += 1
                self.cookies[number] = set_cookie.partition(";")[0]
        return [pool for pool, _ in answers]


def _tolerance(percent: float, count: int) -> float:
    """Four standard deviations of a share of independent draws, in points: the most to allow."""
    return 400 * math.sqrt(percent / 100 * (1 - percent / 100) / count)


async def test_two_thousand_users_move_only_with_the_weights_up_and_down(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), sticky=COOKIE)
    users = Users(turnout, USERS)
    before = await users.ask()
    assert set(before) == {"blue"}
    assert users.set_cookies == USERS
    green_at: dict[float, set[int]] = {}
    last = 0.0
    for percent in (1, 10, 50, 100, 50, 10, 0):
        turnout.weights(blue=100 - percent, green=percent)
        now = await users.ask()
        moved = {(old, new) for old, new in zip(before, now, strict=True) if old != new}
        assert moved <= ({("blue", "green")} if percent > last else {("green", "blue")})
        share = 100 * now.count("green") / USERS
        assert share == pytest.approx(percent, abs=_tolerance(percent, USERS) + 1e-9)
        green = {number for number, pool in enumerate(now) if pool == "green"}
        assert green_at.setdefault(percent, green) == green, "others came back than had gone"
        assert await users.ask() == now
        assert users.set_cookies == 0, "a cookie is sent again though nothing changed"
        before, last = now, percent


async def test_a_bound_client_stays_after_zero_under_finish_and_a_new_one_does_not(
    stage: Stage,
) -> None:
    turnout = stage.turnout(
        stage.origin("blue"),
        stage.origin("green"),
        sticky={**COOKIE, "on_zero": "finish"},
        drain={"requests": "1s", "streams": "8s", "spread": "0s"},
    )
    users = Users(turnout, 50)
    assert set(await users.ask()) == {"blue"}
    turnout.switch("green")
    switched_s = time.monotonic()
    assert set(await users.ask()) == {"blue"}
    assert await pools(turnout.port, 100) == {"green": 100}
    assert time.monotonic() < switched_s + 8, "too slow a machine to tell"
    while set(pools_now := await users.ask()) != {"green"}:
        assert time.monotonic() < switched_s + 20, pools_now
    assert time.monotonic() >= switched_s + 7.9


async def test_a_switch_under_move_takes_everybody_along(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), sticky=COOKIE)
    users = Users(turnout, 100)
    assert set(await users.ask()) == {"blue"}
    turnout.switch("green")
    assert set(await users.ask()) == {"green"}


@pytest.mark.parametrize("on_zero", ["move", "finish"])
async def test_a_rollback_moves_everybody_at_once(stage: Stage, on_zero: str) -> None:
    sticky = {**COOKIE, "on_zero": on_zero}
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), sticky=sticky)
    turnout.switch("green")
    users = Users(turnout, 100)
    assert set(await users.ask()) == {"green"}
    turnout.change("POST", "/v1/services/shop/rollback", {"reason": "test"})
    assert set(await users.ask()) == {"blue"}
    turnout.weights(blue=50, green=50)
    stayed = {"blue"} if on_zero == "finish" else {"blue", "green"}  # finish: the bound stay
    assert set(await users.ask()) == stayed


async def test_a_forged_or_foreign_cookie_is_ignored_and_replaced(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), sticky=COOKIE)
    other = stage.turnout(stage.origin("blue"), stage.origin("green"), sticky=COOKIE)
    users, strangers = Users(turnout, 1), Users(other, 1)
    await users.ask()
    await strangers.ask()
    own, foreign = str(users.cookies[0]), str(strangers.cookies[0])
    middle = len(own) // 2
    changed = own[:middle] + ("A" if own[middle] != "A" else "B") + own[middle + 1 :]
    bad = [foreign, changed, own[:-1], own + "x", "turnout=", "turnout=\xff\xfe", f"{own[:9]}"]
    answers = await requests(turnout.port, [{"Cookie": cookie} for cookie in bad])
    for cookie, (pool, set_cookie) in zip(bad, answers, strict=True):
        assert pool == "blue"
        assert set_cookie is not None, f"{cookie} was believed"
    assert await requests(turnout.port, [{"Cookie": own}]) == [("blue", None)]


async def test_the_cookie_has_its_attributes_and_never_reaches_the_endpoint(stage: Stage) -> None:
    turnout = stage.turnout(stage.origin("blue"), stage.origin("green"), sticky=COOKIE)
    async with await Wire.to(turnout.port) as wire:
        first = await wire.request("/who")
        (text,) = first.all("set-cookie")
        morsel = SimpleCookie(text)["turnout"]
        assert (morsel["path"], morsel["samesite"]) == ("/", "Lax")
        assert morsel["httponly"]
        assert not morsel["secure"]
        cookie = f"turnout={morsel.value}"
        for sent, passed in (
            (f"a=1; {cookie}; z=2", "a=1; z=2"),
            (f"{cookie}; z=2", "z=2"),
            (f"a=1; {cookie}", "a=1"),
            (cookie, None),
        ):
            got = (await wire.request("/headers", headers={"Cookie": sent})).json()["headers"]
            cookies = [value for name, value in got if name.lower() == "cookie"]
            assert cookies == ([passed] if passed else [])


async def test_a_cookie_is_good_at_every_worker_and_after_a_restart(stage: Stage) -> None:
    turnout = stage.turnout(
        stage.origin("blue"),
        stage.origin("green"),
        sticky=COOKIE,
        weights={"blue": 50, "green": 50},
    )
    users = Users(turnout, 200)
    first = await users.ask()
    assert await users.ask() == first
    turnout.stop()
    turnout.start()
    assert await users.ask() == first
    assert users.set_cookies == 0


async def test_a_header_binds_whoever_sends_the_same_value(stage: Stage) -> None:
    turnout = stage.turnout(
        stage.origin("blue"),
        stage.origin("green"),
        sticky={"by": "header:X-User"},
        weights={"blue": 70, "green": 30},
    )
    headers = [{"X-User": f"user-{number}"} for number in range(1000)]
    first = [pool for pool, _ in await requests(turnout.port, headers, clients=16)]
    assert [pool for pool, _ in await requests(turnout.port, headers, clients=7)] == first
    assert 100 * first.count("green") / 1000 == pytest.approx(30, abs=_tolerance(30, 1000))
    turnout.weights(blue=60, green=40)
    now = [pool for pool, _ in await requests(turnout.port, headers, clients=16)]
    assert {pair for pair in zip(first, now, strict=True) if pair[0] != pair[1]} == {
        ("blue", "green")
    }


async def test_an_address_binds_all_connections_from_it(stage: Stage) -> None:
    turnout = stage.turnout(
        stage.origin("blue"),
        stage.origin("green"),
        sticky={"by": "client_ip"},
        weights={"blue": 50, "green": 50},
    )
    seen: dict[str, set[str]] = {}
    for _ in range(3):
        for number in range(1, 61):
            source = f"127.0.9.{number}"
            async with await Wire.to(turnout.port, source=source) as wire:
                seen.setdefault(source, set()).add((await wire.request("/who")).pool)
    assert all(len(found) == 1 for found in seen.values())
    assert set.union(*seen.values()) == {"blue", "green"}


@pytest.mark.parametrize("policy", ["fallback", "fail"])
async def test_a_bound_client_whose_pool_is_gone_falls_back_or_fails(
    stage: Stage, policy: str
) -> None:
    green = stage.origin("green")
    turnout = stage.turnout(
        stage.origin("blue"),
        green,
        sticky={**COOKIE, "on_unavailable": policy},
        weights={"blue": 50, "green": 50},
    )
    users = Users(turnout, 40)
    bound = [
        str(cookie)
        for pool, cookie in zip(await users.ask(), users.cookies, strict=True)
        if pool == "green"
    ]
    green.end()
    async with await Wire.to(turnout.port) as wire:
        for cookie in bound:
            answer = await wire.request("/who", headers={"Cookie": cookie})
            if policy == "fallback":
                assert (answer.status, answer.pool) == (200, "blue")
                assert answer.header("set-cookie") is None, "the cookie stays as it is"
            else:
                assert answer.status in {502, 503}
