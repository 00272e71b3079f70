"""Follows the frames of a WebSocket's server side, to know where a message ends and if that is sure.

RFC 6455 section 5. Nothing is decoded or kept: payloads are skipped by arithmetic, so a read that
lies inside one frame costs one subtraction.
"""

from __future__ import annotations

from proxy.http1.headers import STRIDE, Fields

SERVICE_RESTART = 1012
"""Close code of IANA's registry: the server restarts, connect again after a random pause."""

MAX_PAYLOAD = 1 << 40
"""A frame longer than a tebibyte is no frame: these bytes are something else."""

_CONTINUATION, _CLOSE = 0x0, 0x8
_OPCODES = frozenset({0x0, 0x1, 0x2, 0x8, 0x9, 0xA})
_FIN, _OPCODE, _CONTROL = 0x80, 0x0F, 0x08
_RSV, _RSV1 = 0x70, 0x40
_MASKED, _LENGTH = 0x80, 0x7F
_DEFLATE = b"permessage-deflate"


def close_frame(code: int, reason: bytes) -> bytes:
    """A server's Close; `reason` is UTF-8 of at most 123 bytes."""
    payload = code.to_bytes(2, "big") + reason
    assert len(payload) <= 125, "a control frame has no longer payload"
    return bytes((_FIN | _CLOSE, len(payload))) + payload


def borders_after(fields: Fields) -> FrameBorders | None:
    """What follows a 101 with these headers; None when its extensions may change the framing.

    permessage-deflate (RFC 7692) leaves frames as they are and marks them with RSV1.
    """
    accepted = _extensions(fields)
    if not accepted:
        return FrameBorders()
    return FrameBorders(is_deflated=True) if accepted == [_DEFLATE] else None


def _extensions(fields: Fields) -> list[bytes]:
    """Names of the extensions an endpoint has accepted, without their parameters."""
    names = []
    for index in range(0, len(fields), STRIDE):
        if fields[index].lower() == b"sec-websocket-extensions":
            for each in fields[index + 2].split(b","):
                name = each.partition(b";")[0].strip().lower()
                if name:
                    names.append(name)
    return names


class FrameBorders:
    """Knows after any bytes whether the next one begins a message.

    What a client has to refuse makes it unsure for good: then nobody knows where a frame ends.
    """

    __slots__ = ("_head", "_in_message", "_left", "_marks", "has_closed", "is_unsure")

    def __init__(self, *, is_deflated: bool = False) -> None:
        self._marks = _RSV1 if is_deflated else 0  # reserved bits that mean something
        self._left = 0  # bytes of the frame's payload that are still to come
        self._head = b""  # the beginning of a frame's head
        self._in_message = False  # fragments have come, and the last one has not
        self.has_closed = False
        """The server has sent a Close, or begun to: nothing follows it."""
        self.is_unsure = False

    @property
    def is_between(self) -> bool:
        """Between two messages: a frame put in here breaks none."""
        return not (
            self._left or self._head or self._in_message or self.has_closed or self.is_unsure
        )

    def feed(self, data: bytes) -> None:
        """Follow the next bytes."""
        left = self._left
        if left > len(data):
            self._left = left - len(data)
        else:
            self._walk(data, is_wanted=False)

    def find(self, data: bytes) -> int:
        """Follow the next bytes up to the first end of a message: how many they are, or -1.

        After -1 all of them have been followed, as by `feed`.
        """
        left = self._left
        if left > len(data):
            self._left = left - len(data)
            return -1
        return self._walk(data, is_wanted=True)

    def _walk(self, data: bytes, *, is_wanted: bool) -> int:
        before = len(self._head)
        if before:
            data = self._head + data
            self._head = b""
        size, at = len(data), self._left
        self._left = 0
        while not (self.has_closed or self.is_unsure):
            if is_wanted and at > before and not self._in_message and at <= size:
                return at - before
            if at >= size:
                self._left = at - size
                break
            end = self._read_head(data, at)
            if not end:
                self._head = data[at:]
                break
            at = end
        return -1

    def _read_head(self, data: bytes, at: int) -> int:
        """Read the head of the frame at `at`: where the frame ends, 0 if more bytes are needed."""
        if len(data) < at + 2:
            return 0
        length = data[at + 1]  # a masked frame looks like a long one, and is refused
        at_payload = at + 2
        if length >= 126:
            at_payload += 2 if length == 126 else 8
            if length > 127:
                self.is_unsure = True
                return at_payload
            if len(data) < at_payload:
                return 0
            shortest = 126 if length == 126 else 0x10000
            length = int.from_bytes(data[at + 2 : at_payload], "big")
            if not shortest <= length <= MAX_PAYLOAD:
                self.is_unsure = True
        self._judge(data[at], length)
        return at_payload + length

    def _judge(self, first: int, length: int) -> None:
        """Take in the first byte of a frame: what it is, and whether it may be so."""
        opcode = first & _OPCODE
        marks = first & _RSV
        if opcode not in _OPCODES or marks & ~self._marks:
            self.is_unsure = True
        elif opcode & _CONTROL:
            if not first & _FIN or length > 125 or marks:
                self.is_unsure = True
            self.has_closed = opcode == _CLOSE
        elif (opcode == _CONTINUATION) != self._in_message or (marks and self._in_message):
            self.is_unsure = True
        else:
            self._in_message = not first & _FIN
