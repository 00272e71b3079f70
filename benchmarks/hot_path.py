"""The data path's own Python, without a system call: microseconds per exchange.

Real connections' protocol objects on transports that write nowhere. What the bare
relay costs (system calls, the loop) is not in this figure; what a change to the
hot path costs or saves is, to about 2 %.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import statistics
import time
from typing import Any

from proxy.dataplane.downstream import Downstream
from proxy.dataplane.listener import ListenerLive
from proxy.dataplane.live import EndpointLive
from proxy.dataplane.plane import Plane
from proxy.dataplane.upstream import Upstream
from proxy.model import AccessLog, Endpoint, Listener, Pool, Route, Service, Snapshot, Sticky
from proxy.stats import BLOCK_WORDS, CounterBlock

RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 13:00:00 GMT\r\n"
    b"Content-Type: application/octet-stream\r\nContent-Length: 109\r\n"
    b"Connection: keep-alive\r\n\r\n" + b"x" * 109
)


class _Nowhere(asyncio.Transport):
    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self._protocol = protocol
        self.last = b""

    def write(self, data: Any) -> None:
        self.last = data

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 8080)}.get(
            name, default
        )

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...


def _plane() -> tuple[Plane, Snapshot]:
    fd = os.memfd_create("bench")
    os.ftruncate(fd, BLOCK_WORDS * 8)
    plane = Plane(
        asyncio.get_running_loop(),
        CounterBlock(fd).words,
        memoryview(bytes(8 * 4096)).cast("q"),
        worker=0,
        workers=1,
        report=lambda *_: None,
    )
    pools = tuple(
        Pool(
            name=name,
            release="v1",
            weight=weight,
            slot=slot,
            endpoints=(
                Endpoint(address=f"127.0.0.1:{9000 + slot}", slot=slot + 400),
                Endpoint(address=f"127.0.0.1:{9001 + slot}", slot=slot + 408),
            ),
        )
        for name, weight, slot in (("blue", 8000, 100), ("green", 2000, 600))
    )
    sticky = Sticky(by="cookie", name="turnout", keys=("00" * 32,))
    service = Service(name="shop", routes=(Route(),), pools=pools, active="blue", sticky=sticky)
    quiet = AccessLog(path="off")
    return plane, Snapshot(revision=1, services=(service,), access_log=quiet)


def _connect(endpoint: EndpointLive) -> None:
    connection = Upstream(endpoint)
    connection.connection_made(_Nowhere(connection))
    connection.idle_since = time.monotonic()
    endpoint.idle.append(connection)


async def _measure(exchanges: int, rounds: int, *, profile: bool) -> None:
    plane, snapshot = _plane()
    await plane.apply(snapshot, {})
    listener = ListenerLive(plane, Listener(bind="127.0.0.1:8080", slot=20), plane.words)
    client = Downstream(plane, listener)
    client.connection_made(_Nowhere(client))
    endpoints = [e for s in plane.table.services for p in s.pools for e in p.endpoints.values()]
    for endpoint in endpoints:
        _connect(endpoint)
    request = b"GET /index.html?a=1 HTTP/1.1\r\nHost: shop.example.com\r\n%b\r\n"
    first = request % b""
    client.data_received(first)
    current = client.current
    assert current is not None
    assert current.upstream is not None
    current.upstream.data_received(RESPONSE)
    transport: Any = client.transport
    cookie = transport.last.split(b"Set-Cookie: ")[1].split(b";")[0]
    again = request % (b"Cookie: " + cookie + b"\r\n")

    def run() -> float:
        began = time.process_time()
        for _ in range(exchanges):
            client.data_received(again)
            client.current.upstream.data_received(RESPONSE)  # type: ignore[union-attr]
        return (time.process_time() - began) / exchanges * 1e6

    run()
    if profile:
        profiler = cProfile.Profile()
        profiler.runcall(run)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(90)
        return
    figures = [run() for _ in range(rounds)]
    print(f"hot path: {statistics.median(figures):.2f} us an exchange (best {min(figures):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exchanges", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    asyncio.run(_measure(options.exchanges, options.rounds, profile=options.profile))


if __name__ == "__main__":
    main()
