"""A minute of trouble under load, side by side with nginx and HAProxy where they are installed.

CHAOS_SEED gives the same plan and load again; every failure names its seed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos import chaos, proxies
from tests.chaos.chaos import Setting
from tests.chaos.endpoint import Endpoints
from tests.e2e.stage import Turnout, free_port, wait_until

SECONDS = 60


@pytest.fixture
def endpoints() -> Iterator[Endpoints]:
    endpoints = Endpoints(free_port(), **chaos.POOLS)
    endpoints.start()
    yield endpoints
    endpoints.end()


@pytest.mark.timeout(3 * SECONDS)
def test_clients_hardly_notice_a_minute_of_trouble(
    tmp_path: Path, endpoints: Endpoints, record_property: Callable[[str, object], None]
) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1_000_000))
    with ExitStack() as stack:
        turnout_proxy, all_proxies = proxies.start(tmp_path, endpoints, stack)
        turnout = turnout_proxy.turnout
        workers = turnout.worker_pids()
        report = chaos.run(Setting(seed, SECONDS), endpoints, all_proxies)
        record_property("table", str(report))
        assert report.complaints(turnout_proxy.name) == [], str(report)
        assert turnout.worker_pids() == workers, "no worker has died"
        _is_all_well(turnout)


def _is_all_well(turnout: Turnout) -> None:
    wait_until(lambda: _in_flight(turnout) == 0, "nothing is in flight")
    wait_until(lambda: _unavailable(turnout) == [], "every endpoint is available again")


def _in_flight(turnout: Turnout) -> float:
    return turnout.metric("turnout_in_flight")


def _unavailable(turnout: Turnout) -> list[str]:
    return [
        endpoint["address"]
        for pool in turnout.service()["pools"].values()
        for endpoint in pool["endpoints"]
        if not endpoint["available"]
    ]
