"""What happens in the demo: a good release, a bad one, and an outage that is nobody's fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.cli import demo_command, demo_promises
from proxy.cli.client import service_path
from proxy.cli.demo_load import Load
from proxy.cli.demo_promises import Seen
from proxy.cli.demo_report import Act, Promise, Report, Trouble
from proxy.cli.demo_stage import BAD, BAKES_S, ERRORS, FIRST, FIXED, GOOD, SERVICE, Stage
from proxy.cli.demo_view import Scene, Teller
from proxy.cli.exits import CommandError
from proxy.tasks import spawn

JUDGED_S: Final = 45.0
"""About what drains and the judge take, whatever the pace."""
USUAL_S: Final = 70.0
REFRESH_S: Final = 0.25
WAIT_S: Final = 30.0
"""How long anything here is waited for."""
OUTAGE_S: Final = 4.0
OUTAGE_PERCENT: Final = 30


def pace_of(seconds: float) -> float:
    """How much longer than usual everything stands that we may stretch."""
    return max(0.2, (seconds - JUDGED_S) / (USUAL_S - JUDGED_S))


@dataclass(slots=True)
class Story:
    """The acts, told by `teller`, on a stage that stands."""

    stage: Stage
    teller: Teller
    seconds: float = USUAL_S
    acts: list[Act] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=lambda: [Trouble(frozenset({BAD}))])
    scene: Scene = field(init=False)
    _load: Load = field(init=False)
    _seen: Seen = field(default_factory=Seen)

    def __post_init__(self) -> None:
        self._load = Load(self.stage.host, self.stage.port)
        self.scene = Scene(self._load, time.monotonic(), self.seconds)

    async def tell(self) -> Report:
        """Play every act and return what was seen."""
        await self._look()
        watcher = spawn(self._watch(), name="demo-view", report=self._report)
        self._load.start()
        try:
            await self._acts()
            watcher.cancel()
            await self._load.stop()
        finally:
            self._load.close()
            watcher.cancel()
        return Report(
            self.acts, self.promises, self.troubles, self._load.records, self._load.failures
        )

    async def _acts(self) -> None:
        self._act(f"{FIRST} alone")
        self.teller.say(f"{FIRST} carries everything.")
        await self._play(3)
        await self._good()
        await self._bad()
        await self._outage()
        self.acts[-1].to_s = time.monotonic()

    # ---- the acts ----

    async def _good(self) -> None:
        self.teller.head(f"1. A good release: {GOOD} gets 10 %, then everything.")
        act = self._act(f"{GOOD}, a good release")
        code = await self._deploy(GOOD)
        act.to_s = time.monotonic()
        failed = len(self._load.failures)
        await self._keep(
            lambda: demo_promises.went_through(self._load.records, failed, act, GOOD, code)
        )
        await self._play(2)

    async def _bad(self) -> None:
        await self._until(self._is_settled)
        self.teller.head(f"2. A bad release: half of what {BAD} answers is an error.")
        act = self._act(f"{BAD}, a bad release")
        code = await self._deploy(BAD)
        seen, told_s = self._seen, time.monotonic()
        await self._play(3)
        act.to_s = time.monotonic()
        await self._keep(lambda: demo_promises.turned_back(self._load.records, act, BAD, code))
        self.teller.say("Once more, as a pipeline would that tries again:")
        again = await self._deploy(BAD)
        await self._keep(
            lambda: demo_promises.stays_away(self._load.records, BAD, seen, told_s, again),
        )

    async def _outage(self) -> None:
        self.teller.head(f"3. {FIXED} is good, but what both releases depend on goes down.")
        self._act(f"{FIXED}, a shared outage")
        deploy = spawn(self._deploy(FIXED), name="demo-deploy", report=self._report)
        try:
            await self._until(lambda: deploy.done() or self._is_baking())
            await self._play(BAKES_S[0] / 3)
            outage = await self._fail_both()
            code = await deploy
        finally:
            deploy.cancel()
            with suppress(asyncio.CancelledError, CommandError):
                await deploy
        seen = self._seen
        await self._keep(lambda: demo_promises.was_held(self._load.records, outage, seen))
        await self._keep(lambda: demo_promises.went_on(FIXED, code))
        await self._play(2)

    async def _fail_both(self) -> Trouble:
        both = (GOOD, FIXED)
        self.teller.say(f"The outage begins: {OUTAGE_PERCENT} % of all requests fail.")
        began_s = time.monotonic()
        self.stage.fail(both, OUTAGE_PERCENT)
        await asyncio.sleep(OUTAGE_S)
        self.stage.fail(both, ERRORS[GOOD])
        outage = Trouble(frozenset(both), began_s, time.monotonic())
        self.troubles.append(outage)
        self.teller.say("The outage is over; the judge still sees it in its last minute.")
        return outage

    # ---- their parts ----

    def _act(self, title: str) -> Act:
        now_s = time.monotonic()
        if self.acts:
            self.acts[-1].to_s = min(self.acts[-1].to_s, now_s)
        self.acts.append(Act(title, now_s))
        return self.acts[-1]

    async def _deploy(self, release: str) -> int:
        """The command of a pipeline, to its end; what the watcher sees of it is kept apart."""
        rollout = self.scene.service.get("rollout") or {}
        self._seen = Seen(rollout.get("id"))
        arguments = ["deploy", SERVICE, "--endpoints", self.stage.services[release].address]
        arguments += ["--release", release]
        self.teller.command(f"turnout {' '.join(arguments)}")
        code = await demo_command.run(self.stage, arguments, self.teller.line)
        self.teller.line(f"exit code {code}")
        await self._look()
        return code

    async def _keep(self, promise: Callable[[], Promise]) -> None:
        """Judge a promise when the answers of its time are there."""
        await asyncio.sleep(0.2)
        kept = promise()
        self.promises.append(kept)
        self.teller.promise(kept)

    async def _play(self, usual_s: float) -> None:
        await asyncio.sleep(usual_s * pace_of(self.seconds))

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for it, not for ever: what did not happen then breaks its promise."""
        deadline = time.monotonic() + WAIT_S
        while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - of a view
            await asyncio.sleep(REFRESH_S / 2)

    def _phase(self) -> str:
        return str((self.scene.service.get("rollout") or {}).get("phase") or "steady")

    def _is_settled(self) -> bool:
        return self._phase() in {"steady", "rolled_back"}

    def _is_baking(self) -> bool:
        return self._phase() == "baking"

    # ---- the watcher ----

    async def _watch(self) -> None:
        while True:
            try:
                await self._look()
            except CommandError as error:
                self._report("admin", error)
            self.teller.update(self.scene)
            await asyncio.sleep(REFRESH_S)

    async def _look(self) -> None:
        view, now_s = await asyncio.to_thread(self._ask)
        self._seen.take(view, now_s)
        if view["weights"]["in_force"] != self.scene.weights:
            self.scene.since_s = now_s
        self.scene.service = view

    def _ask(self) -> tuple[dict[str, Any], float]:
        # In the thread that reads the answer: the event loop may take the news up later.
        answer = self.stage.client.get(service_path(SERVICE))
        return answer.value, time.monotonic()

    def _report(self, name: str, error: BaseException) -> None:
        self._load.failures.append(f"{name}: {error}")
