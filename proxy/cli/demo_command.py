"""One `turnout` verb of the demo, run as a person would: its own process, its lines as they come."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from proxy.cli.demo_stage import Stage
from proxy.cli.exits import CommandError, ExitCode

LONGEST_S: Final = 120.0
"""No verb of the demo takes nearly as long."""
LONGEST_LINE: Final = 64 * 1024


async def run(stage: Stage, arguments: Sequence[str], told: Callable[[str], None]) -> int:
    """Run `turnout ARGUMENTS` against the stage's proxy, tell each line, return its exit code."""
    async with _process(stage, arguments) as process:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(LONGEST_S):
                while line := await process.stdout.readline():
                    told(line.decode("utf-8", "replace").rstrip())
                return await process.wait()
        except TimeoutError:
            said = f"demo: 'turnout {arguments[0]}' did not end within {LONGEST_S:g} s"
            raise CommandError(ExitCode.TIMED_OUT, said) from None


@asynccontextmanager
async def _process(stage: Stage, arguments: Sequence[str]) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *stage.turnout,
        *arguments,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        limit=LONGEST_LINE,
        env={**os.environ, "TURNOUT_ADMIN": str(stage.client.address)},
        start_new_session=True,  # Ctrl-C is for the demo
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
