"""Keys of session tickets that all workers share, so that a session is resumed by any of them.

Every TLS context makes keys of its own, and Python has no call to set others. OpenSSL has one.
It is reached through ctypes where the context's place in memory is known and checked: CPython
keeps the pointer right behind the object's head. Anywhere else each worker goes on with its own
keys, and a client that comes to another worker does a whole handshake.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import ssl
import sys
import sysconfig
from functools import cache
from typing import Any

SIZE = 80
"""Bytes: a name of 16, a key for the HMAC and one for AES of 32 each."""
_SET_KEYS, _GET_KEYS = 59, 58  # SSL_CTRL_{SET,GET}_TLSEXT_TICKET_KEYS
_OLDEST, _NEWEST = (3, 11), (3, 14)
_PROBES = (3, 2)


def share(context: ssl.SSLContext, secret: str, policy: str) -> bool:
    """Derive the context's keys from the secret (hex); whether that could be done.

    `policy` is what a session stands for: whoever is verified under another one starts anew.
    """
    library = _library()
    if not secret or library is None:
        return False
    pointer = _pointer(library, context)
    if pointer is None:
        return False
    keys = _derived(secret, policy)
    if library.SSL_CTX_ctrl(pointer, _SET_KEYS, SIZE, keys) != 1:
        return False
    found = ctypes.create_string_buffer(SIZE)
    library.SSL_CTX_ctrl(pointer, _GET_KEYS, SIZE, found)
    return found.raw == keys


def _derived(secret: str, policy: str) -> bytes:
    key = bytes.fromhex(secret)
    parts = (
        hashlib.blake2b(policy.encode(), key=key, person=b"tickets %d" % number).digest()
        for number in (1, 2)
    )
    return b"".join(parts)[:SIZE]


@cache
def _library() -> Any:
    """The libssl that the ssl module uses; None where its contexts are not to be looked into."""
    if (
        platform.python_implementation() != "CPython"
        or not _OLDEST <= sys.version_info[:2] <= _NEWEST
        or sysconfig.get_config_var("Py_GIL_DISABLED")
    ):
        return None
    try:
        import _ssl  # noqa: PLC0415 - it may be built in, and then has no file

        library = ctypes.CDLL(_ssl.__file__)
        library.SSL_CTX_get_num_tickets.argtypes = [ctypes.c_void_p]
        library.SSL_CTX_get_num_tickets.restype = ctypes.c_size_t
        library.SSL_CTX_get_options.argtypes = [ctypes.c_void_p]
        library.SSL_CTX_get_options.restype = ctypes.c_uint64
        library.SSL_CTX_ctrl.argtypes = [
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_long,
            ctypes.c_char_p,
        ]
        library.SSL_CTX_ctrl.restype = ctypes.c_long
    except (OSError, AttributeError, ImportError):  # linked into Python itself, or another library
        return None
    return library


def _pointer(library: Any, context: ssl.SSLContext) -> int | None:
    """The context's SSL_CTX; None unless it says of itself what the context says."""
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    if not pointer or library.SSL_CTX_get_options(pointer) != context.options & (2**64 - 1):
        return None
    for number in _PROBES:
        context.num_tickets = number
        if library.SSL_CTX_get_num_tickets(pointer) != number:
            return None
    return pointer
