"""`turnout demo`: the proxy's main job, with real processes, in about a minute."""

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
    "deploy shop --endpoints A,B": "what you have just seen",
    "rollout pause shop": "and resume, promote, abort",
    "weights shop blue=90 green=10": "by hand; --ttl 2h for a while",
    "rollback shop": "and back",
}


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(45, 600),
    default=70.0,
    show_default=True,
    help="About how long it takes.",
)
@local_options
def demo(seconds: float, **_unused: object) -> int:
    """See it work: a good release, a bad one and an outage, under load, in about a minute.

    Small services behind a real proxy: the good release goes through unnoticed, the bad one is
    turned back by itself, and the outage of both holds the rollout. Everything runs on loopback
    on free ports and is gone at the end. Exit 0 means that all of it was really seen, and that
    no request failed but those that the releases were made to fail.
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
    """Build the stage, tell the story, show what was seen; 0 only if all promises were kept."""
    from proxy.cli.demo_stage import stage_in  # noqa: PLC0415 - with the rest of the demo
    from proxy.cli.demo_story import Story, pace_of  # noqa: PLC0415 - the same
    from proxy.cli.demo_view import LiveTeller, teller  # noqa: PLC0415 - rich

    with tempfile.TemporaryDirectory(prefix="turnout-demo-") as directory:
        told_by = teller()
        try:
            told_by.say("starting four releases of a small service, and a proxy ...")
            async with stage_in(Path(directory), pace=pace_of(seconds)) as stage:
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
