"""Which area of the counters belongs to whom: the keys of the slot table, in one place."""

from __future__ import annotations

from proxy.stats import (
    ENDPOINT_LOTS,
    ENDPOINT_WORDS,
    FIRST_LOT,
    LISTENER_WORDS,
    POOL_LOTS,
    POOL_WORDS,
    SERVICE_LOTS,
    SERVICE_WORDS,
    SlotTable,
)


class SlotBook:
    """Areas by name; one that nobody has is dealt when it is first asked for."""

    def __init__(self, table: SlotTable) -> None:
        self.table = table

    def pool(self, service: str, pool: str) -> int:
        return self.table.slot(("pool", service, pool), self._words(POOL_WORDS, POOL_LOTS))

    def endpoint(self, service: str, pool: str, address: str) -> int:
        words = self._words(ENDPOINT_WORDS, ENDPOINT_LOTS)
        return self.table.slot(("endpoint", service, pool, address), words)

    def service(self, service: str) -> int:
        return self.table.slot(("service", service), self._words(SERVICE_WORDS, SERVICE_LOTS))

    def listener(self, bind: str) -> int:
        return self.table.slot(("listener", bind), LISTENER_WORDS)

    def _words(self, counters: int, lots: int) -> int:
        """Room for a worker's counters, and on the board for what is dealt to every worker."""
        return max(counters, FIRST_LOT + lots * self.table.workers)
