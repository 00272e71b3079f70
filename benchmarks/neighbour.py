"""A client that behaves, beside those that do not: how long its answers take.

Usage: neighbour.py PORT; says that it has begun, asks until its stdin closes, then prints counts
and milliseconds as JSON.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

REQUEST = b"GET /who HTTP/1.1\r\nHost: shop\r\n\r\n"
EVERY_S = 0.005


def main(port: int) -> None:
    took: list[float] = []
    failures = 0
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    print("begun", flush=True)
    while not took or not select.select([sys.stdin], [], [], EVERY_S)[0]:
        began = time.perf_counter()
        connection.sendall(REQUEST)
        if connection.recv(65536).startswith(b"HTTP/1.1 200 "):
            took.append((time.perf_counter() - began) * 1e3)
        else:
            failures += 1
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    took.sort()
    middle, late = took[len(took) // 2], took[len(took) * 99 // 100]
    answer = {"answers": len(took), "failures": failures}
    times = {"median_ms": middle, "late_ms": late, "worst_ms": took[-1]}
    sys.stdout.write(json.dumps({**answer, **times}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
