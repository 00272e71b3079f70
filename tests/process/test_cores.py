"""Usable cores: never more than the process may run on, and what a quota buys, rounded up."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.process.cores import usable_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def cores(folder: Path, own: str, files: Mapping[str, str]) -> int:
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "own").write_text(own)
    return usable_cores(folder / "cgroup", folder / "own")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("nonsense\n", 8),
        ("5 0\n", 8),
        ("", 8),
    ],
)
def test_a_quota_of_version_2_counts(tmp_path: Path, text: str, expected: int) -> None:
    assert cores(tmp_path, "0::/\n", {"cpu.max": text}) == expected


def test_the_tightest_of_the_groups_around_us_counts(tmp_path: Path) -> None:
    files = {
        "a/cpu.max": "300000 100000",
        "a/b/cpu.max": "max 100000",
        "a/b/c/cpu.max": "500000 100000",
    }
    assert cores(tmp_path, "0::/a/b/c\n", files) == 3


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu", "cpu,cpuacct/docker/1"])
def test_a_quota_of_version_1_counts_wherever_it_is_mounted(tmp_path: Path, folder: str) -> None:
    own = "3:memory:/docker/1\n2:cpu,cpuacct:/docker/1\n1:cpuset:/\n"
    files = {f"{folder}/cpu.cfs_quota_us": "250000\n", f"{folder}/cpu.cfs_period_us": "100000\n"}
    assert cores(tmp_path, own, files) == 3


def test_version_1_without_a_quota_says_minus_one(tmp_path: Path) -> None:
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert cores(tmp_path, "2:cpu:/\n", files) == 8


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "nothing") == 8
