"""Which area of the counters belongs to whom: the keys of the slot table, in one place."""

from __future__ import annotations

from proxy.stats import ENDPOINT_WORDS, LISTENER_WORDS, POOL_WORDS, SlotTable


class SlotBook:
    """Areas by name; one that nobody has is dealt when it is first asked for."""

    def __init__(self, table: SlotTable) -> None:
        self.table = table

    def pool(self, service: str, pool: str) -> int:
        return self.table.slot(("pool", service, pool), POOL_WORDS)

    def endpoint(self, service: str, pool: str, address: str) -> int:
        return self.table.slot(("endpoint", service, pool, address), ENDPOINT_WORDS)

    def listener(self, bind: str) -> int:
        return self.table.slot(("listener", bind), LISTENER_WORDS)
