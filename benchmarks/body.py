"""CPU seconds for one large body, down from the origin, of Turnout beside nginx, HAProxy and Caddy."""

from __future__ import annotations

import argparse
import socket
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import contenders
from benchmarks.contenders import Bench, Contender
from benchmarks.processes import cores
from tests.ports import free_port

MIB = 1024 * 1024
REQUEST = b"GET /files/body HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mib", type=int, default=1024, help="size of the body (1024)")
    parser.add_argument("--rounds", type=int, default=3, help="medians are shown (3)")
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        bench = Bench(directory, *cores(), free_port(), free_port())
        origin = contenders.start_origin(bench)
        stack.callback(origin.end)
        if not contenders.serves_files():
            print("the origin of this benchmark is nginx, which is not installed: nothing measured")
            return
        _make_body(directory, options.mib)
        started = [
            contenders.start_turnout(bench, access_log=False),
            contenders.start_nginx(bench),
            contenders.start_haproxy(bench),
            contenders.start_caddy(bench),
        ]
        here = [contender for contender in started if contender is not None]
        for contender in here:
            stack.callback(contender.process.end)
        _run(here, options.mib, options.rounds)


def _make_body(directory: Path, mib: int) -> None:
    """Write a sparse file: zeros cost the proxy what any other bytes do, and the disk nothing."""
    files = directory / "files"
    files.mkdir()
    with (files / "body").open("wb") as body:
        body.truncate(mib * MIB)
    directory.chmod(0o755)


def _run(here: list[Contender], mib: int, rounds: int) -> None:
    spent: dict[str, list[float]] = {contender.name: [] for contender in here}
    for _ in range(rounds):
        for contender in here:
            before = contender.process.cpu_s()
            _fetch(contender.port, mib * MIB)
            time.sleep(0.1)
            spent[contender.name].append(contender.process.cpu_s() - before)
    medians = {name: statistics.median(values) for name, values in spent.items()}
    print(f"{'':12}{'CPU s for ' + str(mib) + ' MiB':>22}{'x nginx':>10}")
    for name, value in sorted(medians.items(), key=lambda pair: pair[1]):
        ratio = f"{value / medians['nginx']:.2f}" if "nginx" in medians else "-"
        print(f"{name:12}{value:>22.2f}{ratio:>10}")


def _fetch(port: int, size: int) -> None:
    """Read the answer whole; its size is checked, its bytes are thrown away."""
    buffer = bytearray(MIB)
    got = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(REQUEST)
        while count := connection.recv_into(buffer):
            got += count
    if got < size:
        raise RuntimeError(f"the body ended after {got} of {size} bytes")


if __name__ == "__main__":
    main()
