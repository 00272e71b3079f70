"""What will go wrong, when and where: drawn from a seed, the same every time (pure)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from tests.chaos.fault_proxy import Fault

Trouble = Literal[
    "restart",
    "kill",
    "freeze",
    "refuse",
    "reset_at_connect",
    "reset_before",
    "reset_within",
    "cut",
    "half_close",
    "delay",
    "drip",
    "black_hole",
]
TROUBLES: tuple[Trouble, ...] = get_args(Trouble)

START_S = 1.0
ROLLING: tuple[Trouble, ...] = ("restart", "kill")
"""How the first pool is restarted, round by round."""
RESTART_S, RESTART_EVERY_S = 0.8, 2.0
SETTLE_S = 4.0
"""After the last trouble, before everything must be well: longer than any timeout of the test."""
CALM_S = 4.0
REST_S = 0.5
"""From one trouble of an endpoint to its next: a process has to start in between."""


@dataclass(frozen=True, slots=True)
class Event:
    """From `at_s` on, for `lasts_s` seconds, an endpoint (by its number) is in trouble."""

    at_s: float
    endpoint: int
    what: Trouble
    lasts_s: float

    @property
    def ends_s(self) -> float:
        return self.at_s + self.lasts_s


@dataclass(frozen=True, slots=True)
class Plan:
    """Three parts: a rolling restart, trouble of all kinds, calm."""

    seed: int
    events: tuple[Event, ...]
    trouble_s: float
    """When the rolling restart is over."""
    calm_s: float
    """When all must be well again."""
    ends_s: float

    def part(self, at_s: float) -> str:
        if at_s < self.trouble_s:
            return "rolling restart"
        return "trouble" if at_s < self.calm_s else "calm"


def make(seed: int, seconds: float, pools: tuple[int, ...]) -> Plan:
    """Plan so many seconds of trouble for pools of these sizes; endpoints are numbered through.

    The first pool is restarted one by one, first by asking, then by SIGKILL. After that never more than half of a pool is in
    trouble at a time, and every kind of trouble comes once before one comes again.
    """
    rounds: list[tuple[Trouble, int]] = [
        (what, number) for what in ROLLING for number in range(pools[0])
    ]
    rolling = [
        Event(START_S + turn * RESTART_EVERY_S, number, what, RESTART_S)
        for turn, (what, number) in enumerate(rounds)
    ]
    trouble_s = START_S + len(rounds) * RESTART_EVERY_S
    calm_s = max(seconds - CALM_S, trouble_s + SETTLE_S)
    drawn = list(_trouble(random.Random(seed), trouble_s, calm_s - SETTLE_S, pools))
    return Plan(seed, (*rolling, *drawn), trouble_s, calm_s, calm_s + CALM_S)


def fault(what: Trouble) -> Fault | None:
    """What the fault proxy does meanwhile; None where it is done to the process."""
    if what in {"restart", "kill", "freeze"}:
        return None
    seconds, size = {"delay": (0.4, 1), "drip": (0.05, 200)}.get(what, (0.0, 1))
    return Fault(what, seconds, size)  # type: ignore[arg-type]  # the rest are kinds of faults


def _trouble(
    draw: random.Random, begins_s: float, ends_s: float, pools: tuple[int, ...]
) -> Iterator[Event]:
    kinds = _in_turns(draw)
    busy: list[Event] = []
    at_s = begins_s
    while (at_s := at_s + draw.uniform(0.3, 1.7)) < ends_s:
        busy = [event for event in busy if event.ends_s + REST_S >= at_s]
        free = _free(pools, {event.endpoint for event in busy})
        if not free:
            continue
        lasts_s = min(draw.uniform(0.5, 4.0), ends_s - at_s)
        event = Event(round(at_s, 3), draw.choice(free), next(kinds), round(lasts_s, 3))
        busy.append(event)
        yield event


def _in_turns(draw: random.Random) -> Iterator[Trouble]:
    while True:
        yield from draw.sample(TROUBLES, len(TROUBLES))


def _free(pools: tuple[int, ...], busy: set[int]) -> list[int]:
    """Endpoints that may get into trouble now."""
    firsts = itertools.accumulate(pools, initial=0)
    members = [range(first, first + size) for first, size in zip(firsts, pools, strict=False)]
    return [
        number
        for pool in members
        if len(busy.intersection(pool)) + 1 <= len(pool) / 2
        for number in pool
        if number not in busy
    ]
