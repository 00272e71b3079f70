"""CPU per request of Turnout beside a bare relay (the ceiling), nginx, HAProxy and Caddy.

User and system time of all of a proxy's processes, divided by the requests it
answered: steadier than requests per second, which swing with everything else the
machine does. The proxies take turns in one run; compare ratios, not runs. The
proxy has one core; client and origin share the other.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import contenders
from benchmarks.contenders import Bench, Contender
from benchmarks.processes import cores
from tests.ports import free_port

CONNECTIONS = 64
COOKIES = 50
WARM_UP_S = 0.5
THREADS = 8
"""Of wrk: each has a cookie of its own, so that a connection is a client, as in life."""
LUA = """
local started = 0
setup = function(thread) thread:set("id", started); started = started + 1 end
init = function()
  requests = {}
  for line in io.lines("%s") do
    requests[#requests + 1] =
      "GET / HTTP/1.1\\r\\nHost: localhost\\r\\nCookie: " .. line .. "\\r\\n\\r\\n"
  end
  at = id %% #requests
end
request = function() at = (at + %d) %% #requests; return requests[at + 1] end
"""


@dataclass(slots=True)
class Figures:
    contender: Contender
    is_mixed: bool = False
    """Every request of a connection is another client's, as behind another proxy."""
    cpu_us: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    failures: int = 0


def main() -> None:
    options = _options()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        proxy_cores, other_cores = cores()
        bench = Bench(directory, proxy_cores, other_cores, free_port(), free_port())
        stack.callback(contenders.start_origin(bench).end)
        figures = [Figures(contender) for contender in _start(bench, options, stack)]
        figures += [Figures(f.contender, True) for f in figures if f.contender.name == "Turnout"]
        cookies = _cookies(figures, bench)
        for number in range(options.rounds):
            # Every other round backwards, so that nobody always follows the same neighbour.
            for one in figures if number % 2 == 0 else reversed(figures):
                _measure(one, bench, cookies, options.seconds)
        _print_table(figures, proxy_cores == other_cores)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=3.0, help="load on each, each round (3)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, medians are shown (3)")
    parser.add_argument(
        "--without", default="", help="names to leave out, with commas: turnout,haproxy"
    )
    return parser.parse_args()


def _start(bench: Bench, options: argparse.Namespace, stack: ExitStack) -> list[Contender]:
    makers: dict[str, Callable[[], Contender | None]] = {
        "relay": lambda: contenders.start_relay(bench),
        "turnout": lambda: contenders.start_turnout(bench, access_log=False),
        "turnout-log": lambda: contenders.start_turnout(bench, access_log=True),
        "nginx": lambda: contenders.start_nginx(bench),
        "haproxy": lambda: contenders.start_haproxy(bench),
        "caddy": lambda: contenders.start_caddy(bench),
    }
    started = []
    for name, make in makers.items():
        if name in options.without.split(","):
            continue
        contender = make()
        if contender is None:
            print(f"{name} is not installed: left out")
            continue
        stack.callback(contender.process.end)
        started.append(contender)
    return started


def _cookies(figures: list[Figures], bench: Bench) -> Path:
    """Write the cookies every proxy gets to see, so that all of them read the same requests."""
    turnout = [one.contender for one in figures if one.contender.name.startswith("Turnout")]
    lines = contenders.cookies(turnout[0], COOKIES) if turnout else [f"turnout={'x' * 64}"]
    path = bench.directory / "cookies"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for name, step in (("steady.lua", 0), ("mixed.lua", 1)):
        (bench.directory / name).write_text(LUA % (path, step), encoding="utf-8")
    return path


def _measure(one: Figures, bench: Bench, cookies: Path, seconds: float) -> None:
    script = bench.directory / ("mixed.lua" if one.is_mixed else "steady.lua")
    _load(one.contender.port, bench, cookies, script, WARM_UP_S)
    before = one.contender.process.cpu_s()
    requests, failures = _load(one.contender.port, bench, cookies, script, seconds)
    spent = one.contender.process.cpu_s() - before
    one.cpu_us.append(spent / max(requests, 1) * 1e6)
    one.rate.append(requests / seconds)
    one.failures += failures


def _load(port: int, bench: Bench, cookies: Path, script: Path, seconds: float) -> tuple[int, int]:
    """Requests and failures of one load of `seconds`, by wrk where installed."""
    core = ",".join(str(number) for number in sorted(bench.other_cores))
    pinned = ["taskset", "-c", core] if shutil.which("taskset") else []
    if shutil.which("wrk"):
        argv = ["wrk", f"-t{THREADS}", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
        argv += ["-s", str(script)]
        out = _output([*pinned, *argv, f"http://127.0.0.1:{port}/"], seconds)
        requests = re.search(r"(\d+) requests in", out)
        if requests is None:
            raise RuntimeError(f"wrk said nothing of requests:\n{out}")
        refused = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        errors = re.search(r"Socket errors: (.*)", out)
        lost = sum(int(n) for n in re.findall(r"\d+", errors[1])) if errors else 0
        return int(requests[1]), lost + (int(refused[1]) if refused else 0)
    client = str(contenders.HERE / "client.py")
    argv = [sys.executable, client, str(port), str(CONNECTIONS), str(seconds), str(cookies)]
    counts = json.loads(_output([*pinned, *argv], seconds))
    return counts["requests"], counts["failures"]


def _output(argv: list[str], seconds: float) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 30, check=True)
    return done.stdout


def _print_table(figures: list[Figures], one_core: bool) -> None:  # noqa: FBT001
    medians = {_name(one): statistics.median(one.cpu_us) for one in figures}
    nginx, relay = medians.get("nginx"), medians.get("bare relay")
    print(f"\n{'':28}{'CPU us/request':>16}{'lowest-highest':>18}{'requests/s':>12}", end="")
    print(f"{'x nginx':>9}{'x relay':>9}{'failures':>10}")
    for one in sorted(figures, key=lambda one: medians[_name(one)]):
        name = _name(one)
        spread = f"{min(one.cpu_us):.1f}-{max(one.cpu_us):.1f}"
        print(f"{name:28}{medians[name]:>16.1f}{spread:>18}", end="")
        print(f"{statistics.median(one.rate):>12.0f}", end="")
        print(f"{_ratio(medians[name], nginx):>9}{_ratio(medians[name], relay):>9}", end="")
        print(f"{one.failures:>10}")
    if one_core:
        print("only one core here: client, origin and proxy shared it")


def _name(one: Figures) -> str:
    return one.contender.name + (", mixed connections" if one.is_mixed else "")


def _ratio(value: float, base: float | None) -> str:
    return "-" if not base else f"{value / base:.2f}"


if __name__ == "__main__":
    main()
