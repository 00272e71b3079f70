"""What happens in the demo: 90/10, 50/50, a switch with requests in flight, a rollback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.cli import words
from proxy.cli.client import AdminClient, Answer, service_path
from proxy.cli.demo_load import Load
from proxy.cli.demo_report import Phase, Report
from proxy.cli.demo_stage import SERVICE, Stage
from proxy.cli.demo_view import Scene, Teller
from proxy.cli.exits import CommandError
from proxy.cli.traffic import in_force
from proxy.tasks import spawn

USUAL_S: Final = 25.0
REFRESH_S: Final = 0.25
DRAIN_S: Final = 20.0

Change = Callable[[AdminClient], Answer]


@dataclass(slots=True)
class Story:
    """The acts, told by `teller`, on a stage that stands."""

    stage: Stage
    teller: Teller
    seconds: float = USUAL_S
    phases: list[Phase] = field(default_factory=list)
    scene: Scene = field(init=False)
    _load: Load = field(init=False)

    def __post_init__(self) -> None:
        self._load = Load(self.stage.host, self.stage.port)
        self.scene = Scene(self._load, time.monotonic(), self.seconds)

    async def tell(self) -> Report:
        """Play every act and return what was seen."""
        watcher = spawn(self._watch(), name="demo-view", report=self._report)
        self._load.start()
        try:
            await self._acts()
            watcher.cancel()
            await self._load.stop()
        finally:
            self._load.close()
            watcher.cancel()
        return Report(self.phases, self._load.records, self._load.failures)

    async def _acts(self) -> None:
        await self._begin()
        await self._weights(90, 10, "a tenth of the traffic tries the new release.")
        await self._weights(50, 50, "half and half.")
        await self._switch()
        await self._rollback()
        self.phases[-1].end(time.monotonic())

    async def _begin(self) -> None:
        view = (await asyncio.to_thread(self.stage.client.get, service_path(SERVICE))).value
        self.scene.service = view
        self.teller.say("blue (v41) carries everything; green (v42) is deployed and waits.")
        self.phases.append(Phase("all on blue", in_force(view), self.scene.began_s))
        self.scene.since_s = self.scene.began_s
        await self._play(3)

    async def _weights(self, blue: int, green: int, sentence: str) -> None:
        body = {"weights": {"blue": blue, "green": green}, "reason": "demo"}
        await self._change(
            f"{blue} / {green}", lambda client: client.put(service_path(SERVICE, "weights"), body)
        )
        self.teller.say(sentence, f"turnout weights {SERVICE} blue={blue} green={green}")
        await self._play(5)

    async def _switch(self) -> None:
        body = {"to": "green", "reason": "demo"}
        view = await self._change(
            "switch to green",
            lambda client: client.post(service_path(SERVICE, "switch"), body),
            left="blue",
        )
        drain = view.get("drain")
        left = words.remaining(drain["remaining"]) if drain else ""
        told = (
            f"blue still works on {left}: they finish." if left else "blue had nothing in flight."
        )
        self.teller.say(
            f"all new traffic to green, at once; {told}", f"turnout switch {SERVICE} --to green"
        )
        began_s = time.monotonic()
        await self._drained(began_s)
        await self._play(6, since_s=began_s)

    async def _drained(self, began_s: float) -> None:
        path = f"{service_path(SERVICE, 'drain')}?wait=2s"
        while time.monotonic() - began_s < DRAIN_S:
            view = (await asyncio.to_thread(self.stage.client.get, path)).value
            if view.get("drain") is None or words.is_empty(view["drain"]):
                took_s = time.monotonic() - began_s
                self.teller.say(
                    f"blue is empty after {took_s:.1f} s, nothing was cut: safe to stop it."
                )
                return
        self.teller.say(f"blue is not empty after {DRAIN_S:g} s.")

    async def _rollback(self) -> None:
        body = {"reason": "demo"}
        await self._change(
            "rollback",
            lambda client: client.post(service_path(SERVICE, "rollback"), body),
            left="green",
        )
        self.teller.say("and back to blue, as fast.", f"turnout rollback {SERVICE}")
        await self._play(4)

    async def _change(self, title: str, change: Change, left: str | None = None) -> dict[str, Any]:
        """Ask for a change; the next phase begins with its answer."""
        self.phases[-1].end(time.monotonic())
        view, answered_s = await asyncio.to_thread(_timed, change, self.stage.client)
        self.phases.append(Phase(title, in_force(view), answered_s, left))
        self.scene.service, self.scene.since_s = view, answered_s
        return view

    async def _play(self, usual_s: float, since_s: float | None = None) -> None:
        gone_s = 0.0 if since_s is None else time.monotonic() - since_s
        await asyncio.sleep(max(0.0, usual_s * self.seconds / USUAL_S - gone_s))

    async def _watch(self) -> None:
        while True:
            try:
                answer = await asyncio.to_thread(self.stage.client.get, service_path(SERVICE))
                self.scene.service = answer.value
            except CommandError as error:
                self._report("admin", error)
            self.teller.update(self.scene)
            await asyncio.sleep(REFRESH_S)

    def _report(self, name: str, error: BaseException) -> None:
        self._load.failures.append(f"{name}: {error}")


def _timed(change: Change, client: AdminClient) -> tuple[dict[str, Any], float]:
    # In the thread that reads the answer: the event loop may take the news up later.
    answer = change(client)
    return answer.value, time.monotonic()
