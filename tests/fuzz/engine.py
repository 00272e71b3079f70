"""A seeded mutator: runs a target where no coverage-guided fuzzer is installed.

It keeps an input when the target says that something of a new shape happened. The same seed
gives the same inputs in the same order.
"""

from __future__ import annotations

import importlib
import random
import time
import traceback
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

LONGEST = 4096
_ENOUGH = 2000
"""Tries to make a finding shorter."""
_INTERESTING = (b"\x00", b"\x7f", b"\x80", b"\xff", b"0", b"9", b"a", b"A", b" ", b"-")


class Target(Protocol):
    """A module of `targets/`: `run` raises AssertionError on a finding, and says what happened."""

    A_WHILE: int
    """Executions that take a few seconds: its part of a minute in CI."""
    TOKENS: Sequence[bytes]
    """What its inputs are made of."""

    def seeds(self) -> list[bytes]: ...
    def run(self, data: bytes) -> Hashable: ...


def names() -> list[str]:
    return sorted(path.stem for path in (Path(__file__).parent / "targets").glob("*.py"))


def load(name: str) -> Target:
    return cast("Target", importlib.import_module(f"tests.fuzz.targets.{name}"))


@dataclass
class Finding(Exception):  # noqa: N818 - it is what was looked for, not a failure
    """An input at which a target failed, as short as we could make it."""

    data: bytes
    cause: BaseException

    def __str__(self) -> str:
        return f"{type(self.cause).__name__}: {self.cause}\ninput: {self.data!r}"


class Mutator:
    def __init__(self, target: Target, seed: int) -> None:
        self._target = target
        self._draw = random.Random(seed)
        self._pool: list[bytes] = []
        self._shapes: set[Hashable] = set()
        self.executions = 0

    @property
    def shapes(self) -> int:
        """How many different things have happened."""
        return len(self._shapes)

    def run(self, *, seconds: float = float("inf"), executions: float = float("inf")) -> None:
        """Run all the seeds, then mutations of what was interesting; raises Finding."""
        ends = time.monotonic() + seconds
        for data in self._target.seeds():
            self._try(data)
        while self.executions < executions and time.monotonic() < ends:
            self._try(self._mutated())

    def _try(self, data: bytes) -> None:
        self.executions += 1
        try:
            shape = self._target.run(data)
        except Exception as error:
            raise Finding(shortened(self._target.run, data, error), error) from error
        if shape not in self._shapes:
            self._shapes.add(shape)
            self._pool.append(data)

    def _mutated(self) -> bytes:
        draw, pool = self._draw, self._pool
        recent = draw.random() < 0.3
        data = draw.choice(pool[-50:] if recent else pool)
        for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 5))):
            data = self._once(data)
        return data[:LONGEST]

    def _once(self, data: bytes) -> bytes:
        draw = self._draw
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.choice((0, 1, 1, 2, 4, 16, 64)))
        way = draw.randrange(7)
        if way == 0:
            return data[:at] + data[end:]
        if way == 1:
            return data[:end] + data[at:end] * draw.choice((1, 1, 2, 40)) + data[end:]
        if way == 2:
            return data[:at] + draw.choice(_INTERESTING) + data[at + 1 :]
        if way == 3:
            return data[:at] + bytes((draw.randrange(256),)) + data[end:]
        if way == 4:
            other = draw.choice(self._pool)
            return data[:at] + other[draw.randrange(len(other) + 1) :]
        token = draw.choice(self._target.TOKENS)
        if way == 5:  # where a line begins, most of them mean something
            at = end = data.find(b"\n", at) + 1
        return data[:at] + token + data[end:]


def shortened(run: Callable[[bytes], object], data: bytes, error: BaseException) -> bytes:
    """The input without what can be left out while it still fails at the same place."""
    place = _place(error)
    size, tries = len(data) // 2, 0
    while size:
        at = 0
        while at < len(data) and tries < _ENOUGH:
            without = data[:at] + data[at + size :]
            tries += 1
            if _fails_at(run, without) == place:
                data = without
            else:
                at += size
        size //= 2
    return data


def _fails_at(run: Callable[[bytes], object], data: bytes) -> tuple[str, int] | None:
    try:
        run(data)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
        return _place(error)
    return None


def _place(error: BaseException) -> tuple[str, int]:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return frame.filename, frame.lineno or 0
