"""What can go wrong with an exchange: whose side, which kind, when it may be tried again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Side(Enum):
    """Who is to blame."""

    CLIENT = "client"
    ENDPOINT = "endpoint"
    PROXY = "proxy"


class Retry(Enum):
    """When the same request may be sent again."""

    NEVER = "never"
    ALWAYS = "always"
    """Nothing of the request was sent."""
    IF_IDEMPOTENT = "if_idempotent"
    """The endpoint may have carried it out, and gave no answer: only what may be done twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One documented failure: `error` is the token of RFC 9209, `kind` one of FAILURE_KINDS."""

    status: int
    error: str
    sentence: str
    side: Side
    kind: str | None = None
    retry: Retry = Retry.NEVER
