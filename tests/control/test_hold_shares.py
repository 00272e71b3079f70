"""The shares of a hold: dealt before anybody holds, following those who wait, never too many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.model import Service
from proxy.stats import LOT_HELD, S_HELD, share_index

if TYPE_CHECKING:
    from tests.control.conftest import Until, World


def service(world: World) -> Service:
    (found,) = world.fleet.snapshot.services
    return found


def shares(world: World) -> list[int]:
    slot = service(world).slot
    words = world.fleet.board.words
    return [int(words[share_index(slot, LOT_HELD, 2, worker)]) for worker in (0, 1)]


async def test_every_worker_has_its_share_before_the_hold_is_applied(world: World) -> None:
    controller = await world.start()
    seen: list[list[int]] = []

    async def look() -> None:
        seen.append(shares(world))

    world.fleet.before_apply = look
    await controller.hold("shop", timeout_s=30.0, most=11, who="ann")
    assert [sorted(each) for each in seen] == [[5, 6]]
    world.fleet.before_apply = None
    await controller.hold("shop", timeout_s=30.0, most=100, who="ann")
    assert shares(world) == [50, 50]


async def test_a_hold_that_was_stored_has_its_shares_at_the_start(world: World) -> None:
    controller = await world.start()
    await controller.hold("shop", timeout_s=30.0, most=10, who="ann")
    await world.restart()
    assert shares(world) == [5, 5]


async def test_the_worker_with_more_clients_gets_more_and_never_more_than_all(
    world: World, until: Until
) -> None:
    controller = await world.start()
    await controller.hold("shop", timeout_s=30.0, most=100, who="ann")
    world.fleet.blocks[0].words[service(world).slot + S_HELD] = 50
    await until(lambda: shares(world)[0] > 60)
    assert sum(shares(world)) <= 100
    world.fleet.blocks[1].words[service(world).slot + S_HELD] = 10
    await until(lambda: shares(world) == [70, 30])
