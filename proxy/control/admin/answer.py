"""An answer of the admin API as a value: it can be kept, compared and given twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    def with_headers(self, **more: str) -> Answer:
        """Return the same answer with more headers; `_` in a name stands for `-`."""
        named = {name.replace("_", "-"): value for name, value in more.items()}
        return Answer(
            status=self.status,
            body=self.body,
            content_type=self.content_type,
            headers={**self.headers, **named},
        )

    def response(self) -> web.Response:
        headers = {**self.headers, "Content-Type": self.content_type}
        return web.Response(status=self.status, body=self.body, headers=headers)


def encode(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        # Half of a surrogate pair (a file's odd name): orjson refuses it, the stdlib escapes it.
        return json.dumps(value).encode() + b"\n"


def ok(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status=status, body=encode(value), headers=headers or {})
