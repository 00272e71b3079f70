"""Fixtures of the data plane's tests: a box for each test, on uvloop and on the standard loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.dataplane.box import Box


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test here that is a coroutine runs on both loops: the fallback must not lag behind."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    made = Box()
    yield made
    await made.end()
