"""One state directory belongs to one running proxy: a lock that ends with the process that took it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

FILE = "turnout.lock"

_HELD = {errno.EWOULDBLOCK, errno.EACCES}


def take(state: str) -> int | None:
    """Take the directory and return the descriptor that keeps it; OSError when another has it.

    None where the directory cannot be used, which the store says better, or where its file
    system knows no locks. Two proxies on one store would overwrite each other's weights.
    """
    folder = Path(state)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in _HELD:
            return None
        raise OSError(f"the state directory {folder} belongs to another running proxy") from None
    return descriptor
