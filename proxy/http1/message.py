"""Parsed heads: what the wire said, checked, and nothing decided yet."""

from __future__ import annotations

from proxy.http1.headers import Fields


class Malformed(Exception):  # noqa: N818 - it is a finding about bytes, not a failure of ours
    """The bytes are not a message we accept; `status` is the answer they deserve."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status


class RequestHead:
    """One request's head. `fields` are passed on as they are; the rest was set aside."""

    __slots__ = (
        "chunked",
        "cookie",
        "expect",
        "fields",
        "host",
        "keep_alive",
        "length",
        "method",
        "special",
        "target",
        "upgrade",
        "version_1_0",
    )

    def __init__(self, method: bytes, target: bytes, fields: Fields) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.host = b""
        self.cookie: bytes | None = None
        self.length = 0
        """Length of the body in bytes; 0 when there is none, -1 when it is chunked."""
        self.chunked = False
        self.keep_alive = True
        self.version_1_0 = False
        self.upgrade: bytes | None = None
        self.expect = False
        self.special: dict[bytes, bytes] | None = None
        """Lower-case names and values of the other headers the proxy reads."""


class ResponseHead:
    """One response's head, interim or final."""

    __slots__ = (
        "chunked",
        "event_stream",
        "fields",
        "keep_alive",
        "length",
        "reason",
        "special",
        "status",
        "to_end",
        "upgrade",
        "version_1_0",
    )

    def __init__(self, status: int, reason: bytes, fields: Fields) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.length: int | None = None
        """Value of Content-Length."""
        self.chunked = False
        self.to_end = False
        """The body ends with the connection."""
        self.keep_alive = True
        self.version_1_0 = False
        self.upgrade: bytes | None = None
        self.event_stream = False
        self.special: dict[bytes, bytes] | None = None
