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
from tests.ports import free_port

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
        turnout, started = proxies.start(tmp_path, endpoints, stack)
        report = chaos.run(Setting(seed, SECONDS), endpoints, started)
        record_property("table", str(report))
        assert report.complaints(turnout.name) + turnout.complaints() == [], str(report)
