"""Durations as people write them in bodies and queries: `250ms`, `30s`, `1h30m`."""

from __future__ import annotations

import re

import durationpy

# durationpy skips what it does not know between two parts ("5m?3s"), and knows months.
_WRITTEN = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+|0", re.ASCII)
_LONGEST = 40
EXPECTED = 'expected a duration such as "30s", "2h" or "1h30m"'


def seconds(text: str) -> float:
    """Return the seconds of a written duration; ValueError with a sentence when it is none."""
    if len(text) > _LONGEST or not _WRITTEN.fullmatch(text):
        raise ValueError(f"{text[:_LONGEST]!r} is no duration ({EXPECTED})")
    try:
        return float(durationpy.from_str(text).total_seconds())
    except durationpy.DurationError as error:
        raise ValueError(f"{text!r} is too long a duration") from error
