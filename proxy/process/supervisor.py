"""The supervisor: control plane, workers and admin API of one proxy, from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys

import structlog

from proxy.control.admin.auth import Tokens
from proxy.control.admin.metrics import Instruments
from proxy.control.admin.server import AdminServer
from proxy.control.config.load import Loaded, load_file
from proxy.control.config.problem import ConfigInvalid
from proxy.control.controller import Controller
from proxy.control.ledger import BindProblems
from proxy.control.refusal import Refusal
from proxy.process import events, tenancy
from proxy.process.cores import usable_cores
from proxy.process.loop import run
from proxy.process.notify import notify
from proxy.process.outlet import Outlet
from proxy.process.workforce import Workforce
from proxy.stats import SlotTable
from proxy.tasks import spawn

DONE, FAILED, USAGE = 0, 1, 2
"""Exit codes."""

log = structlog.get_logger("turnout.process")


def main(config_path: str) -> int:
    """Run the proxy on a configuration file until it is told to stop; returns the exit code."""
    outlet = events.configure()
    try:
        loaded = load_file(config_path, os.environ)
    except ConfigInvalid as invalid:
        for problem in invalid.problems:
            print(problem, file=sys.stderr)  # noqa: T201 - for the person who started it
        return USAGE
    _raise_descriptor_limit()
    return run(_Supervisor(loaded, outlet).run())


class _Supervisor:
    def __init__(self, loaded: Loaded, outlet: Outlet) -> None:
        config = loaded.config
        count = config.workers if isinstance(config.workers, int) else usable_cores()
        slots = SlotTable(count)
        self._config = config
        self._outlet = outlet
        self._workforce = Workforce(count, slots)
        self._controller = Controller(loaded, self._workforce, slots, environ=os.environ)
        self._admin = self._make_admin()
        self._stop_asked = asyncio.Event()
        self._signals = 0

    def _make_admin(self) -> AdminServer:
        admin, controller = self._config.admin, self._controller
        return AdminServer(
            controller,
            Instruments(
                snapshot=lambda: controller.snapshot,
                totals=self._workforce.totals,
                workers=self._workforce.workers,
                config=lambda: controller.status()["config"],
                own_lines_dropped=lambda: self._outlet.dropped,
                board=self._workforce.board,
                health=controller.health,
                checks_in_flight=lambda: controller.checkup.in_flight,
                ejections=lambda: controller.ejections.counts,
                states=controller.rollouts.states,
                guard=controller.rollouts.seen,
                rollbacks=lambda: controller.rollouts.clerk.rollbacks,
                hook_calls=lambda: controller.rollouts.hooks.calls,
                hooks_pending=lambda: controller.rollouts.hooks.pending,
                concurrency_limit=controller.concurrency_limit,
                certificates=controller.certificates,
            ),
            bind=admin.bind,
            tokens=Tokens(
                write=admin.token.get_secret_value() if admin.token else None,
                read=admin.read_token.get_secret_value() if admin.read_token else None,
            ),
        )

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload_signal)
        code = await self._start()
        if code == DONE:
            notify("READY=1")
            await self._stop_asked.wait()
        await self._stop()
        return code

    async def _start(self) -> int:
        """State and configuration first, then traffic, then the operator's door."""
        try:
            tenancy.take(self._config.state)  # kept by its descriptor, as long as we live
            await self._workforce.start()
            await self._controller.start()
            _, reasons = self._controller.ready()
            if not any(worker.up for worker in self._workforce.workers()):
                log.error("not_started", error="no worker came up", reasons=reasons)
                return FAILED
            await self._admin.start()
        except (BindProblems, Refusal, OSError, ValueError) as error:
            sentence = getattr(error, "detail", None) or str(error)
            log.error("not_started", error=sentence)  # noqa: TRY400 - a sentence, not a trace
            return FAILED
        log.info(
            "started",
            listeners=[listener.bind for listener in self._config.listeners],
            admin=self._admin.addresses,
            workers=len(self._workforce.workers()),
            revision=self._controller.snapshot.revision,
        )
        return DONE

    async def _stop(self) -> None:
        """Readiness first, then no new connections, then what is in flight finishes."""
        notify("STOPPING=1")
        self._controller.begin_shutdown()
        log.info("stopping", grace_s=self._config.shutdown_timeout)
        await self._workforce.stop(self._config.shutdown_timeout)
        await self._admin.stop()
        with contextlib.suppress(Refusal):
            await self._controller.stop()
        log.info("stopped")

    def _on_stop_signal(self) -> None:
        self._signals += 1
        self._stop_asked.set()
        if self._signals > 1:
            log.warning("stopping_now", reason="a second signal")
            self._workforce.kill()

    def _on_reload_signal(self) -> None:
        spawn(self._controller.reload(who="signal"), name="reload", report=_report)


def _raise_descriptor_limit() -> None:
    """As many descriptors as the system lets us have: each connection takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _report(name: str, error: BaseException) -> None:
    log.error("task_failed", task=name, error=repr(error))
