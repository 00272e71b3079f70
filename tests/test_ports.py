"""Ports that are known beforehand are given to one test of one process alone."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ports
from tests.ports import BLOCK, END, FIRST, free_port

COUNT = BLOCK + 5
PROGRAM = f"""
import json
from tests.ports import free_port
print(json.dumps([free_port() for _ in range({COUNT})]), flush=True)
input()
"""


def test_no_port_is_given_twice_nor_to_two_processes() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command, root = [sys.executable, "-c", PROGRAM], Path(__file__).parents[1]
    with subprocess.Popen(command, text=True, cwd=root, **pipes) as other:  # type: ignore[call-overload]
        theirs = json.loads(other.stdout.readline())
        ours = [free_port() for _ in range(COUNT)]
        other.communicate("\n", timeout=30)
    assert len({*ours, *theirs}) == 2 * COUNT
    assert all(FIRST <= port < END for port in [*ours, *theirs])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "0.0.0.0"])
def test_a_port_that_somebody_has_on_any_address_is_not_free(host: str) -> None:
    port = free_port()
    assert ports._is_free(port)
    with socket.socket() as taken:
        taken.bind((host, port))
        assert not ports._is_free(port)
