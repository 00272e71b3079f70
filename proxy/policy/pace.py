"""The pace of a release: how many of those that waited may have gone by now."""

from __future__ import annotations


def due(waited: int, elapsed_s: float, over_s: float) -> int:
    """How many of `waited` are to be gone `elapsed_s` after the release, 0..`waited`.

    They go one at a time at equal distances, the first at once and the last just before
    `over_s` has gone by; all at once when `over_s` is 0.
    """
    if elapsed_s >= over_s:
        return waited
    if elapsed_s < 0.0:
        return 0
    return min(waited, int(waited * elapsed_s / over_s) + 1)
