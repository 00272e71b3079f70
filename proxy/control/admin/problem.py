"""Errors as RFC 9457 problem documents: one function turns whatever went wrong into an answer."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web

from proxy.control.admin.answer import Answer, encode
from proxy.control.refusal import Refusal

PROBLEM_JSON = "application/problem+json"
_log = structlog.get_logger("admin")


class Problem(Exception):  # noqa: N818 - named after the document it becomes
    """What the admin API itself says no with; `errors` lists every one when there are several."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


def first_of(errors: Sequence[str]) -> str:
    """Return the sentence for a list of errors: the first, and how many more there are."""
    more = len(errors) - 1
    if more < 1:
        return errors[0]
    return f"{errors[0]} (and {more} more {'problem' if more == 1 else 'problems'})"


def invalid(errors: Sequence[str]) -> Problem:
    return Problem(422, first_of(errors), errors=errors)


async def answered(work: Callable[[], Awaitable[Answer]], path: str) -> Answer:
    """Return the work's answer, or the problem document for what it raised."""
    try:
        return await work()
    except Exception as error:  # noqa: BLE001 - the one place where all of them end
        return problem_answer(error, path)


def problem_answer(error: Exception, path: str) -> Answer:
    """Turn an exception into an answer; one that nobody foresaw is logged, not shown."""
    match error:
        case Problem():
            extra = {"errors": list(error.errors)} if error.errors else {}
            return _document(error.status, error.detail, path, extra, error.headers)
        case Refusal():
            kind = {"type": _type(error.title), "title": error.title}
            return _document(error.status, error.detail, path, kind)
        case web.HTTPException():
            return _http_problem(error, path)
        case web.RequestPayloadError():
            return _document(400, "The request's body could not be read as it was sent.", path)
        case _:
            return _unforeseen(error, path)


def _document(
    status: int,
    detail: str,
    path: str,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": path,
        **(extra or {}),
    }
    return Answer(
        status=status, body=encode(document), content_type=PROBLEM_JSON, headers=headers or {}
    )


def _type(title: str) -> str:
    return "urn:turnout:problem:" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _http_problem(error: web.HTTPException, path: str) -> Answer:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        detail = f"{error.method} is not possible here; possible: {allowed}."
        return _document(405, detail, path, headers={"Allow": allowed})
    if error.status == 404:
        return _document(404, f"There is nothing at {path}.", path)
    return _document(error.status, error.text or error.reason, path)


def _unforeseen(error: Exception, path: str) -> Answer:
    reference = secrets.token_hex(4)
    _log.error("admin request failed", path=path, reference=reference, exc_info=error)
    detail = f"This is a fault of Turnout, not of the request; its log says more under {reference}."
    return _document(500, detail, path, {"reference": reference})
