"""A tick of a rollout as bytes and back, so that the guard's last hours can be judged again.

Most of a tick is lists with few numbers other than zero: they are written as pairs of place
and number, as JSON, compressed. A quiet second takes some 200 bytes, a busy one about 1 KB.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any

from proxy.control.rollout.machine import Phase, Rollout
from proxy.policy.judge import BUCKETS, Call, Counts, Knobs, Tick, Verdict
from proxy.stats import BINS

FORMAT = 1
MOST_PLAIN = 1 << 20
"""Bytes of a tick before compression; what claims to be more is no tick of ours."""
_LEVEL = 6
_DEFAULTS = asdict(Knobs())

_LISTS = {
    "requests_by": (BUCKETS, 1.0),
    "errors_by": (BUCKETS, 1.0),
    "refused_by": (BUCKETS, 1.0),
    "latencies": (BINS, 1.0),
    "latency_counts": (BUCKETS, 1.0),
    "log_sums": (BUCKETS, 1.0),
    "log_squares": (BUCKETS, 1.0),
}
"""Their length, and what makes whole numbers of them."""


class Mark(Enum):
    """What has happened between the tick before and this one."""

    NONE = ""
    STEP = "step"
    """The weights have changed."""
    ANEW = "anew"
    """Another judge has begun, without evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taped:
    """One tick, where the rollout stood, and what the judge said then."""

    tick: Tick
    mark: Mark = Mark.NONE
    # the rollout
    candidate: str
    old: str
    release: str | None = None
    phase: Phase
    step: int = 0
    weight: int = 0
    """The candidate's share, in hundredths of a percent."""
    # the judge
    mode: str = "enforce"
    knobs: Knobs
    call: Call
    reason: str = ""
    words: str = ""
    """Of a FAIL alone: those of the others can be had again."""


def taped(
    rollout: Rollout,
    tick: Tick,
    verdict: Verdict,
    *,
    mark: Mark,
    mode: str,
    knobs: Knobs,
) -> Taped:
    """What is to be kept of a tick; `rollout` as it was before the tick moved it."""
    return Taped(
        tick=tick,
        mark=mark,
        candidate=rollout.candidate,
        old=rollout.old,
        release=rollout.release,
        phase=rollout.phase,
        step=rollout.step,
        weight=rollout.weight,
        mode=mode,
        knobs=knobs,
        call=verdict.call,
        reason=verdict.reason,
        words=verdict.words if verdict.call is Call.FAIL else "",
    )


def encode(each: Taped) -> bytes:
    text = json.dumps(to_plain(each), separators=(",", ":"), allow_nan=False)
    return zlib.compress(text.encode(), _LEVEL)


def to_plain(each: Taped) -> dict[str, Any]:
    """Values for JSON."""
    knobs = {key: value for key, value in asdict(each.knobs).items() if value != _DEFAULTS[key]}
    return {
        "format": FORMAT,
        "at_s": round(each.tick.at_s, 4),
        "length_s": round(each.tick.length_s, 4),
        "counts": [_counts(each.tick.candidate), _counts(each.tick.active)],
        "mark": each.mark.value,
        "candidate": each.candidate,
        "old": each.old,
        "release": each.release,
        "phase": each.phase.value,
        "step": each.step,
        "weight": each.weight,
        "mode": each.mode,
        "knobs": knobs,
        "call": each.call.value,
        "reason": each.reason,
        "words": each.words,
    }


def decode(data: bytes) -> Taped:
    """Read what `encode` wrote; ValueError when it is nothing of the kind."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, MOST_PLAIN)
    except zlib.error as error:
        raise ValueError(f"not a recorded tick: {error}") from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("not a recorded tick: too long, or cut off")
    return from_plain(json.loads(text))


def from_plain(plain: Any) -> Taped:
    """Read what `to_plain` gave; ValueError when it is nothing of the kind."""
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise ValueError("not a recorded tick, or one of another version")
    try:
        return _taped(plain)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a recorded tick: {error!r}") from error


def _taped(plain: dict[str, Any]) -> Taped:
    candidate, active = plain["counts"]
    tick = Tick(
        at_s=float(plain["at_s"]),
        length_s=float(plain["length_s"]),
        candidate=_counted(candidate),
        active=_counted(active),
    )
    release = plain["release"]
    return Taped(
        tick=tick,
        mark=Mark(plain["mark"]),
        candidate=str(plain["candidate"]),
        old=str(plain["old"]),
        release=None if release is None else str(release),
        phase=Phase(plain["phase"]),
        step=int(plain["step"]),
        weight=int(plain["weight"]),
        mode=str(plain["mode"]),
        knobs=_knobs(plain["knobs"]),
        call=Call(plain["call"]),
        reason=str(plain["reason"]),
        words=str(plain["words"]),
    )


def _knobs(changed: dict[str, Any]) -> Knobs:
    """Unknown ones are of a later version, and passed over."""
    known = {each.name for each in fields(Knobs)}
    return Knobs(**{key: value for key, value in changed.items() if key in known})


# ---- the counts of a pool ----


def _counts(counts: Counts) -> dict[str, Any]:
    plain: dict[str, Any] = {"sums": [counts.requests, counts.errors, counts.refused]}
    for name, (_, scale) in _LISTS.items():
        numbers: Sequence[float] | None = getattr(counts, name)
        if numbers is not None:
            plain[name] = _sparse(numbers, scale)
    return plain


def _counted(plain: dict[str, Any]) -> Counts:
    requests, errors, refused = (int(each) for each in plain["sums"])
    counts = Counts(requests=requests, errors=errors, refused=refused)
    for name, (length, scale) in _LISTS.items():
        if name in plain:
            setattr(counts, name, _dense(plain[name], length, scale))
    return counts


def _sparse(numbers: Sequence[float], scale: float) -> list[int]:
    """Place, number, place, number; each place as its distance from the one before."""
    pairs: list[int] = []
    last = 0
    for place, number in enumerate(numbers):
        if number:
            pairs += (place - last, round(number * scale))
            last = place
    return pairs


def _dense(pairs: list[int], length: int, scale: float) -> list[float]:
    numbers: list[float] = [0] * length
    place = 0
    for distance, number in zip(pairs[::2], pairs[1::2], strict=True):
        place += distance
        if not 0 <= place < length:
            raise ValueError("not a recorded tick: a list is too long")
        numbers[place] = int(number) if scale == 1.0 else int(number) / scale
    return numbers
