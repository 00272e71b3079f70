"""The secret behind session tickets, and that it changes by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


async def test_nobody_is_bothered_where_no_listener_has_tls(world: World) -> None:
    controller = await world.start()
    assert controller._ledger.until_new_tickets_s is None
