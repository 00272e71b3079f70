"""PEM text into a TLS context: the private key never touches a disk.

OpenSSL, as Python has it, loads a certificate and its key from files only. These files are
anonymous memory (memfd_create(2)), or private temporary ones where the system has none.
"""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


def load_pair(context: ssl.SSLContext, chain: str, key: str) -> None:
    """Have the context show this certificate; `chain` begins with the certificate itself.

    Raises ssl.SSLError when they do not belong together, or are not good enough for OpenSSL.
    """
    with _file(chain) as chain_path, _file(key) as key_path:
        # Without a password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(chain_path, key_path, password=lambda: b"")


def load_authorities(context: ssl.SSLContext, text: str) -> None:
    """Have the context trust these certificates; ssl.SSLError or ValueError where they are none."""
    # What stands between the blocks may be anything, but OpenSSL is given ASCII alone.
    context.load_verify_locations(cadata="\n".join(each[0] for each in _BLOCK.finditer(text)))


@contextmanager
def _file(text: str) -> Iterator[str]:
    try:
        fd = os.memfd_create("pem", os.MFD_CLOEXEC)
        path = f"/proc/self/fd/{fd}"
    except (OSError, AttributeError):  # a sandbox, or a system that is not Linux
        fd, path = tempfile.mkstemp(prefix="turnout-")  # readable by us alone
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode())
            file.flush()
            yield path
    finally:
        if not path.startswith("/proc/"):
            Path(path).unlink()
