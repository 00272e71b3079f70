"""The cases, by suite: what a judge must find, how soon, and what it must not turn back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import cos, pi
from random import Random

from benchmarks.judge.asking import run_asking
from benchmarks.judge.chance import poisson
from benchmarks.judge.clients import Broken as BrokenClient
from benchmarks.judge.clients import Clients
from benchmarks.judge.measure import Broken, Case, Healthy
from benchmarks.judge.traffic import Rate, Traffic, always, during, from_second, stairs
from proxy.policy.judge import Judge, Knobs
from proxy.policy.judge.record import upper_bound

HOUR = 3_600
RATES = (10, 100, 1_000)
STEPS = stairs((0, 0.01), (900, 0.05), (1_800, 0.20), (2_700, 0.50))


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def _same(**more: object) -> partial[Traffic]:
    return partial(Traffic, seconds=HOUR, **more)  # type: ignore[arg-type]


# ---- healthy ----


def null() -> Iterator[Case]:
    for rps in RATES:
        for share in (0.001, 0.01, 0.05):
            name = f"{rps} a second, {percent(share)} errors"
            same = always(share)
            traffic = Traffic(rps=rps, candidate=same, active=same, seconds=HOUR)
            yield Case(name, traffic, Healthy(0.01))


def outage() -> Iterator[Case]:
    for rps in RATES:
        for share in (0.001, 0.01):
            both = during(share, 0.30, 1_200, 1_500)
            name = f"{rps} a second, {percent(share)}, both 30 % for 5 minutes"
            traffic = Traffic(rps=rps, candidate=both, active=both, seconds=HOUR)
            yield Case(name, traffic, Healthy(0.01))
    both = during(0.001, 1.0, 1_200, 1_260)
    traffic = Traffic(candidate=both, active=both, seconds=HOUR)
    yield Case("100 a second, both 100 % for a minute", traffic, Healthy(0.01))
    traffic = Traffic(
        active=during(0.001, 0.30, 1_200, 1_500),
        candidate=during(0.001, 0.34, 1_200, 1_500),
        seconds=HOUR,
    )
    yield Case("100 a second, active 30 %, candidate 34 % for 5 minutes", traffic, Healthy(0.05))


def drift() -> Iterator[Case]:
    for rps in RATES:
        rise = stairs((0, 0.005), (1_800, 0.02))
        traffic = Traffic(rps=rps, part=STEPS, candidate=rise, active=rise, seconds=HOUR)
        yield Case(f"{rps} a second, steps, errors 0.5 % then 2 %", traffic, Healthy(0.01))
        day = _daily(0.003, 6)
        traffic = Traffic(
            rps=_daily(rps / 2, 3), part=STEPS, candidate=day, active=day, seconds=HOUR
        )
        name = f"{rps} a second, steps, errors 0.3 to 1.8 % and traffic x 3 with the time of day"
        yield Case(name, traffic, Healthy(0.01))
        for deviation, most in ((0.10, 0.03), (0.20, None)):
            traffic = Traffic(
                rps=rps,
                candidate=always(0.01),
                active=always(0.01),
                errors_wander=(deviation, 120.0),
                seconds=HOUR,
            )
            name = f"{rps} a second, 1 %, each pool wanders by {percent(deviation)} by itself"
            yield Case(name, traffic, Healthy(most))


def _daily(base: float, factor: float) -> Rate:
    """From the base up to `factor` times as much and back within the hour."""
    return lambda second: base * (1 + (factor - 1) * 0.5 * (1 - cos(2 * pi * second / HOUR)))


def clients() -> Iterator[Case]:
    for rps in (10, 100):
        for share in (0.001, 0.01):
            given = partial(Clients, rps=rps, share=share)
            name = f"{rps} a second, {percent(share)}"
            one = BrokenClient(1.0, 600, HOUR, "any")
            yield Case(
                f"{name}, one broken client sticks to a pool by weight",
                given(broken=one),
                Healthy(0.02),
            )
            one = BrokenClient(0.5, 600, HOUR, "candidate")
            yield Case(
                f"{name}, one broken client on the candidate", given(broken=one), Healthy(0.10)
            )
            one = BrokenClient(20.0, 600, 630, "candidate")
            yield Case(
                f"{name}, one client fails 600 times in half a minute",
                given(broken=one),
                Healthy(0.05),
            )
            yield Case(
                f"{name}, 200 clients, 5 % of them fail a fifth",
                given(count=200, zipf=0.8, heavy=(0.05, 0.2)),
                Healthy(0.05),
            )
            yield Case(
                f"{name}, 2,000 clients that fail unequally often",
                given(count=2_000, zipf=0.5, error_sigma=1.5),
                Healthy(0.03),
            )


# ---- very unequal shares ----


def shares() -> Iterator[Case]:
    for part in (0.01, 0.5, 0.99):
        same = always(0.01)
        traffic = Traffic(part=part, candidate=same, active=same, seconds=HOUR)
        yield Case(f"candidate has {percent(part)}, 1 % errors", traffic, Healthy(0.01))
    both = during(0.001, 0.30, 1_200, 1_500)
    for part in (0.01, 0.5, 0.99):
        traffic = Traffic(part=part, candidate=both, active=both, seconds=HOUR)
        name = f"candidate has {percent(part)}, both 30 % for 5 minutes"
        yield Case(name, traffic, Healthy(0.01))
    for part, worse, least, most_s in (
        (0.01, 0.05, 0.95, 240),
        (0.5, 0.05, 0.95, 20),
        (0.99, 0.05, 0.95, 240),
        (0.01, 0.5, 0.99, 40),
        (0.5, 0.5, 0.99, 5),
        (0.99, 0.5, 0.99, 30),
    ):
        traffic = Traffic(part=part, candidate=from_second(0.001, worse, 600), seconds=HOUR)
        name = f"candidate has {percent(part)}, 0.1 % to {percent(worse)}"
        yield Case(name, traffic, Broken(least, most_s, since=600))


# ---- broken ----

CHANGES = ((0.01, 0.02), (0.001, 0.05), (0.001, 0.50), (0.001, 1.0))
FOUND: dict[tuple[int, float], tuple[float, float]] = {
    (10, 0.05): (0.95, 360),
    (10, 0.50): (0.99, 60),
    (10, 1.0): (0.99, 30),
    (100, 0.02): (0.75, 1_800),
    (100, 0.05): (0.99, 60),
    (100, 0.50): (0.99, 12),
    (100, 1.0): (0.99, 5),
    (1_000, 0.02): (0.99, 420),
    (1_000, 0.05): (0.99, 10),
    (1_000, 0.50): (0.99, 5),
    (1_000, 1.0): (0.99, 3),
}
"""Requests a second and the candidate's share of errors -> least found, longest median."""


def _detection(since: float, part: float) -> Iterator[Case]:
    for share, worse in CHANGES:
        for rps in RATES:
            least, most_s = FOUND.get((rps, worse), (0.0, None))
            if since and worse == 0.02 and rps == 100:  # half of the hour is over
                least = 0.5
            traffic = Traffic(
                rps=rps,
                part=part,
                active=always(share),
                candidate=from_second(share, worse, since),
                seconds=HOUR,
            )
            name = f"{percent(share)} to {percent(worse)}, {rps} a second"
            yield Case(name, traffic, Broken(least, most_s, since))


def broken_from_the_start() -> Iterator[Case]:
    return _detection(0, 0.05)


def broken_after_half_an_hour() -> Iterator[Case]:
    return _detection(1_800, 0.05)


def broken_at_half_of_the_traffic() -> Iterator[Case]:
    return _detection(0, 0.5)


# ---- latency ----


def latency_null() -> Iterator[Case]:
    same = _same(slower=always(1.0))
    for rps in (10, 100):
        for name, traffic, most in (
            ("alike", same(rps=rps), 0.01),
            (
                "both three times as slow for 5 minutes",
                same(rps=rps, both_slower=during(1, 3, 1_200, 1_500)),
                0.01,
            ),
            (
                "stalls of a second or two, each pool by itself",
                same(rps=rps, stalls=(0.02, 1.0, 0.2)),
                0.05,
            ),
            ("each pool wanders by 5 %", same(rps=rps, latency_wanders=(0.05, 120.0)), 0.05),
            (
                "stalls of ten seconds, each pool by itself",
                same(rps=rps, stalls=(0.003, 10.0, 0.1)),
                0.05,
            ),
            ("each pool wanders by 10 %", same(rps=rps, latency_wanders=(0.10, 120.0)), None),
        ):
            yield Case(f"{rps} a second, {name}", traffic, Healthy(most))
        sticky = Clients(rps=rps, count=200, zipf=0.8, latency_sigma=0.8)
        name = f"{rps} a second, 200 clients that are unequally slow"
        yield Case(name, sticky, Healthy(0.05))


SLOWER: dict[tuple[int, str], tuple[float, float]] = {
    (10, "+100 %"): (0.99, 240),
    (100, "+50 %"): (0.99, 180),
    (100, "+100 %"): (0.99, 60),
    (100, "3 % of the answers x 10"): (0.95, 300),
}


def latency_broken() -> Iterator[Case]:
    kinds: tuple[tuple[str, dict[str, object]], ...] = (
        ("+20 %", {"slower": from_second(1, 1.2, 600)}),
        ("+50 %", {"slower": from_second(1, 1.5, 600)}),
        ("+100 %", {"slower": from_second(1, 2.0, 600)}),
        ("1 % of the answers x 10", {"tail": (600, 0.01, 10), "slower": always(1.0)}),
        ("3 % of the answers x 10", {"tail": (600, 0.03, 10), "slower": always(1.0)}),
    )
    for name, keys in kinds:
        for rps in RATES:
            if rps == 1_000 and name not in {"+20 %", "1 % of the answers x 10"}:
                continue
            least, most_s = SLOWER.get((rps, name), (0.0, None))
            seconds = HOUR if rps < 1_000 else 1_500
            traffic = Traffic(rps=rps, seconds=seconds, **keys)  # type: ignore[arg-type]
            yield Case(f"{name}, {rps} a second", traffic, Broken(least, most_s, since=600))


# ---- others ----


def others() -> Iterator[Case]:
    yield Case("the candidate gets no traffic", Traffic(part=0.0, seconds=HOUR), Healthy(0.0))
    traffic = Traffic(refused=(0.02, 0.02), seconds=HOUR)
    yield Case("4xx: 2 % of both", traffic, Healthy(0.01))
    traffic = Traffic(refused=(0.02, 0.30), seconds=HOUR)
    yield Case("4xx: 30 % instead of 2 %", traffic, Broken(0.99, 60))
    lenient = Knobs(count_4xx=False)
    yield Case("4xx: the same, not counted", traffic, Healthy(0.0), knobs=lenient)


# ---- everything on the candidate ----


def at_everything() -> Iterator[Case]:
    alone = partial(Traffic, part=1.0, seconds=HOUR)
    yield Case("no record, 1 %", alone(candidate=always(0.01)), Healthy(0.0))
    traffic = alone(candidate=from_second(0.01, 0.6, 600))
    yield Case("no record, 1 % to 60 %", traffic, Broken(0.99, 30, since=600))
    for rps in RATES:
        for share in (0.001, 0.01):
            begin = partial(_with_record, rps, share)
            name = f"record of {percent(share)}, {rps} a second"
            traffic = alone(rps=rps, candidate=always(share))
            yield Case(f"{name}, no change", traffic, Healthy(0.01), begin)
    for rps, share, worse, least, most_s in (
        (10, 0.001, 0.05, 0.99, 120),
        (100, 0.001, 0.05, 0.99, 12),
        (1_000, 0.001, 0.05, 0.99, 5),
        (10, 0.01, 0.05, 0.95, 240),
        (100, 0.01, 0.03, 0.99, 240),
        (1_000, 0.01, 0.03, 0.99, 240),
    ):
        begin = partial(_with_record, rps, share)
        traffic = alone(rps=rps, candidate=from_second(share, worse, 600))
        name = f"record of {percent(share)}, {rps} a second, to {percent(worse)}"
        yield Case(name, traffic, Broken(least, most_s, since=600), begin)


def _with_record(rps: float, share: float, judge: Judge, seed: int) -> None:
    """The old pool's last quarter of an hour, with its own chance."""
    draw = Random(f"record {seed}")
    requests = poisson(draw, rps * 900)
    errors = poisson(draw, rps * 900 * share)
    judge.watch(upper_bound(errors, requests, 0.01 / 4))


def asking() -> Iterator[Case]:
    thirty = during(0.001, 0.30, 600, 900)
    for name, candidate, active, rps, expected in (
        ("alone, 30 %, 100 a second", from_second(0.001, 0.3, 600), 0.001, 100, (0.99, 20)),
        ("alone, 100 %, 100 a second", from_second(0.001, 1.0, 600), 0.001, 100, (0.99, 12)),
        ("alone, 5 %, 100 a second", from_second(0.001, 0.05, 600), 0.001, 100, (0.99, 30)),
        ("alone, 30 %, 10 a second", from_second(0.001, 0.3, 600), 0.001, 10, (0.99, 40)),
    ):
        traffic = Traffic(rps=rps, candidate=candidate, active=always(active), seconds=1_800)
        yield Case(name, traffic, Broken(*expected, since=600), run=run_asking)
    for name, both, rps, most in (
        ("both, 30 % for 5 minutes, 100 a second", thirty, 100, 0.10),
        ("both, 30 % for 5 minutes, 1000 a second", thirty, 1_000, 0.05),
        ("both, 100 % for a minute, 100 a second", during(0.001, 1.0, 600, 660), 100, 0.05),
        ("both, 30 % for 5 minutes, 10 a second", thirty, 10, None),
    ):
        traffic = Traffic(rps=rps, candidate=both, active=both, seconds=1_800)
        yield Case(name, traffic, Healthy(most), run=run_asking)
    later = stairs((0, 0.001), (600, 0.3), (700, 0.001), (1_200, 0.3))
    traffic = Traffic(
        rps=1_000, candidate=later, active=during(0.001, 0.3, 600, 700), seconds=1_800
    )
    name = "both for 100 s, and later alone, 30 %, 1000 a second"
    yield Case(name, traffic, Broken(0.99, 20, since=1_200), run=run_asking)


@dataclass(frozen=True)
class Suite:
    title: str
    cases: Callable[[], Iterator[Case]]
    runs: int
    """Of each case, with SCALE=1."""


SUITES = {
    "null": Suite("Both pools alike", null, 60),
    "outage": Suite("Shared outages", outage, 40),
    "drift": Suite("Rates that change with time", drift, 24),
    "clients": Suite("Clients that stick and differ", clients, 20),
    "shares": Suite("Very unequal shares", shares, 20),
    "start": Suite("Broken from the start", broken_from_the_start, 40),
    "late": Suite("Broken after half an hour", broken_after_half_an_hour, 24),
    "half": Suite("Broken, at half of the traffic", broken_at_half_of_the_traffic, 24),
    "latency-null": Suite("Latency: healthy", latency_null, 10),
    "latency": Suite("Latency: slower after ten minutes", latency_broken, 10),
    "others": Suite("No traffic, and answers of class 4xx", others, 12),
    "everything": Suite("Everything on the candidate", at_everything, 20),
    "asking": Suite("Everything on the candidate, and the old pool is asked", asking, 20),
}
