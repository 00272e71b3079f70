"""The outlet: lines in order, and nobody waits for a reader that does not read."""

from __future__ import annotations

import os
import time

import pytest

from proxy.process import outlet as module
from proxy.process.outlet import Outlet


def test_lines_come_out_in_order() -> None:
    reading, writing = os.pipe()
    outlet = Outlet(writing)
    for number in range(100):
        outlet.write(f"line {number} \udcff\n")
    outlet.close()
    os.close(writing)
    with os.fdopen(reading) as stream:
        assert [line.split()[1] for line in stream] == [str(number) for number in range(100)]


def test_a_reader_that_does_not_read_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 100)
    monkeypatch.setattr(module, "LAST_S", 0.1)
    reading, writing = os.pipe()
    told: list[int] = []
    outlet = Outlet(writing, dropped=told.append)
    began_s = time.monotonic()
    for _ in range(1000):
        outlet.write("x" * 1000 + "\n")
    outlet.close()
    assert time.monotonic() - began_s < 5
    assert outlet.dropped >= 1000 - 100 - 66
    os.close(reading)  # the thread's write fails, and it ends
    outlet._thread.join(5)
    assert not outlet._thread.is_alive()
    assert told[-1] == outlet.dropped
    os.close(writing)
