"""Cookies: ours is taken out and no other one changes, and nobody makes one that we believe."""

from __future__ import annotations

from collections.abc import Hashable

from proxy.http1.headers import take_cookie
from proxy.http1.parser.framing import CONTROLS
from proxy.model import Preview, Sticky
from proxy.policy.preview import pool_wanted
from proxy.policy.sticky import Binding, StickyCookie

_KEY = bytes(range(32)).hex()
_NOW = 1_700_000_000.0
_JAR = StickyCookie("shop", Sticky(by="cookie", name="turnout", keys=(_KEY,)))
_OURS = tuple(
    _JAR.write(Binding(bucket, pool, 3, int(_NOW), int(_NOW) + 60, mark))
    for bucket, pool, mark in ((17, "blue", ""), (9999, "gr.een%", "0123abcd"))
)
_FOREIGN = StickyCookie("till", Sticky(by="cookie", name="turnout", keys=(_KEY,))).write(
    Binding(17, "blue", 3, int(_NOW), int(_NOW), "")
)
_PREVIEW = Preview(header="x-preview", cookie="p", secret="s3:cret")
A_WHILE = 20_000
TOKENS = (
    *(b"turnout=", b"; ", b";", b" ", b"\t", b"=", b"a=b", b"xturnout=1", b",", b'"', b"s3:cret:"),
    *(b"s3:cret:blue", *_OURS, _FOREIGN, b"turnout=" + _OURS[0]),
)


def seeds() -> list[bytes]:
    return [
        b"a=b; turnout=" + _OURS[0] + b"; c=d",
        b"turnout=" + _OURS[1],
        b"turnout=1; a=b; turnout=2; turnout=3",
        b"a=b turnout=1; c=d",
        *(*_OURS, _FOREIGN, b"s3:cret:blue", b""),
    ]


def run(data: bytes) -> Hashable:
    data = data.translate(None, CONTROLS)  # the parser has refused them
    value, rest = take_cookie(data, b"turnout=")
    pairs = _pairs(data)
    ours = [pair[8:].strip() for pair in pairs if pair.startswith(b"turnout=")]
    assert value == (ours[0] if ours else None), f"{value!r} is taken of {pairs}"
    assert _pairs(rest) == [pair for pair in pairs if not pair.startswith(b"turnout=")]
    is_bound = _JAR.read(data, _NOW) is not None
    assert is_bound == (data in _OURS), "a cookie that we did not write is believed"
    wanted = pool_wanted(_PREVIEW, data)
    if wanted is not None:
        assert data == b"s3:cret:" + wanted.encode()
    return len(ours), len(pairs) > 2, is_bound, wanted is None


def _pairs(header: bytes) -> list[bytes]:
    """What a server reads of a Cookie header (RFC 6265 section 5.4, backwards)."""
    return [pair for each in header.split(b";") if (pair := each.strip(b" \t"))]
