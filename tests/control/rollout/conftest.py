"""A rollout brought into any phase, and events without much writing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxy.control.rollout.machine import (
    Event,
    Judged,
    Kind,
    Outcome,
    Phase,
    Rollout,
    Why,
    advance,
)
from proxy.control.rollout.plan import Plan, Step
from proxy.control.state import ServiceState

STEPS = (
    Step(weight=100, bake_s=10),
    Step(weight=1_000, bake_s=20),
    Step(weight=5_000, bake_s=20, pause=True),
    Step(weight=10_000, bake_s=30),
)
PLAN = Plan(steps=STEPS, min_requests=50, starve_limit_s=300, keep_old_s=600)


class Rig:
    """One rollout, its clock, and what the last event came to."""

    def __init__(self, plan: Plan) -> None:
        self.now = 1_000.0
        self.rollout = Rollout(
            id=3, old="blue", candidate="green", release="v42", plan=plan, began_at=self.now
        )
        self.last = Outcome(rollout=self.rollout)

    def __call__(self, kind: Kind, **more: Any) -> Rollout:
        """Have the event happen."""
        self.last = advance(self.rollout, Event(kind=kind, now=self.now, **more))
        self.rollout = self.last.rollout
        return self.rollout

    def tick(self, judged: Judged = Judged.CONTINUE, **more: Any) -> Rollout:
        """One second with ten requests on the candidate, unless said otherwise."""
        self.now += 1.0
        given = {"length_s": 1.0, "requests": 10, "reason": "errors"} | more
        return self(Kind.TICK, judged=judged, **given)

    def bake(self, most: int = 100) -> Rollout:
        """Tick until the rollout leaves its step."""
        phase, step = self.rollout.phase, self.rollout.step
        for _ in range(most):
            self.tick()
            if (self.rollout.phase, self.rollout.step) != (phase, step):
                return self.rollout
        raise AssertionError(f"still {phase} in step {step}")

    def into(self, phase: Phase) -> Rollout:
        """Go there from warming, the way an operator would."""
        way = WAYS[phase]
        for kind, more in way:
            self(kind, **more)
        assert self.rollout.phase is phase
        return self.rollout


FAIL = {"judged": Judged.FAIL, "reason": "errors: too many"}
READY: tuple[Kind, dict[str, Any]] = (Kind.READY, {})
WAYS: dict[Phase, tuple[tuple[Kind, dict[str, Any]], ...]] = {
    Phase.WARMING: (),
    Phase.STEADY: ((Kind.NOT_READY, {"reason": "no answer"}),),
    Phase.BAKING: (READY,),
    Phase.PAUSED: (READY, (Kind.PAUSE, {"reason": "lunch"})),
    Phase.MANUAL: (READY, (Kind.WEIGHTS, {"weight": 2_500})),
    Phase.PROMOTED: (READY, (Kind.PROMOTE, {})),
    Phase.ASKING: (READY, (Kind.PROMOTE, {}), (Kind.TICK, FAIL)),
    Phase.ROLLED_BACK: (READY, (Kind.TICK, FAIL)),
    Phase.STUCK: (READY, (Kind.TICK, FAIL | {"old_is_available": False})),
}


@pytest.fixture
def plan() -> Plan:
    return PLAN


@pytest.fixture
def rig(plan: Plan) -> Rig:
    return Rig(plan)


@pytest.fixture
def rig_with() -> Any:
    """A rig whose plan differs in some keys."""
    return lambda **keys: Rig(replace(PLAN, **keys))


@pytest.fixture
def paused() -> Any:
    """Put a rollout in a pause of some kind, in its second step."""

    def put(rig: Rig, why: Why, **more: Any) -> Rollout:
        rig.into(Phase.BAKING)
        rig.bake()
        rig.rollout = replace(
            rig.rollout, phase=Phase.PAUSED, why=why, phase_at=rig.now, baked_s=7.0, had=70, **more
        )
        return rig.rollout

    return put


@pytest.fixture
def shop(shop: ServiceState) -> ServiceState:
    """The shop with a release's label on each pool."""
    labels = {"blue": "v41", "green": "v42"}
    fillings = {
        pool: replace(filling, release=labels[pool]) for pool, filling in shop.file.fillings.items()
    }
    return replace(shop, file=replace(shop.file, fillings=fillings))
