"""Ports for servers that must know theirs before they listen, each given to one test alone.

Not those that the kernel draws for sockets bound to port 0: between the draw and the use
anybody else may be given the same one, and a connection that goes out as well.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing

FIRST, END = 20_000, 32_000  # below those that the kernel draws (ip_local_port_range)
BLOCK = 40
_blocks: list[socket.socket] = []
"""What makes the blocks ours as long as this process lives: an abstract name has one owner."""


def free_port() -> int:
    """A port that nobody has and that no other process of the tests is given."""
    return next(_ports)


def _drawn() -> Iterator[int]:
    for start in range(FIRST, END, BLOCK):
        if _is_ours_now(start):
            yield from filter(_is_free, range(start, start + BLOCK))
    raise OSError(f"no free port below {END}")


def _is_ours_now(start: int) -> bool:
    owner = socket.socket(socket.AF_UNIX)
    try:
        owner.bind(f"\0turnout tests: ports from {start}")
    except OSError:
        owner.close()
        return False
    _blocks.append(owner)
    return True


def _is_free(port: int) -> bool:
    """On every address of this machine: some tests want the same one on several."""
    return not (_is_taken(port, socket.AF_INET, "") or _is_taken(port, socket.AF_INET6, "::"))


def _is_taken(port: int, family: socket.AddressFamily, host: str) -> bool:
    try:
        with closing(socket.socket(family)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.errno == errno.EADDRINUSE  # another reason: the family is missing here
    return False


_ports = _drawn()
