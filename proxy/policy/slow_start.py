"""How the share of an endpoint grows that is new, up again or readmitted."""

from __future__ import annotations

READMIT_S = 5.0
"""After an ejection the share grows for so long at least: whatever was wrong may be wrong still."""

FIRST_PART = 0.1
"""Where it begins, as a part of the endpoint's weight."""


def part(now: float, *, since: float, readmitted_at: float, slow_start_s: float) -> float:
    """The part of its weight that an endpoint has now, up to 1: the smaller of both ramps."""
    return min(
        _ramp(now - since, slow_start_s),
        _ramp(now - readmitted_at, max(slow_start_s, READMIT_S)),
    )


def _ramp(elapsed_s: float, length_s: float) -> float:
    # The board may have been written a moment after the look that reads it took its time.
    if elapsed_s >= length_s or length_s <= 0:
        return 1.0
    return FIRST_PART + (1.0 - FIRST_PART) * max(0.0, elapsed_s) / length_s
