"""How many requests each worker may hold: one limit of a service, dealt to all workers."""

from __future__ import annotations

from proxy.control.setup import Setup
from proxy.control.slots import SlotBook
from proxy.policy.shares import Caps
from proxy.stats import LOT_HELD, S_HELD, Board, Totals


class HoldShares:
    """Deals before a hold is applied, and again at every beat while it lasts."""

    def __init__(self, board: Board, totals: Totals, book: SlotBook) -> None:
        self._board = board
        self._totals = totals
        self._book = book
        self._most: dict[str, int] = {}
        self._caps: dict[str, Caps] = {}

    def follow(self, setup: Setup) -> None:
        """Take over which services are held now, and deal for them at once."""
        self._most = {
            name: state.hold.most
            for name, state in setup.states.items()
            if state.hold is not None and state.hold.is_held
        }
        self._caps = {name: self._caps.get(name) or self._fresh() for name in self._most}
        self._deal()

    def beat(self, _now: float) -> None:
        self._deal()

    def _fresh(self) -> Caps:
        return Caps(self._board.workers)

    def _deal(self) -> None:
        for name, most in self._most.items():
            slot = self._book.service(name)
            used = self._totals.of_slots(slot + S_HELD, self._board.workers)
            shares = self._caps[name].deal(most, used, [0] * len(used))
            self._board.deal(slot, LOT_HELD, shares)
