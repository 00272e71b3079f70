"""A request that names its pool by a secret, whatever the weights say."""

from __future__ import annotations

import hmac

from proxy.model import Preview


def pool_wanted(preview: Preview, value: bytes) -> str | None:
    """The pool named by `<secret>:<pool>`, or None; whether it exists is the caller's question.

    The pool is what follows the last colon, so a secret may contain colons. An
    empty secret is a preview that is off: nothing matches it.
    """
    secret, _, pool = value.rpartition(b":")
    if not preview.secret or not pool:
        return None
    if not hmac.compare_digest(secret, preview.secret.encode()):
        return None
    try:
        return pool.decode()
    except UnicodeDecodeError:
        return None
