"""The demo's processes: four releases and a real `turnout run`, in a directory that goes with them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.cli.address import AdminAddress
from proxy.cli.client import AdminClient
from proxy.cli.exits import CommandError, ExitCode

SERVICE: Final = "shop"
FIRST: Final = "v41"
GOOD: Final = "v42"
BAD: Final = "v43"
FIXED: Final = "v44"
ERRORS: Final = {FIRST: 0, GOOD: 0, BAD: 50, FIXED: 0}
"""Every release, and the percentage of its requests that fail from its start."""
START_S: Final = 20.0
STOP_S: Final = 5.0
SHOWN_LINES: Final = 12

CONFIG: Final = """\
listeners: [{{bind: "127.0.0.1:{port}"}}]
admin: {{bind: "127.0.0.1:{admin_port}"}}
workers: 2
state: "{state}"
shutdown_timeout: 5s
access_log: {{path: "off"}}
services:
  shop:
    routes: [{{path: /}}]
    pools:
      blue: {{endpoints: ["{first}"], release: v41}}
      green: {{}}
    active: blue
    health: {{path: /healthz, interval: 1s}}
    rollout:
      steps: [{{weight: 10, bake: {bake_s:.1f}s}}, {{weight: 100, bake: {last_bake_s:.1f}s}}]
      min_requests: 40
      keep_old: 1s
"""
BAKES_S: Final = (6.0, 3.0)
"""Of the two steps: short, so that what is plainly broken is found, and nobody falls asleep."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the story needs: where clients connect, the admin, the command, the releases."""

    host: str
    port: int
    client: AdminClient
    turnout: tuple[str, ...]
    services: Mapping[str, Service]

    def fail(self, releases: Sequence[str], percent: int) -> None:
        """Have so many of these releases' requests fail from now on."""
        for release in releases:
            self.services[release].child.tell(f"{percent}\n")


class Child:
    """One process of ours, and its log."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    def failure(self, what: str) -> CommandError:
        """What happened to it, with the last lines of its log."""
        lines = self._log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
        return CommandError(
            ExitCode.REFUSED, f"demo: {self.name} {what}; its last log lines:", tuple(lines)
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode())

    async def stop(self) -> None:
        """Ask, ask again (which means: now), and only then kill."""
        for end in (self._terminate, self._terminate, self._kill):
            if not self.is_alive:
                break
            end()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), STOP_S)
        if self.process.returncode != 0:
            self._kill()  # what it could not end itself: workers serve on without a supervisor

    def _terminate(self) -> None:
        with suppress(ProcessLookupError):
            self.process.terminate()

    def _kill(self) -> None:
        # Its own session, made by us: workers that outlive their supervisor are in it too.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Service:
    """A running release."""

    child: Child
    address: str


@asynccontextmanager
async def stage_in(
    directory: Path, turnout: Sequence[str] = (), *, pace: float = 1.0
) -> AsyncIterator[Stage]:
    """Start everything in `directory`, and end it all again.

    `turnout` is the command that runs the proxy, this very program unless told otherwise;
    `pace` stretches the steps of the rollouts.
    """
    children: list[Child] = []
    try:
        yield await _start(directory, turnout or _module("proxy.cli.main"), children, pace)
    except CommandError as error:
        # That nobody answers is no news when we know who died, and have its log.
        if error.code == ExitCode.UNREACHABLE and (dead := await _first_dead(children)):
            raise dead.failure(f"ended with exit code {dead.process.returncode}") from error
        raise
    finally:
        # The proxy first: a service that goes before it would look like a failure of ours.
        for child in reversed(children):
            await child.stop()


async def _first_dead(children: Sequence[Child]) -> Child | None:
    await asyncio.sleep(0.2)  # the news of an end may come a little after its consequences
    return next((child for child in children if not child.is_alive), None)


async def _start(
    directory: Path, turnout: Sequence[str], children: list[Child], pace: float
) -> Stage:
    services = {}
    for release, errors in ERRORS.items():
        command = [
            *_module("proxy.cli.demo_service"),
            *("--release", release, "--errors", str(errors)),
        ]
        child = await _spawn(f"service {release}", command, directory)
        children.append(child)
        services[release] = Service(child, f"127.0.0.1:{await _port_of(child)}")
    port, admin_port = _free_ports(2)
    bake_s, last_bake_s = (pace * seconds for seconds in BAKES_S)
    config = directory / "turnout.yaml"
    config.write_text(
        CONFIG.format(
            port=port,
            admin_port=admin_port,
            state=directory / "state",
            first=services[FIRST].address,
            bake_s=bake_s,
            last_bake_s=last_bake_s,
        )
    )
    proxy = await _spawn("turnout run", [*turnout, "run", str(config)], directory)
    children.append(proxy)
    client = AdminClient(AdminAddress("http", "127.0.0.1", admin_port), None)
    await _ready(proxy, client)
    return Stage("127.0.0.1", port, client, tuple(turnout), services)


def _module(name: str) -> list[str]:
    # -P: a directory called proxy, where the demo is started, is not us.
    return [sys.executable, "-P", "-m", name]


async def _spawn(name: str, command: Sequence[str], directory: Path) -> Child:
    path = directory / f"{name.replace(' ', '-')}.log"
    with path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE if name.startswith("service") else DEVNULL,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the demo, which ends them in order
        )
    return Child(name, process, path)


async def _port_of(child: Child) -> int:
    assert child.process.stdout is not None
    try:
        line = await asyncio.wait_for(child.process.stdout.readline(), START_S)
        return int(line)
    except (TimeoutError, ValueError) as error:
        raise child.failure("did not start") from error


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [found.getsockname()[1] for found in sockets]
    finally:
        for found in sockets:
            found.close()


async def _ready(child: Child, client: AdminClient) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_S
    why = "does not answer"
    while loop.time() < deadline:
        if not child.is_alive:
            raise child.failure(f"ended with exit code {child.process.returncode}")
        try:
            await asyncio.to_thread(client.get, "/readyz", timeout_s=2.0)
        except CommandError as error:
            why = error.sentence
        else:
            return
        await asyncio.sleep(0.05)
    raise child.failure(f"was not ready within {START_S:g} s ({why})")
