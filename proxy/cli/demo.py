"""`turnout demo`: the proxy's main job, with real processes, in half a minute."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.exits import ExitCode
from proxy.cli.session import local_options

if TYPE_CHECKING:
    from collections.abc import Iterator

NEXT = {
    "check config/turnout.yaml": "is the example valid?",
    "run config/turnout.yaml": "proxy :8080, admin :9900",
    "status --watch": "pools, shares, drains",
    "weights shop blue=90 green=10": "by hand; --ttl 2h for a while",
    "switch shop --to green": "all at once, guarded",
    "drain shop --wait": "until the old pool is empty",
    "rollback shop": "and back",
}


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(5, 600),
    default=25.0,
    show_default=True,
    help="About how long it takes.",
)
@local_options
def demo(seconds: float, **_unused: object) -> int:
    """See it work: two small services behind a real proxy, under load, in about 25 seconds.

    Everything runs on loopback on free ports and is gone at the end. Exit 0 means that
    not one request failed.
    """
    return asyncio.run(_guarded(seconds))


async def _guarded(seconds: float) -> int:
    """Play it; a signal ends it in order, and only once."""
    task = asyncio.current_task()
    assert task is not None
    with _signals(task) as received:
        try:
            return await play(seconds)
        except asyncio.CancelledError:
            if not received:
                raise
            click.echo("turnout: demo ended early; everything it started has been ended", err=True)
            return 128 + received[0]


@contextlib.contextmanager
def _signals(task: asyncio.Task[object]) -> Iterator[list[int]]:
    received: list[int] = []

    def end(number: int) -> None:
        # Later ones must not break off the cleaning up, which is bounded.
        if not received:
            received.append(number)
            task.cancel()

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, end, number)
    try:
        yield received
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def play(seconds: float) -> int:
    """Build the stage, tell the story, show what was seen; 0 only if nothing failed."""
    from proxy.cli.demo_stage import stage_in  # noqa: PLC0415 - with the rest of the demo
    from proxy.cli.demo_story import Story  # noqa: PLC0415 - the same
    from proxy.cli.demo_view import LiveTeller, teller  # noqa: PLC0415 - rich

    with tempfile.TemporaryDirectory(prefix="turnout-demo-") as directory:
        told_by = teller()
        try:
            told_by.say("starting two services and a proxy ...")
            async with stage_in(Path(directory)) as stage:
                told_by.say(
                    f"the proxy listens on http://{stage.host}:{stage.port}; load begins. Look on with\n"
                    f"{program()} status --watch --admin {stage.client.address}"
                )
                report = await Story(stage, told_by, seconds).tell()
            told_by.end(report)
        finally:
            if isinstance(told_by, LiveTeller):
                told_by.close()
    click.echo("\n".join(["\nWhat to try next:", *next_lines(program())]))
    return ExitCode.DONE if report.is_good else ExitCode.REFUSED


def program() -> str:
    """How this shell can call us: `turnout`, or the path the demo was started by (make demo)."""
    is_path = Path(sys.argv[0]).name == "turnout"
    return sys.argv[0] if is_path and shutil.which("turnout") is None else "turnout"


def next_lines(name: str) -> list[str]:
    width = max(len(command) for command in NEXT)
    return [f"  {name} {command:{width}}  {what}" for command, what in NEXT.items()]
