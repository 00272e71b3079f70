r"""Raw cases as files: what is sent on the wire, and what must be seen on both sides.

A file holds the cases of one family. It opens with a few words on them; then each case is

    === its name, a sentence without full stop
    --- given                    (optional) settings of the listener or service, `key: value`
    --- client                   the client sends these bytes
    --- endpoint gets            the endpoint has got this request, and nothing before it
    --- endpoint                 the endpoint sends these bytes
    --- client gets              the client has got this answer, and nothing before it

The sections after `given` are steps, taken in this order. Each of a section's lines ends with CR
LF on the wire, or with nothing when a backslash is its last byte (behind the last one of these
empty lines mean nothing). Inside, `\r \n \t \\ \xHH` are bytes, and `\{1000*ab}` is `ab` a
thousand times. Lines that begin with `#` before a case's first section say why.

A request or an answer that is expected is written as a message, chunked ones with chunks (whose
borders mean nothing). The order of different headers means nothing either. The headers that the
proxy always adds are checked and left out, unless the case writes them, for which `{port}`, `{id}`
and `{trace}` stand for what cannot be known. Words behind the name, with commas between, say more:

    client gets 400, close       an answer of the proxy's own with this status; the client's
                                 connection ends then
    client gets, no body         an answer to HEAD
    client gets, cut             the head, and a body that is broken off
    client gets 502, cut         an own answer if nothing was passed on yet, else as before
    client gets 502, late        an own answer, maybe behind interim answers of the endpoint's
    client gets head             of an answer whose body is still to come
    client gets rest             these bytes, and then the connection ends
    client gets rest, reset      or is reset
    client gets bytes            exactly these, in a tunnel
    client gets end              the connection ends
    client closes | half-closes | resets
    endpoint gets head           of a request whose body is still to come
    endpoint gets, cut           the head at most, and a body that never ends
    endpoint gets bytes | end
    endpoint closes | half-closes | resets

While no step says what the endpoint sends, it answers every request with 200 and `ok`; and when no
step says what the client gets, it gets just that. In the end the client's connection must be open,
proved by one more request, unless its last answer says `Connection: close`, or a step its end.
Every case is also played with such a request, or garbage, right behind the client's last bytes, if
it is not given `followed: no`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_ESCAPE = re.compile(rb"\\(?:\{(\d+)\*([^}]*)\}|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_SIMPLE = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}
_ACTIONS = {
    "client",
    "client gets",
    "client gets bytes",
    "client gets end",
    "client gets head",
    "client gets rest",
    "client closes",
    "client half-closes",
    "client resets",
    "endpoint",
    "endpoint gets",
    "endpoint gets head",
    "endpoint gets bytes",
    "endpoint gets end",
    "endpoint closes",
    "endpoint half-closes",
    "endpoint resets",
}
_WORDS = {"close", "no body", "cut", "late", "reset"}


@dataclass(frozen=True, slots=True)
class Step:
    action: str
    data: bytes = b""
    status: int = 0
    """Of an answer of the proxy's own."""
    words: frozenset[str] = frozenset()


@dataclass(slots=True)
class Case:
    family: str
    name: str
    given: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.family}: {self.name}"

    def has(self, *actions: str) -> bool:
        return any(step.action in actions for step in self.steps)


def read_cases(folder: Path) -> list[Case]:
    """All cases of a folder's files."""
    cases = [case for path in sorted(folder.glob("*.case")) for case in _read(path)]
    names = [str(case) for case in cases]
    assert len(names) == len(set(names)), "two cases have one name"
    return cases


def _read(path: Path) -> list[Case]:
    cases = []
    _, *parts = re.split(r"^=== ", path.read_text(encoding="ascii"), flags=re.MULTILINE)
    for part in parts:
        head, *sections = re.split(r"^--- ", part, flags=re.MULTILINE)
        name, *comments = head.strip().splitlines()
        assert all(line.startswith("#") or not line for line in comments), f"{path.name}: {name}"
        case = Case(path.stem, name)
        for section in sections:
            title, _, text = section.partition("\n")
            if title == "given":
                case.given = dict(line.split(": ", 1) for line in text.strip().splitlines())
            else:
                case.steps.append(_step(title, text, f"{path.name}: {name}"))
        assert case.steps, f"{path.name}: {name} has no steps"
        cases.append(case)
    return cases


def _step(title: str, text: str, where: str) -> Step:
    action, *words = title.split(", ")
    status = 0
    if action[:12] == "client gets " and action[12:].isdigit():
        action, status = action[:11], int(action[12:])
    assert action in _ACTIONS, f"{where}: {title}"
    assert _WORDS.issuperset(words), f"{where}: {title}"
    return Step(action, _bytes(text), status, frozenset(words))


def _bytes(text: str) -> bytes:
    stripped = text.rstrip("\n")
    if _is_open(stripped):
        text = stripped
    lines = text.removesuffix("\n").split("\n") if text else []
    return b"".join(map(_line, lines))


def _is_open(line: str) -> bool:
    """Whether it ends with a backslash that is not another one's."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _line(line: str) -> bytes:
    if _is_open(line):
        return _unescaped(line[:-1].encode())
    return _unescaped(line.encode()) + b"\r\n"


def _unescaped(data: bytes) -> bytes:
    return _ESCAPE.sub(_meant, data)


def _meant(match: re.Match[bytes]) -> bytes:
    times, what, code, simple = match.groups()
    if times is not None:
        return _unescaped(what) * int(times)
    if code is not None:
        return bytes([int(code, 16)])
    return _SIMPLE[simple]
