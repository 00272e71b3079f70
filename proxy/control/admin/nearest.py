"""The sentence for a key nobody knows, with the nearest one that exists."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def unknown_key(key: str, known: Collection[str], noun: str = "key") -> str:
    """Say that `key` is unknown, which one may have been meant, or which there are."""
    shown = key if len(key) <= 60 else key[:60] + "..."
    if not known:
        return f"{shown}: unknown {noun} (there are none here)"
    close = difflib.get_close_matches(key, sorted(known), n=1)
    if close:
        return f"{shown}: unknown {noun} (did you mean {close[0]}?)"
    return f"{shown}: unknown {noun} (known: {', '.join(sorted(known))})"
