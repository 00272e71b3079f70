"""What the API's values are called when a person reads them: shares, durations, drains."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

CLASSES = ("request", "stream", "tunnel")


def percent(value: float) -> str:
    """`90 %`, `37.5 %`, `0.25 %`: two decimals at most, none that say nothing."""
    return f"{value:.2f}".rstrip("0").rstrip(".") + " %"


def shares(weights: Mapping[str, float]) -> str:
    """`blue 90 %, green 10 %`; pools without a share go unnamed if one has all."""
    whole = [pool for pool, weight in weights.items() if weight == 100]
    named = {whole[0]: 100} if whole else weights
    return ", ".join(f"{pool} {percent(weight)}" for pool, weight in named.items())


def traffic(weights: Mapping[str, float]) -> str:
    """The same as the end of a sentence: `all traffic to green`."""
    whole = [pool for pool, weight in weights.items() if weight == 100]
    return f"all traffic to {whole[0]}" if whole else shares(weights)


def duration(seconds: float) -> str:
    """Two units at most: `0.4s`, `12s`, `4m58s`, `2h5m`, `3d4h`."""
    if seconds < 1:
        return f"{max(seconds, 0):.1f}s".replace("0.0s", "0s")
    whole = int(seconds)
    for unit, size, below, smaller in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f"{rest}{below}" if rest else "")
    return f"{whole}s"


def number(value: int) -> str:
    """`10 220`: thousands apart."""
    return f"{value:,}".replace(",", " ")


def count(value: int, noun: str) -> str:
    return f"{number(value)} {noun}" + ("" if value == 1 else "s")


def remaining(left: Mapping[str, int]) -> str:
    """`3 requests, 1 tunnel`; an empty string when nothing is left."""
    named = [count(left[kind], kind) for kind in CLASSES if left.get(kind)]
    return ", ".join(named)


def is_empty(drain: Mapping[str, Any]) -> bool:
    return not any(drain.get("remaining", {}).values())


def drained(drain: Mapping[str, Any]) -> str:
    """What drains: `blue`, or `127.0.0.1:9001 of blue`."""
    pool = str(drain.get("pool") or "")
    endpoint = drain.get("endpoint")
    return f"{endpoint} of {pool}" if endpoint else pool


def drain_sentence(drain: Mapping[str, Any]) -> str:
    """`blue drains: 3 requests, 1 tunnel, 4m58s left.` or that it is empty."""
    if is_empty(drain):
        return f"{drained(drain)} is empty{_cut(drain)}."
    return f"{drained(drain)} drains: {remaining(drain['remaining'])}, {duration(_left_s(drain))} left."


def _left_s(drain: Mapping[str, Any]) -> float:
    """Until the deadline of what is left: mere requests have an earlier one than streams."""
    kinds = {kind for kind, left in drain["remaining"].items() if left}
    key = "requests_left_s" if kinds == {"request"} and "requests_left_s" in drain else "deadline_s"
    return float(drain.get(key) or 0)


def _cut(drain: Mapping[str, Any]) -> str:
    cut = remaining(drain.get("cut") or {})
    return f" ({cut} cut at the deadline)" if cut else ""


def held(hold: Mapping[str, Any]) -> str:
    """`57 requests wait`."""
    waiting = int(hold.get("held") or 0)
    return f"{count(waiting, 'request')} wait" + ("s" if waiting == 1 else "")


def hold_bounds(hold: Mapping[str, Any]) -> str:
    """`at most 1 000, 30s each`."""
    each = duration(float(hold.get("timeout_s") or 0))
    return f"at most {number(int(hold.get('most') or 0))}, {each} each"


def hold_sentence(hold: Mapping[str, Any], now: datetime) -> str:
    """What an operator must not overlook: since when, by whom, how many wait, what comes next."""
    if hold.get("releasing"):
        left = duration(float(hold.get("release_left_s") or 0))
        return f"being released: {held(hold)} for a turn, {left} left"
    since = ago(hold.get("since"), now)
    until = None if hold.get("until") is None else moment(hold["until"])
    parts = [
        f"on hold by {hold.get('by')}" + (f" {since}" if since else ""),
        f": {hold['reason']}" if hold.get("reason") else "",
        f"; {held(hold)} ({hold_bounds(hold)})",
        f"; for {duration((until - now).total_seconds())} more" if until else "",
    ]
    return "".join(parts)


def item_line(item: Mapping[str, Any]) -> str:
    """One exchange that is left: class, age, endpoint, route."""
    kind = str(item.get("kind") or item.get("class") or "request")
    age = duration(float(item.get("age_s") or 0))
    return f"{kind:8} {age:>6}  {item.get('endpoint', '')}  {item.get('route', '')}".rstrip()


def moment(value: float | str) -> datetime | None:
    """A point in time of the API: ISO 8601 or seconds since the epoch."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return None
    return datetime.fromtimestamp(value, UTC)


def ago(value: float | str | None, now: datetime) -> str:
    """`3m12s ago`; empty when the API did not say when."""
    at = None if value is None else moment(value)
    return "" if at is None else f"{duration((now - at).total_seconds())} ago"


def setting(value: Any) -> str:
    """A value of a setting in words: weights as shares, endpoints by address."""
    if isinstance(value, Mapping):
        if value and all(isinstance(share, int | float) for share in value.values()):
            return shares(value)
        if isinstance(value.get("endpoints"), list):
            release = f" ({value['release']})" if value.get("release") else ""
            return setting(value["endpoints"]) + release
        if isinstance(value.get("address"), str):
            return str(value["address"])
        said = {key: inner for key, inner in value.items() if inner is not None}
        return ", ".join(f"{key} {setting(inner)}" for key, inner in said.items())
    if isinstance(value, list | tuple):
        return ", ".join(setting(inner) for inner in value) or "none"
    return "none" if value is None else str(value)
