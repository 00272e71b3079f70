"""A rollout, its guard and a lockout in words: pure sentences from the API's service view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from proxy.cli import words

View = Mapping[str, Any]

ENDED = {"steady", "rolled_back"}
"""Phases in which a rollout is over."""


def sentence(service: View) -> str:
    """Where the rollout is, and what it waits for, in one line."""
    said = phase(service)
    waits = waiting(service)
    return f"{said}; {waits}" if waits else said


def phase(service: View) -> str:
    """`step 2 of 4: green 10 %, 3m12s of 5m left`, or what the phase means."""
    rollout = service["rollout"]
    candidate, old, name = rollout["candidate"], rollout["old"], rollout["phase"]
    said = {
        "warming": f"warming: {candidate} gets nothing before it is ready",
        "baking": f"{step(rollout)}: {share(service)}{bake_left(rollout)}",
        "paused": f"paused at {step(rollout)}: {share(service)}{_why_paused(rollout)}",
        "manual": f"manual: {share(service)}, set by hand",
        "promoted": f"promoted: {candidate} has everything",
        "asking": f"asking {old} whether it fares better: {share(service)}",
        "rolled_back": f"rolled back: {old} has everything",
        "stuck": f"stuck: a rollback is due, but {old} has nothing available; {share(service)}",
        "steady": "finished" if is_finished(service) else "ended",
    }.get(name, str(name))
    is_explained = name in {"promoted", "asking", "rolled_back", "stuck", "steady"}
    return f"{said}: {rollout['reason']}" if is_explained and rollout.get("reason") else said


def step(rollout: View) -> str:
    return f"step {rollout['step']} of {len(rollout['steps'])}"


def share(service: View) -> str:
    """`green 10 %`: what the candidate has now."""
    candidate = service["rollout"]["candidate"]
    return f"{candidate} {words.percent(weight(service))}"


def weight(service: View) -> float:
    """The candidate's share in force, percent."""
    return float(service["weights"]["in_force"].get(service["rollout"]["candidate"], 0))


def bake_left(rollout: View) -> str:
    """`, 3m12s of 5m left`; nothing where the step does not bake."""
    if rollout.get("bake_left_s") is None:
        return ""
    whole_s = float(rollout["steps"][rollout["step"] - 1]["bake_s"])
    if not whole_s:
        return ""
    left_s = float(rollout["bake_left_s"])
    return f", {words.duration(left_s)} of {words.duration(whole_s)} left" if left_s else ", baked"


def _why_paused(rollout: View) -> str:
    why, reason = rollout.get("paused"), rollout.get("reason")
    if why == "gate":  # what it waits for says the same as its reason
        reason = None
    return "".join(f" ({each})" for each in [why] if each) + (f": {reason}" if reason else "")


def is_finished(service: View) -> bool:
    """The candidate is the pool in charge, with everything."""
    rollout = service["rollout"]
    is_over = rollout["phase"] in {"promoted", "steady"}
    return is_over and service["active"] == rollout["candidate"] and weight(service) == 100


def waiting(service: View) -> str:
    """What it waits for that is not time alone: checks, a person, requests, the judge."""
    rollout, name = service["rollout"], service["name"]
    match rollout["phase"]:
        case "warming":
            return "; ".join(not_ready(service))
        case "paused" | "manual":
            return f"waits for a person ('turnout rollout resume {name}', promote or abort)"
        case "baking":
            return ", ".join(filter(None, [missing(rollout), held(service.get("guard"))]))
        case "promoted":
            return held(service.get("guard"))
        case _:
            return ""


def not_ready(service: View) -> Iterator[str]:
    """The candidate's endpoints that are not available yet, and why: mostly their last check."""
    pool = service["pools"].get(service["rollout"]["candidate"]) or {}
    for endpoint in pool.get("endpoints") or []:
        if endpoint.get("available") or endpoint.get("leaving"):
            continue  # what leaves is the release before
        yield f"{endpoint['address']}: {_said(endpoint)}"


def _said(endpoint: View) -> str:
    if endpoint.get("ejected") and endpoint.get("up"):  # then its checks are not what is amiss
        return f"ejected: {endpoint.get('ejected_why') or 'it failed too often'}"
    return str(endpoint.get("last_check") or endpoint.get("state") or "not reachable")


def missing(rollout: View) -> str:
    """`waits for 88 of 100 requests`: what the step's sample still lacks."""
    lacking = int(rollout.get("min_requests") or 0) - int(rollout.get("requests") or 0)
    if lacking <= 0:
        return ""
    return f"waits for {words.number(lacking)} of {words.count(rollout['min_requests'], 'request')}"


def held(guard: View | None) -> str:
    """`held: baseline degraded: ...`: the clock stands while it lasts."""
    if not guard or guard.get("verdict") != "HOLD":
        return ""
    said = told(guard.get("reason"), guard.get("words"))
    return f"held: {said}" if said else "held"


def verdict(guard: View | None) -> str:
    """What the guard says when it is not simply to go on; empty otherwise."""
    if not guard or guard.get("verdict") in {None, "CONTINUE"}:
        return ""
    said = told(guard.get("reason"), guard.get("words"))
    only = " (it only observes)" if guard.get("mode") == "observe" else ""
    return f"guard says {guard['verdict']}{only}" + (f": {said}" if said else "")


def evidence(guard: View | None) -> str:
    """`evidence 0.3 of 5.3 (errors)`: the test that is nearest to its bar."""
    tests = [test for test in (guard or {}).get("tests") or [] if float(test["bar"]) > 0]
    if not tests:
        return ""
    nearest = max(tests, key=lambda test: float(test["evidence"]) / float(test["bar"]))
    return (
        f"evidence {float(nearest['evidence']):.1f} of {float(nearest['bar']):.1f}"
        f" ({nearest['name']})"
    )


def sides(guard: View | None) -> str:
    """`failed in the last second: green 0 of 10, blue 1 of 90`."""
    found = (guard or {}).get("sides") or {}
    if not found:
        return ""
    said = ", ".join(
        f"{pool} {words.number(int(side['errors']))} of {words.number(int(side['requests']))}"
        for pool, side in found.items()
    )
    return f"failed in the last second: {said}"


def lockout(service: View, now: datetime) -> str:
    """`v42 is locked out since 3m12s ago ...`, and how it ends; empty when nothing is."""
    locked = service.get("lockout")
    if not locked:
        return ""
    ago = words.ago(locked.get("since"), now)
    until = None if locked.get("until") is None else words.moment(locked["until"])
    rollout = service.get("rollout") or {}
    is_told = rollout.get("id") == locked.get("rollout") and rollout.get("phase") == "rolled_back"
    parts = [
        f"{locked['release']} is locked out",
        f" ({ago})" if ago else "",
        f": {locked['reason']}" if locked.get("reason") and not is_told else "",
        f"; for {words.duration((until - now).total_seconds())} more" if until else "",
        f"; 'turnout unlock {service['name']}' lifts it",
    ]
    return "".join(parts)


def title(rollout: View) -> str:
    """`rollout 12 to green (v42)`."""
    release = f" ({rollout['release']})" if rollout.get("release") else ""
    return f"rollout {rollout['id']} to {rollout['candidate']}{release}"


def told(reason: str | None, said: str | None) -> str:
    """A verdict's reason and its numbers in words; those of a test begin with its name."""
    if reason and said and not said.startswith(reason):
        return f"{reason}: {said}"
    return said or reason or ""
