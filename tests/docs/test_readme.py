"""The README's five minutes, gone through as they stand: every command, and what it prints."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.cli.main import VERBS
from tests.ports import free_port

PORTS = ("8080", "9900", "9001", "9101")
CLOSE = 3
"""How far a number may be from the README's: shares are exact to a request or two."""
MARK = "@@@ command "

Blocks = Callable[[str, str], list[str]]
Step = tuple[str, list[str]]


@pytest.fixture
def tour(root: Path) -> str:
    """The README's tour, on free ports."""
    text = (root / "README.md").read_text(encoding="utf-8")
    tour = text.partition("## Five minutes")[2].partition("\n## ")[0]
    for port in PORTS:
        tour = re.sub(rf"\b{port}\b", str(free_port()), tour)
    return tour


@pytest.fixture
def directory(tmp_path: Path, tour: str, blocks: Blocks) -> Iterator[Path]:
    """An empty directory but for the configuration; what runs there in the end is ended."""
    (tmp_path / "config").mkdir()
    (config,) = blocks(tour, "yaml")
    (tmp_path / "config/turnout.yaml").write_text(config, encoding="utf-8")
    yield tmp_path
    until = time.monotonic() + 30  # the last ones were told to end a moment ago
    while (left := of_directory(tmp_path)) and time.monotonic() < until:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == [], "the tour leaves processes behind"


def of_directory(directory: Path) -> list[int]:
    """Processes that work in the directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(entry / "cwd").readlink() == directory:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def steps_of(console: str) -> list[Step]:
    """Commands, each with the lines it is said to print."""
    steps: list[Step] = []
    for line in console.splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    return steps


def play(steps: list[Step], directory: Path) -> list[list[str]]:
    """Run all commands in one shell, as a reader would; return the lines each one printed."""
    script = ["set -m"]
    for command, _ in steps:
        script += [f"echo '{MARK}'", command.replace("mkdir ", "mkdir -p ")]
    bin_directory = str(Path(sys.executable).parent)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TURNOUT_")}
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=directory,
        env={**environ, "PATH": f"{bin_directory}:{environ['PATH']}", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    return [without_notices(printed) for printed in done.stdout.split(f"{MARK}\n")[1:]]


def without_notices(printed: str) -> list[str]:
    """The lines without what the shell says of its jobs (`[3]+  Done`), whenever it likes."""
    return [line for line in printed.splitlines() if not re.match(r"\[\d+\]|bash: line", line)]


def agree(said: str, printed: str) -> bool:
    """Whether a line is what was said: `...` stands for anything, numbers may be a little off."""
    pattern = re.escape(said.rstrip()).replace(re.escape("..."), ".*")
    loose = re.sub(r"\d+", r"(\\d+)", pattern).replace(r"\ ", " ")
    match = re.fullmatch(re.sub(r" +", " +", loose), printed.rstrip())
    if match is None:
        return False
    numbers = zip(re.findall(r"\d+", said), match.groups(), strict=True)
    return all(abs(int(ours) - int(theirs)) <= CLOSE for ours, theirs in numbers)


def check(command: str, said: list[str], printed: list[str]) -> None:
    ends_open = bool(said) and said[-1] == "..."
    wanted = said[:-1] if ends_open else said
    shown = printed[: len(wanted)] if ends_open else printed
    is_right = len(shown) == len(wanted) and all(map(agree, wanted, shown))
    assert is_right, f"$ {command}\nsaid:\n" + "\n".join(said) + "\nprinted:\n" + "\n".join(printed)


def test_every_command_of_the_tour_prints_what_the_readme_says(
    tour: str, directory: Path, blocks: Blocks
) -> None:
    steps = [step for block in blocks(tour, "console") for step in steps_of(block)]
    assert len(steps) > 15
    printed = play(steps, directory)
    assert len(printed) == len(steps)
    for (command, said), lines in zip(steps, printed, strict=True):
        check(command, said, lines)


def test_a_number_may_be_a_little_off_but_not_a_word() -> None:
    assert agree("     90 hello from v41", "     91 hello from v41")
    assert not agree("     90 hello from v41", "     80 hello from v41")
    assert not agree("all traffic to green", "all traffic to blue")
    assert agree('{"name":"shop",...', '{"name":"shop","active":"blue"}')


def test_every_make_target_and_verb_that_is_named_exists(root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for name in ("README.md", "CONTRIBUTING.md", "docs/operations.md", "CHANGELOG.md"):
        text = (root / name).read_text(encoding="utf-8")
        for target in re.findall(r"(?:^|`)make ([a-z]+)\b", text, re.MULTILINE):
            assert f"\n{target}:" in makefile, f"{name}: make {target}"
        for verb in re.findall(r"(?:`|^|\$ )turnout ([a-z]+)", text, re.MULTILINE):
            assert verb in VERBS, f"{name}: turnout {verb}"
