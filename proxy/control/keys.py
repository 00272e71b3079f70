"""Sticky keys: one for each service, derived from a secret; a retired one verifies a while longer.

Pure. A key that signed cookies goes on verifying until the last of them has expired, so
that changing the secret moves nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class StickyKey:
    """A hex key of one service; `until` (wall seconds) is None for the one that signs."""

    key: str
    until: float | None = None


Ring = tuple[StickyKey, ...]
"""The keys of one service, the signing one first."""

Rings = Mapping[str, Ring]


def derive(secret: str, service: str) -> str:
    """Derive the hex key of a service: a cookie of one service is foreign to another."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES, person=b"turnout-sticky")
    for part in (secret.encode(), service.encode()):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def rotate(ring: Ring, wanted: str, *, max_age_s: float, now: float) -> Ring:
    """Return the ring with `wanted` signing; what signed until now verifies for `max_age_s` more."""
    if ring and ring[0].key == wanted and ring[0].until is None:
        return (ring[0], *(each for each in ring[1:] if not _is_over(each, now)))
    retired = (
        StickyKey(key=each.key, until=now + max_age_s if each.until is None else each.until)
        for each in ring
        if each.key != wanted
    )
    return (StickyKey(key=wanted), *(each for each in retired if not _is_over(each, now)))


def hex_keys(ring: Ring, now: float) -> tuple[str, ...]:
    return tuple(each.key for each in ring if not _is_over(each, now))


def _is_over(key: StickyKey, now: float) -> bool:
    return key.until is not None and key.until <= now
