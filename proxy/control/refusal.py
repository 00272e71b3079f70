"""Why a change was not made: one family of errors, each with its status and a human sentence."""

from __future__ import annotations

from typing import ClassVar


class Refusal(Exception):  # noqa: N818  (a refusal is an answer, not a failure of the program)
    """A change that was not made; nothing has moved. `detail` is a sentence for a person."""

    status: ClassVar[int] = 409
    title: ClassVar[str] = "Refused"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NotFound(Refusal):
    """No such service, pool or endpoint."""

    status = 404
    title = "Not found"


class Refused(Refusal):
    """Makes no sense, or is not safe, as things stand now."""

    status = 409
    title = "Refused"


class Stale(Refusal):
    """The service changed since the caller looked at it."""

    status = 412
    title = "Changed meanwhile"


class Invalid(Refusal):
    """What was asked for can never be right."""

    status = 422
    title = "Invalid"


class Unavailable(Refusal):
    """The state store cannot take the change now: its disk is full, or somebody locks it."""

    status = 503
    title = "Not stored"
