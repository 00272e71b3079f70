"""A seeded simulation: ticks, verdicts, operators, reloads and restarts in any order."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from proxy.control import codec, verbs
from proxy.control.decision import Author
from proxy.control.filling import Filling, Member
from proxy.control.refusal import Refusal
from proxy.control.rollout import change
from proxy.control.rollout.machine import (
    TABLE,
    Event,
    Judged,
    Kind,
    Outcome,
    Phase,
    Rollout,
    Why,
)
from proxy.control.rollout.plan import Plan, Step
from proxy.control.state import Change, ServiceState
from proxy.model import WHOLE

SEEDS = 60
EVENTS = 400
PERSONS = (
    Kind.PAUSE,
    Kind.RESUME,
    Kind.PROMOTE,
    Kind.ABORT,
    Kind.ROLL_BACK,
    Kind.WEIGHTS,
    Kind.UNLOCK,
    Kind.REJUDGE,
)
OTHERS = (
    Kind.READY,
    Kind.NOT_READY,
    Kind.SUPERSEDED,
    Kind.HOOK_REFUSED,
    Kind.PLAN_CHANGED,
    Kind.RESTARTED,
)
MAY_PROMOTE = {
    (Phase.BAKING, Kind.TICK),
    (Phase.BAKING, Kind.PROMOTE),
    (Phase.PAUSED, Kind.PROMOTE),
    (Phase.MANUAL, Kind.PROMOTE),
    (Phase.BAKING, Kind.WEIGHTS),
    (Phase.PAUSED, Kind.WEIGHTS),
    (Phase.MANUAL, Kind.WEIGHTS),
    (Phase.PAUSED, Kind.RESUME),  # of the last step's gate
    (Phase.ASKING, Kind.TICK),  # back from the question
    (Phase.STUCK, Kind.TICK),  # recovered
}


def drawn_plan(draw: random.Random) -> Plan:
    weights = sorted(draw.sample(range(1, WHOLE), draw.randrange(4)))
    steps = tuple(
        Step(weight=weight, bake_s=draw.choice((0.0, 3.0, 8.0)), pause=draw.random() < 0.2)
        for weight in (*weights, WHOLE)
    )
    return Plan(
        steps=steps,
        min_requests=draw.choice((0, 20, 60)),
        advance=draw.choice(("bake", "bake", "evidence")),
        starve_limit_s=draw.choice((15.0, 1_000.0)),
        on_starved=draw.choice(("wait", "promote", "roll_back")),
        holdback=draw.choice((0, 100, 300)),
        keep_old_s=draw.choice((10.0, 100.0)),
        on_fail=draw.choice(("roll_back", "roll_back", "pause")),
        on_restart=draw.choice(("resume", "pause")),
        ask=draw.random() < 0.7,
    )


@dataclass(frozen=True)
class Happened:
    """One event, and the service on both sides of it."""

    before: ServiceState
    event: Event
    after: ServiceState
    outcome: Outcome


class Simulation:
    """A service, its environment, and somebody who presses every button."""

    def __init__(self, seed: int, shop: ServiceState) -> None:
        self.draw = random.Random(seed)
        self.state = shop
        self.now = 1_000.0
        self.old_is_available = True
        self.candidate_fails = False
        self.releases = 42
        self.refused = 0

    def run(self) -> Iterator[Happened]:
        for _ in range(EVENTS):
            self.now += self.draw.choice((0.0, 1.0, 1.0, 1.0, 30.0))
            if self.draw.random() < 0.05:
                self.old_is_available = self.draw.random() < 0.7
            if self.draw.random() < 0.05:
                self.candidate_fails = self.draw.random() < 0.4
            if self.state.rolling is None and self.draw.random() < 0.5:
                self.begin()
                continue
            yield from self.happen(self.event())

    def begin(self) -> None:
        """A new start, a plain switch, or a new release in the pool that is not active."""
        idle = next(pool for pool in self.state.pools if pool != self.state.in_charge)
        author = Author(who="ann", at=self.now)
        plan = drawn_plan(self.draw)
        before = self.state
        try:
            if self.draw.random() < 0.2:
                self.releases += 1
                members = (Member(address=f"127.0.0.1:{self.releases}"),)
                filling = Filling(members=members, release=f"v{self.releases}")
                self.state = verbs.set_pool(self.state, idle, filling, author).state
            elif self.draw.random() < 0.2:
                change.check_lockout(self.state, idle, self.now)
                switch = verbs.switch(self.state, idle, author)
                once = change.at_once(20.0, ask=plan.ask)
                self.state = change.switched(self.state, switch, idle, once, author).state
            else:
                self.state = change.begin(self.state, idle, plan, author).state
        except Refusal:
            self.refused += 1
        check_start(before, self.state)

    def event(self) -> Event:
        if self.draw.random() < 0.6:
            return self.tick()
        kind = self.draw.choice(PERSONS + OTHERS)
        return Event(
            kind=kind,
            now=self.now,
            who="file" if kind is Kind.SUPERSEDED else "ann",
            reason=self.draw.choice(("", "because")),
            old_is_available=self.old_is_available,
            weight=self.draw.choice((0, 1, 700, 9_990, WHOLE)),
            lock=self.draw.random() < 0.3,
            force=self.draw.random() < 0.3,
            plan=drawn_plan(self.draw) if kind is Kind.PLAN_CHANGED else None,
        )

    def tick(self) -> Event:
        judged = self.draw.choice((Judged.CONTINUE, Judged.CONTINUE, Judged.PASS, Judged.HOLD))
        if self.candidate_fails and self.draw.random() < 0.5:
            judged = Judged.FAIL
        return Event(
            kind=Kind.TICK,
            now=self.now,
            who="guard",
            reason="errors: too many",
            length_s=1.0,
            requests=self.draw.choice((0, 5, 30)),
            judged=judged,
            old_is_available=self.old_is_available,
            still_fails=self.candidate_fails,
            old_is_no_better=self.draw.random() < 0.2,
        )

    def happen(self, event: Event) -> Iterator[Happened]:
        before = self.state
        phase = before.rollout.phase if before.rollout else None
        try:
            changed, outcome = change.happen(before, event)
        except Refusal as refusal:
            self.refused += 1
            self.check_refusal(refusal.detail, phase, event.kind)
            return
        assert phase is not None
        assert (phase, event.kind) in TABLE
        self.state = changed.state
        check_records(before, changed, event)
        yield Happened(before, event, changed.state, outcome)

    @staticmethod
    def check_refusal(detail: str, phase: Phase | None, kind: Kind) -> None:
        assert detail
        is_known = phase is not None and (phase, kind) in TABLE
        assert not is_known or "has nothing available" in detail


# ---- what holds after every event ----


def check_start(before: ServiceState, after: ServiceState) -> None:
    assert sum(after.shares.values()) == WHOLE
    if after.rollouts > before.rollouts:
        assert after.rolling
        # A deploy that is never ready changes nothing, the lockout neither.
        assert after.rolling.phase is Phase.WARMING or after.lockout is None


def check_records(before: ServiceState, changed: Change, event: Event) -> None:
    """One record for each move; none for a tick that moves only clocks."""
    assert len(changed.decisions) == 1 or event.kind is Kind.TICK
    if changed.state.shares != before.shares or changed.state.lockout != before.lockout:
        assert len(changed.decisions) == 1


def check_weights(happened: Happened) -> None:
    state = happened.after
    rollout = happened.outcome.rollout
    assert sum(state.shares.values()) == WHOLE
    assert all(share >= 0 for share in state.shares.values())
    if rollout.phase in {Phase.WARMING, Phase.ROLLED_BACK}:
        assert state.shares[rollout.candidate] == 0
        assert state.in_charge == rollout.old
    if rollout.phase is Phase.STEADY and happened.event.who != "file":
        assert WHOLE in state.shares.values()
        assert state.is_all_on(state.in_charge)
    if happened.event.kind is Kind.ABORT:
        assert state.shares[rollout.candidate] == 0
    if rollout.phase is Phase.PROMOTED:
        assert state.is_all_on(rollout.candidate)


def check_after_rollback(happened: Happened) -> None:
    """Nothing goes to the candidate until a new start; only an unlock may happen."""
    if _rollout(happened.before).phase is Phase.ROLLED_BACK:
        assert happened.event.kind is Kind.UNLOCK
        assert happened.after.shares == happened.before.shares


def check_steps(happened: Happened) -> None:
    """A step is left by a tick only when it is baked, had its sample, and nothing holds."""
    was, now, event = _rollout(happened.before), happened.outcome.rollout, happened.event
    if event.kind is not Kind.TICK or was.phase is not Phase.BAKING:
        return
    is_gate = now.phase is Phase.PAUSED and now.why is Why.GATE
    is_left = now.step > was.step or now.phase is Phase.PROMOTED or is_gate
    assert now.step >= was.step
    if not is_left:
        return
    assert event.judged in {Judged.CONTINUE, Judged.PASS}
    plan, requests = was.plan, was.had + event.requests
    is_starved = requests < plan.min_requests
    if is_starved:
        assert (now.phase, plan.on_starved) == (Phase.PROMOTED, "promote")
        return
    is_baked = was.baked_s + event.length_s * (event.requests > 0) >= plan.steps[was.step].bake_s
    assert is_baked or (plan.advance, event.judged) == ("evidence", Judged.PASS)


def check_way(happened: Happened) -> None:
    """The step and the weight go back only by hand, by another plan, or all the way."""
    was, now, event = _rollout(happened.before), happened.outcome.rollout, happened.event
    if now.phase is Phase.PROMOTED and was.phase is not Phase.PROMOTED:
        assert (was.phase, event.kind) in MAY_PROMOTE
    if event.judged is Judged.HOLD and event.kind is Kind.TICK and was.phase is Phase.BAKING:
        assert (now.phase, now.step, now.baked_s) == (was.phase, was.step, was.baked_s)
    is_free = event.kind in {Kind.WEIGHTS, Kind.PLAN_CHANGED, Kind.RESUME}
    if not is_free and now.phase in {Phase.BAKING, Phase.PAUSED} and was.phase is not Phase.WARMING:
        assert now.step >= was.step
    if event.kind is Kind.PLAN_CHANGED and was.phase is not Phase.BAKING:
        assert now.weight == was.weight


def check_epochs_and_lockout(happened: Happened) -> None:
    was, now, event = _rollout(happened.before), happened.outcome.rollout, happened.event
    is_back = event.kind is not Kind.SUPERSEDED and (
        (now.phase is Phase.ROLLED_BACK and was.phase is not Phase.ROLLED_BACK)
        or (event.kind in {Kind.ABORT, Kind.WEIGHTS} and now.phase is Phase.STEADY)
    )
    risen = {
        pool
        for pool, epoch in happened.after.epochs.items()
        if epoch != happened.before.epochs.get(pool, 0)
    }
    is_sent = was.phase is not Phase.WARMING
    assert risen == ({now.candidate} if is_back and is_sent else set())
    is_judged = (
        now.phase is Phase.ROLLED_BACK
        and event.kind is Kind.TICK
        and not now.reason.startswith("only ")
    )
    if is_judged or (
        now.phase is Phase.ROLLED_BACK and event.kind is Kind.ROLL_BACK and event.lock
    ):
        assert happened.after.lockout
        assert happened.after.lockout.rollout == now.id
    elif event.kind in {Kind.UNLOCK, Kind.READY}:
        assert happened.after.lockout is None
    else:
        assert happened.after.lockout == happened.before.lockout
    if happened.after.lockout:
        assert now.phase in {Phase.ROLLED_BACK, Phase.WARMING, Phase.STEADY}


def check_store(happened: Happened) -> None:
    plain = json.loads(json.dumps(codec.to_plain(happened.after)))
    assert codec.from_plain(plain) == happened.after


CHECKS = (
    check_weights,
    check_after_rollback,
    check_steps,
    check_way,
    check_epochs_and_lockout,
    check_store,
)


def _rollout(state: ServiceState) -> Rollout:
    assert state.rollout is not None, "something has happened to it"
    return state.rollout


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_in_whatever_order_the_rules_hold(shop: ServiceState, seed: int) -> None:
    for happened in Simulation(seed, shop).run():
        for check in CHECKS:
            check(happened)


def test_the_simulation_goes_everywhere(shop: ServiceState) -> None:
    """Every pair of the table happens in it, or a rule would hold because nothing is tried."""
    seen: Counter[tuple[Phase, Kind]] = Counter()
    refused = 0
    for seed in range(SEEDS):
        simulation = Simulation(seed, shop)
        for happened in simulation.run():
            phase = _rollout(happened.before).phase
            seen[phase, happened.event.kind] += 1
        refused += simulation.refused
    assert set(seen) == set(TABLE)
    assert refused > 100


def test_every_rollout_of_a_healthy_candidate_comes_to_an_end(shop: ServiceState) -> None:
    """With traffic, no HOLD and a person at the gates, nothing waits for ever."""
    for seed in range(SEEDS):
        draw = random.Random(seed)
        plan = replace(drawn_plan(draw), keep_old_s=10.0)
        state = change.begin(shop, "green", plan, Author(who="ann", at=0.0)).state
        state = change.happen(state, Event(kind=Kind.READY, now=0.0))[0].state
        for second in range(1, 200):
            kind = Kind.RESUME if _rollout(state).phase is Phase.PAUSED else Kind.TICK
            event = Event(
                kind=kind, now=float(second), length_s=1.0, requests=10, judged=Judged.CONTINUE
            )
            state = change.happen(state, event)[0].state
            if state.rolling is None:
                break
        assert state.rolling is None, seed
        assert state.is_all_on("green"), seed
