"""The secret behind session tickets, and that it changes by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trustme

from proxy.control.tickets import LIFE_S, TicketSecret

if TYPE_CHECKING:
    from tests.control.conftest import World


def test_a_secret_is_for_a_day() -> None:
    secret = TicketSecret()
    first = secret.current(1000.0)
    assert len(bytes.fromhex(first)) == 32
    assert secret.current(1000.0 + LIFE_S - 1) == first
    assert secret.left_s(1000.0 + LIFE_S - 1) == 1
    assert secret.current(1000.0 + LIFE_S) != first
    assert secret.left_s(1000.0 + LIFE_S) == LIFE_S
    assert TicketSecret().current(1000.0) != first


async def test_the_workers_get_another_one_every_day(world: World) -> None:
    pair = trustme.CA().issue_cert("shop.example.com")
    pair.cert_chain_pems[0].write_to_path(world.directory / "shop.crt")
    pair.private_key_pem.write_to_path(world.directory / "shop.key")
    bind = "  - bind: 127.0.0.1:8080\n"
    world.edit((bind, bind + "    tls: {certificates: [{cert: shop.crt, key: shop.key}]}\n"))
    controller = await world.start()

    def secret() -> str:
        (listener,) = controller.snapshot.listeners
        assert listener.tls is not None
        assert listener.tls.ticket_secret not in repr(listener)
        return listener.tls.ticket_secret

    first, applied = secret(), len(world.fleet.applied)
    world.clock.advance(LIFE_S - 1)
    await controller._upkeep.tick()
    assert secret() == first
    assert len(world.fleet.applied) == applied
    world.clock.advance(1)
    await controller._upkeep.tick()
    assert secret() != first
    assert world.fleet.applied[-1].listeners == controller.snapshot.listeners


async def test_nobody_is_bothered_where_no_listener_has_tls(world: World) -> None:
    controller = await world.start()
    assert controller._ledger.until_new_tickets_s is None
