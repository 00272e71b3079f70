from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxy.control.config.files import fingerprint
from proxy.control.watch import ConfigWatch
from proxy.tasks import Report, spawn

if TYPE_CHECKING:
    from tests.control.conftest import Until


class Watched:
    """A file that is watched, and what was said of it."""

    def __init__(self, path: Path, until: Until, report: Report) -> None:
        self.path = path
        self._until = until
        self._report = report
        self.seen: list[str] = []
        self.takes = True

    async def changed(self, found: str) -> str | None:
        self.seen.append(self.path.read_text() if self.path.exists() else "(gone)")
        return found if self.takes else None

    def print(self) -> str:
        return fingerprint(str(self.path), ())

    def start(self, seen: str, *, poll_s: float = 30.0) -> asyncio.Task[None]:
        watch = ConfigWatch(self.path, seen, self.print, self.changed, poll_s=poll_s)
        return spawn(watch.run(), name="watch", report=self._report)

    async def until(self, condition: Callable[[list[str]], bool]) -> None:
        await self._until(lambda: condition(self.seen))


@pytest.fixture
async def watched(tmp_path: Path, until: Until, report: Report) -> AsyncIterator[Watched]:
    path = tmp_path / "turnout.yaml"
    path.write_text("one")
    watched = Watched(path, until, report)
    task = watched.start(watched.print())
    await asyncio.sleep(0.2)  # let it begin to watch; whatever comes earlier it compares itself
    yield watched
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_write_in_place_is_seen(watched: Watched) -> None:
    watched.path.write_text("two")
    await watched.until(lambda seen: seen[-1:] == ["two"])


async def test_every_atomic_rename_is_seen(watched: Watched) -> None:
    for text in ("two", "three", "four"):
        fresh = watched.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(watched.path)
        await watched.until(lambda seen, text=text: seen[-1:] == [text])  # type: ignore[misc]


async def test_the_same_content_again_is_no_change(watched: Watched) -> None:
    watched.path.write_text("one")
    (watched.path.parent / "other.yaml").write_text("noise")
    watched.path.write_text("two")
    await watched.until(bool)
    assert watched.seen == ["two"]


async def test_a_file_that_is_gone_is_a_change(watched: Watched) -> None:
    watched.path.unlink()
    await watched.until(lambda seen: seen[-1:] == ["(gone)"])
    watched.path.write_text("back")
    await watched.until(lambda seen: seen[-1:] == ["back"])


async def test_content_that_was_not_taken_is_offered_again(watched: Watched) -> None:
    watched.takes = False
    watched.path.write_text("two")
    await watched.until(bool)
    watched.takes = True
    (watched.path.parent / "any.event").write_text("")
    await watched.until(lambda seen: len(seen) > 1)
    assert set(watched.seen) == {"two"}


async def test_a_swap_of_a_mounted_config_map_is_seen(
    tmp_path: Path, until: Until, report: Report
) -> None:
    for version, text in (("v1", "one"), ("v2", "two")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "turnout.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "turnout.yaml").symlink_to("..data/turnout.yaml")
    watched = Watched(tmp_path / "turnout.yaml", until, report)
    task = watched.start(watched.print())
    await asyncio.sleep(0.2)
    (tmp_path / "..data_tmp").symlink_to("v2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    await watched.until(lambda seen: seen == ["two"])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_change_before_the_watch_began_is_seen(
    tmp_path: Path, until: Until, report: Report
) -> None:
    path = tmp_path / "turnout.yaml"
    path.write_text("two")
    watched = Watched(path, until, report)
    task = watched.start("digest of something else")
    await watched.until(lambda seen: seen == ["two"])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_content_is_compared_even_where_nothing_can_be_watched(
    tmp_path: Path, until: Until, report: Report
) -> None:
    directory = tmp_path / "config"
    directory.mkdir()
    path = directory / "turnout.yaml"
    path.write_text("one")
    watched = Watched(path, until, report)
    digest = watched.print()
    shutil.rmtree(directory)
    task = watched.start(digest, poll_s=0.05)
    await watched.until(lambda seen: seen == ["(gone)"])
    directory.mkdir()
    path.write_text("three")
    await watched.until(lambda seen: seen == ["(gone)", "three"])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
