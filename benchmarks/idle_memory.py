"""Memory per idle keep-alive connection of Turnout beside nginx, HAProxy and Caddy.

Opens connections, sends one request on each so that every buffer a connection
ever needs has been used, and divides what the proxy grew by between the first
hundred (which warm it up) and all of them.
"""

from __future__ import annotations

import argparse
import resource
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import contenders
from benchmarks.contenders import Bench, Contender
from benchmarks.processes import cores
from tests.ports import free_port

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
WARM_UP = 100
SETTLE_S = 3.0
"""Long enough for what a connection forgets at rest and for memory just given back."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--connections", type=int, default=3000, help="idle connections (3000)")
    connections: int = parser.parse_args().connections
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"{'':12}{'KiB per idle connection':>26}   ({connections} connections)")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        bench = Bench(directory, *cores(), free_port(), free_port())
        stack.callback(contenders.start_origin(bench).end)
        _one(contenders.start_turnout(bench, access_log=False), "turnout", connections)
        _one(contenders.start_nginx(bench), "nginx", connections)
        _one(contenders.start_haproxy(bench), "haproxy", connections)
        _one(contenders.start_caddy(bench), "caddy", connections)


def _one(contender: Contender | None, name: str, connections: int) -> None:
    if contender is None:
        print(f"{name} is not installed: left out")
        return
    try:
        with ExitStack() as stack:
            for _ in range(WARM_UP):
                stack.enter_context(_idle(contender.port))
            time.sleep(SETTLE_S)
            before = contender.process.memory_kib()
            for _ in range(connections):
                stack.enter_context(_idle(contender.port))
            time.sleep(SETTLE_S)
            each = (contender.process.memory_kib() - before) / connections
            print(f"{contender.name:12}{each:>26.2f}")
    finally:
        contender.process.end()


def _idle(port: int) -> socket.socket:
    """Open a connection that has had one answer, read whole."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(REQUEST)
    got = b""
    while not got.endswith(contenders.BODY.encode()):
        more = connection.recv(65536)
        if not more:
            raise RuntimeError(f"closed after {got!r}")
        got += more
    return connection


if __name__ == "__main__":
    main()
