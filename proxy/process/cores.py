"""How many cores this process may use: those it may run on, or what its container's quota buys."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = CGROUPS, own: Path = OWN) -> int:
    """Cores to be used, at least one; a quota of one and a half cores is worth two workers."""
    cores = len(os.sched_getaffinity(0))
    quotas = list(_quotas(cgroups, own))
    return max(1, min(cores, math.ceil(min(quotas)))) if quotas else cores


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """The CPU quotas, in cores, of our control groups and of those around them."""
    for line in _text(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # version 2
            for folder in _upwards(cgroups, path):
                yield from _quota_2(_text(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for root in (cgroups / controllers, cgroups / "cpu"):
                for folder in _upwards(root, path):
                    quota = _text(folder / "cpu.cfs_quota_us")
                    yield from _quota(quota, _text(folder / "cpu.cfs_period_us"))


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """Return a group's folder and all above it, as far as this process can see them.

    In a container the path may be the host's, of which only the root is mounted here.
    """
    inside = Path(path.lstrip("/"))
    for folder in (inside, *inside.parents):
        yield root / folder


def _quota_2(text: str) -> Iterator[float]:
    quota, _, period = text.strip().partition(" ")
    return _quota(quota, period)  # without a quota it is the word max


def _quota(quota: str, period: str) -> Iterator[float]:
    quota, period = quota.strip(), period.strip()
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeError):
        return ""
