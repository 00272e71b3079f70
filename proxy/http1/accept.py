"""Which media type a client likes best of those that there are (RFC 9110 section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

HTML = b"text/html"
JSON = b"application/json"
TEXT = b"text/plain"

LONGEST = 512
"""Bytes of the header that are read: browsers send a third of it, and more is somebody's game."""
MOST = 16
"""Ranges that concern us and are looked at; browsers have two."""
_OURS = frozenset({HTML, JSON, TEXT, b"text/*", b"application/*", b"*/*"})

_QUALITY = re.compile(rb"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)").fullmatch


class _Liking(NamedTuple):
    """How much a range of the header makes of a type; the greatest is the client's choice."""

    quality: float
    precision: int
    """How closely the range names the type: 0 for any, 1 for its family, 2 for itself."""
    order: int
    """Minus its place in the list."""


_UNNAMED = _Liking(0.0, 0, 0)


def best(accept: bytes | None, offers: Sequence[bytes]) -> bytes:
    """The offer that the client likes best; of those it likes the same, the first one.

    Qualities decide, then whether the client has named the type itself, then what it has named
    first. One that takes nothing of all this gets the first offer: any answer is better than none.
    """
    if not accept or accept == b"*/*":
        return offers[0]
    ranges = _ranges(accept)
    likings = [_liking(offer, ranges) for offer in offers]
    if not any(liking.quality for liking in likings):  # the one that is least refused
        likings = [liking._replace(precision=-liking.precision, order=0) for liking in likings]
    return offers[likings.index(max(likings))]


def _ranges(accept: bytes) -> list[tuple[bytes, float]]:
    """Media ranges in lower case with their qualities; what does not concern us is left out."""
    if len(accept) > LONGEST:
        accept = accept[:LONGEST].rpartition(b",")[0]
    found = []
    for part in accept.lower().split(b","):
        name, _, parameters = part.partition(b";")
        name = name.strip(b" \t")
        if name in _OURS or name.endswith(b"+json"):
            quality = _quality(parameters) if parameters else 1.0
            if quality is not None:
                found.append((name, quality))
            if len(found) == MOST:
                break
    return found


def _quality(parameters: bytes) -> float | None:
    """Value of the parameter q; 1 without one, None when it is malformed."""
    for parameter in parameters.split(b";"):
        name, _, value = parameter.partition(b"=")
        if name.strip(b" \t") == b"q":
            value = value.strip(b" \t")
            return float(value) if _QUALITY(value) else None
    return 1.0


def _liking(offer: bytes, ranges: list[tuple[bytes, float]]) -> _Liking:
    """What the range says of it that names it most closely: the others do not count then."""
    family = offer.partition(b"/")[0] + b"/*"
    closest = _UNNAMED
    for place, (name, quality) in enumerate(ranges):
        if name == offer or (offer == JSON and name.endswith(b"+json")):
            liking = _Liking(quality, 2, -place)
            if closest.precision < 2 or liking > closest:
                closest = liking
        elif name == family:
            if closest.precision < 1:
                closest = _Liking(quality, 1, -place)
        elif name == b"*/*" and closest is _UNNAMED:
            closest = _Liking(quality, 0, -place)
    return closest
