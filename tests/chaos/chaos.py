"""One run: endpoints, proxies before them, load on the proxies, and a plan that goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.chaos import plan as plans
from tests.chaos.endpoint import Endpoint, Endpoints
from tests.chaos.load import Options
from tests.chaos.plan import Event, Plan
from tests.chaos.proxies import Proxy
from tests.chaos.report import Report, Seen

LOAD = Path(__file__).parent / "load.py"
POOLS = {"blue": 4, "green": 2}
ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class Setting:
    seed: int
    seconds: float = 60.0
    rate: float = 80.0
    """Requests a second to each proxy."""
    clients: int = 12
    report_every_s: float = 0.0

    def plan(self) -> Plan:
        return plans.make(self.seed, self.seconds, tuple(POOLS.values()))


def run(setting: Setting, endpoints: Endpoints, proxies: Sequence[Proxy]) -> Report:
    """Torment the endpoints (they must have been started) by the plan, under load on all proxies."""
    plan = setting.plan()
    targets = {proxy.name: proxy.port for proxy in proxies}
    options = Options(
        targets,
        setting.rate,
        setting.clients,
        setting.seed,
        report_every_s=setting.report_every_s,
    )
    with _loaded(options) as result:
        began_s = time.monotonic()
        for at_s, act in _acts(plan, endpoints.all):
            time.sleep(max(0.0, began_s + at_s - time.monotonic()))
            act()
        time.sleep(max(0.0, began_s + plan.ends_s - time.monotonic()))
        raw = result()
    orders = endpoints.orders()
    return Report(plan, tuple(Seen.of(name, raw[name], orders, plan, began_s) for name in targets))


@contextmanager
def _loaded(options: Options) -> Iterator[Callable[[], dict[str, Any]]]:
    """Run the load; what is yielded ends it and returns what it has seen."""
    process = subprocess.Popen(
        [sys.executable, str(LOAD), json.dumps(asdict(options))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def result() -> dict[str, Any]:
        output, _ = process.communicate(timeout=ANSWER_S)  # this ends its stdin
        seen: dict[str, Any] = json.loads(output)
        return seen

    with process:
        try:
            yield result
        finally:
            process.kill()


def _acts(plan: Plan, endpoints: Sequence[Endpoint]) -> list[tuple[float, Callable[[], None]]]:
    """Beginnings and ends of all troubles, in their order."""
    acts = []
    for event in plan.events:
        begin, end = _begin_and_end(event, endpoints[event.endpoint])
        acts += [(event.at_s, begin), (event.ends_s, end)]
    return sorted(acts, key=lambda act: act[0])


def _begin_and_end(
    event: Event, endpoint: Endpoint
) -> tuple[Callable[[], None], Callable[[], None]]:
    fault = plans.fault(event.what)
    if fault is not None:
        return lambda: endpoint.turn_to(fault), endpoint.behave
    if event.what == "freeze":
        return endpoint.freeze, endpoint.thaw
    stop = endpoint.terminate if event.what == "restart" else endpoint.kill
    return stop, endpoint.start_again
