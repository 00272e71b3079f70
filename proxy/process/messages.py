"""What supervisor and workers say to each other: JSON, and the snapshot in it.

Plain data, not pickles: after an upgrade a worker and a supervisor of two
versions may have to understand each other, so unknown fields are passed over.
"""

from __future__ import annotations

import dataclasses
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import orjson

from proxy.model import Snapshot

T = TypeVar("T")

Message = dict[str, Any]

_hints: dict[type, dict[str, Any]] = {}


def encode(message: Message) -> bytes:
    return orjson.dumps(message)  # dataclasses are written as objects


def decode(data: bytes) -> Message:
    message = orjson.loads(data)
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise TypeError("not a message between supervisor and worker")
    return message


def snapshot_from(plain: Any) -> Snapshot:
    """The snapshot that `encode` wrote as plain data."""
    return from_plain(Snapshot, plain)


def from_plain(kind: type[T], plain: Any) -> T:
    """A frozen dataclass from plain data; TypeError or KeyError when it does not fit."""
    value: T = _convert(kind, plain)
    return value


def _convert(kind: Any, plain: Any) -> Any:
    origin = get_origin(kind)
    if origin is tuple:
        item = get_args(kind)[0]
        _check(plain, isinstance(plain, list), kind)
        return tuple(_convert(item, value) for value in plain)
    if origin is Union or origin is types.UnionType:
        if plain is None:
            return None
        return _convert(next(a for a in get_args(kind) if a is not types.NoneType), plain)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = _hints.get(kind)
        if hints is None:
            hints = _hints[kind] = get_type_hints(kind)
        _check(plain, isinstance(plain, dict), kind)
        return kind(**{n: _convert(h, plain[n]) for n, h in hints.items() if n in plain})
    if origin is Literal:
        _check(plain, plain in get_args(kind), kind)
    elif kind is float:
        _check(plain, type(plain) in {float, int}, kind)
        return float(plain)
    else:  # what is left are str, int and bool, which JSON tells apart
        _check(plain, type(plain) is kind, kind)
    return plain


def _check(plain: Any, fits: bool, kind: Any) -> None:  # noqa: FBT001 - the finding itself
    if not fits:
        raise TypeError(f"{type(plain).__name__} where {kind} was expected")
