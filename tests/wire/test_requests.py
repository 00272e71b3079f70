"""Requests as the wire brings them: what the client gets, and what the endpoint has got."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.dataplane.box import Box
from tests.wire.case import Case, read_cases
from tests.wire.play import MODES, play

CASES = read_cases(Path(__file__).parent / "requests")


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_request_is_passed_on_or_refused_as_written(box: Box, case: Case) -> None:
    """The standard loop gets them whole only: pieces are the parser's matter, which is the same."""
    is_uvloop = type(asyncio.get_running_loop()).__module__.startswith("uvloop")
    await play(box, case, MODES if is_uvloop else MODES[:1])
