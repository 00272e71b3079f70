"""Hold and release as an operator's word: what is remembered, refused, recorded and forgotten."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proxy.control import codec
from proxy.control.decision import Author
from proxy.control.hold import GRACE_S, expire, finish, hold, next_look, release
from proxy.control.reconcile import remove
from proxy.control.refusal import Invalid, NotFound, Refused, Stale
from proxy.control.state import ServiceState
from proxy.model import Hold, Service
from proxy.stats import S_HELD, S_HELD_BYTES

if TYPE_CHECKING:
    from tests.control.conftest import Until, World

BOB = Author(who="bob", reason="the schema is migrated", at=1060.0)


def test_a_hold_remembers_who_why_and_since_when(shop: ServiceState, ann: Author) -> None:
    change = hold(shop, ann, timeout_s=10.0, most=5, until=1300.0)
    holding = change.state.hold
    assert holding is not None
    assert (holding.who, holding.reason, holding.since) == ("ann", "v42 looks good", 1000.0)
    assert (holding.timeout_s, holding.most, holding.is_held) == (10.0, 5, True)
    (record,) = change.decisions
    assert (record.what, record.before, record.after) == (
        "hold",
        None,
        {"timeout": "10s", "most": 5},
    )
    assert record.numbers == {"ttl_s": 300.0}
    assert record.why == "by hand: v42 looks good"


def test_a_second_hold_changes_the_bounds_and_keeps_the_beginning(
    shop: ServiceState, ann: Author
) -> None:
    state = hold(shop, ann, timeout_s=10.0).state
    change = hold(state, BOB, timeout_s=60.0)
    assert change.state.hold is not None
    assert (change.state.hold.since, change.state.hold.who) == (1000.0, "bob")
    assert change.decisions[0].before == {"timeout": "10s", "most": 1000}


def test_a_hold_during_a_release_begins_anew(shop: ServiceState, ann: Author) -> None:
    state = release(hold(shop, ann).state, ann, held=3).state
    again = hold(state, BOB).state
    assert again.hold is not None
    assert (again.hold.since, again.hold.is_held) == (1060.0, True)


def test_a_release_says_how_many_waited_and_how_long(shop: ServiceState, ann: Author) -> None:
    change = release(hold(shop, ann).state, BOB, held=57, over_s=2.0)
    (record,) = change.decisions
    assert record.what == "release"
    assert record.why == "by hand: the schema is migrated"
    assert record.numbers == {"held": 57, "over_s": 2.0, "held_for_s": 60.0}
    assert change.state.hold is not None
    assert (change.state.hold.released, change.state.hold.over_s) == (1060.0, 2.0)
    hurried = release(change.state, replace(BOB, at=1061.0), held=20, over_s=0.0).state
    assert hurried.hold is not None
    assert (hurried.hold.released, hurried.hold.over_s) == (1061.0, 0.0)


def test_what_is_not_held_cannot_be_released(shop: ServiceState, ann: Author) -> None:
    with pytest.raises(Refused, match="shop is not on hold"):
        release(shop, ann, held=0)


def test_a_hold_with_a_time_is_released_when_it_is_over(shop: ServiceState, ann: Author) -> None:
    assert expire(shop, 9e9, held=0) is None
    assert expire(hold(shop, ann).state, 9e9, held=0) is None
    state = hold(shop, ann, until=1300.0).state
    assert next_look(state)
    assert expire(state, 1299.9, held=4) is None
    change = expire(state, 1300.0, held=4)
    assert change is not None
    assert change.state.hold is not None
    assert not change.state.hold.is_held
    assert change.decisions[0].who == "ttl"
    assert expire(change.state, 1301.0, held=4) is None


def test_a_release_is_forgotten_when_nobody_waits_or_the_time_is_long_over(
    shop: ServiceState, ann: Author
) -> None:
    held = hold(shop, ann).state
    assert not next_look(held)
    assert finish(held, 9e9, held=0) is None
    state = release(held, ann, held=9, over_s=5.0).state
    assert next_look(state)
    assert finish(state, 1001.0, held=3) is None
    forgotten = finish(state, 1001.0, held=0)
    assert forgotten is not None
    assert forgotten.hold is None
    assert finish(state, 1005.0 + GRACE_S, held=3) == forgotten
    assert finish(forgotten, 9e9, held=0) is None


def test_a_removed_service_holds_nobody(shop: ServiceState, ann: Author) -> None:
    assert remove(hold(shop, ann).state).state.hold is None


def test_a_hold_is_stored_and_a_state_from_before_there_were_holds_is_read(
    shop: ServiceState, ann: Author
) -> None:
    for state in (
        hold(shop, ann).state,
        release(hold(shop, ann, until=2000.0).state, BOB, held=1).state,
    ):
        assert codec.from_plain(json.loads(json.dumps(codec.to_plain(state)))) == state
    plain = codec.to_plain(shop)
    del plain["hold"]
    assert codec.from_plain(plain) == shop


# ---- through the one door ----


def applied(world: World) -> Hold | None:
    return service(world).hold


def service(world: World) -> Service:
    (found,) = world.fleet.snapshot.services
    return found


def set_held(world: World, *counts: int) -> None:
    for block, count in zip(world.fleet.blocks, counts, strict=True):
        block.words[service(world).slot + S_HELD] = count
        block.words[service(world).slot + S_HELD_BYTES] = 100 * count


async def test_a_hold_is_applied_shown_recorded_and_survives_reload_and_restart(
    world: World,
) -> None:
    controller = await world.start()
    assert controller.service("shop")["hold"] is None
    view = await controller.hold(
        "shop", timeout_s=20.0, most=50, who="ann", reason="migration", ttl_s=600.0
    )
    shown = view["hold"]
    assert (shown["by"], shown["reason"], shown["timeout_s"]) == ("ann", "migration", 20.0)
    assert (shown["most"], shown["held"], shown["releasing"]) == (50, 0, False)
    assert shown["until"] is not None
    assert world.last("hold")["who"] == "ann"
    sent = applied(world)
    assert sent is not None
    assert (sent.timeout_s, sent.most, sent.released_s) == (20.0, 50, None)
    set_held(world, 3, 4)
    shown = controller.service("shop")["hold"]
    assert (shown["held"], shown["held_bytes"]) == (7, 700)
    world.edit(("drain: {requests: 30s", "drain: {requests: 31s"))
    assert (await controller.reload(who="ann"))["applied"]
    assert applied(world) is not None
    controller = await world.restart()
    assert controller.service("shop")["hold"]["by"] == "ann"
    assert applied(world) is not None


async def test_a_release_is_applied_and_forgotten_when_the_last_has_gone(
    world: World, until: Until
) -> None:
    controller = await world.start()
    await controller.hold("shop", timeout_s=30.0, most=10, who="ann")
    set_held(world, 3, 4)
    view = await controller.release("shop", over_s=4.0, who="bob", reason="done")
    assert view["hold"]["releasing"]
    assert view["hold"]["release_left_s"] == 4.0
    assert world.last("release")["numbers"]["held"] == 7
    sent = applied(world)
    assert sent is not None
    assert sent.released_s is not None
    assert sent.over_s == 4.0
    etag = controller.etag("shop")
    set_held(world, 0, 0)
    await until(lambda: controller.service("shop")["hold"] is None)
    assert applied(world) is None
    assert controller.etag("shop") == etag, "that the last has gone is nobody's change"
    with pytest.raises(Refused):
        await controller.release("shop", over_s=4.0, who="bob")


async def test_a_time_that_runs_out_releases(world: World, until: Until) -> None:
    controller = await world.start()
    await controller.hold("shop", timeout_s=30.0, most=10, ttl_s=60.0, who="ann")
    set_held(world, 1, 0)
    world.clock.advance(61.0)
    await until(lambda: "release" in world.whats("shop"))
    assert world.last("release")["who"] == "ttl"
    set_held(world, 0, 0)
    await until(lambda: controller.service("shop")["hold"] is None)


async def test_a_time_that_ran_out_while_nothing_ran_releases_at_the_start(
    world: World, until: Until
) -> None:
    controller = await world.start()
    await controller.hold("shop", timeout_s=30.0, most=10, ttl_s=60.0, who="ann")
    await world.stop()
    world.clock.advance(61.0)
    controller = await world.restart()
    assert world.last("release")["who"] == "ttl"
    await until(lambda: controller.service("shop")["hold"] is None)


async def test_what_makes_no_sense_is_refused_and_moves_nothing(world: World) -> None:
    controller = await world.start()
    with pytest.raises(NotFound):
        await controller.hold("till", timeout_s=30.0, most=10, who="ann")
    for timeout_s, most in ((0.0, 10), (-1.0, 10), (1e9, 10), (30.0, 0), (30.0, 10**9)):
        with pytest.raises(Invalid):
            await controller.hold("shop", timeout_s=timeout_s, most=most, who="ann")
    with pytest.raises(Stale):
        await controller.hold("shop", timeout_s=30.0, most=10, who="ann", if_match='"77"')
    await controller.hold("shop", timeout_s=30.0, most=10, who="ann")
    for over_s in (-1.0, float("nan"), 1e9):
        with pytest.raises(Invalid):
            await controller.release("shop", over_s=over_s, who="ann")
    assert world.whats("shop").count("hold") == 1
    assert applied(world) is not None
