"""The admin API, spoken over `http.client`: one connection, one call, one bounded wait."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final
from urllib.parse import quote

from proxy.cli.address import AdminAddress
from proxy.cli.exits import CommandError, ExitCode

CONNECT_TIMEOUT_S: Final = 10.0
"""Nobody who is there takes longer to accept."""
LOOK_TIMEOUT_S: Final = 30.0
"""Looking is answered from memory."""
CHANGE_TIMEOUT_S: Final = 150.0
"""A change waits for the one before it, for its probes, and until every worker has applied it; when
workers are stuck and replaced, the proxy itself gives up after a minute for each change."""
LARGEST_ANSWER: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What the admin API said: the body as it came, and as a value."""

    status: int
    body: bytes
    value: Any


class RefusedError(CommandError):
    """The admin API answered with a problem; its body is at hand for --output json."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(_code(answer.status), *_sentences(answer))
        self.answer = answer


class AdminClient:
    """Calls the admin API at `address`; every call has an end within its `timeout_s`.

    Raises RefusedError for a problem document and CommandError when nobody answers: 6, but 5
    for a change that was asked for, since it may go on.
    """

    def __init__(self, address: AdminAddress, token: str | None) -> None:
        self.address = address
        self._token = _clean(token)

    def get(self, path: str, *, timeout_s: float = LOOK_TIMEOUT_S) -> Answer:
        return self._call("GET", path, None, timeout_s)

    def put(
        self, path: str, body: dict[str, Any], *, timeout_s: float = CHANGE_TIMEOUT_S
    ) -> Answer:
        return self._call("PUT", path, body, timeout_s)

    def post(
        self, path: str, body: dict[str, Any], *, timeout_s: float = CHANGE_TIMEOUT_S
    ) -> Answer:
        return self._call("POST", path, body, timeout_s)

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float
    ) -> Answer:
        connection = _connection(self.address, min(timeout_s, CONNECT_TIMEOUT_S))
        is_asked = False
        try:
            content = None if body is None else json.dumps(body).encode()
            connection.connect()
            connection.sock.settimeout(timeout_s)
            is_asked = body is not None
            connection.request(method, self._path(path), content, self._headers(content))
            response = connection.getresponse()
            answer = _answer(response.status, response.read(LARGEST_ANSWER), self.address)
        except TimeoutError as error:
            if is_asked:
                raise _unanswered(timeout_s) from error
            raise self._unreachable(f"no answer within {timeout_s:g} s") from error
        except (OSError, HTTPException) as error:
            raise self._unreachable(_reason(error)) from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise RefusedError(answer)
        return answer

    def _path(self, path: str) -> str:
        return path if self.address.scheme == "unix" else self.address.path + path

    def _headers(self, content: bytes | None) -> dict[str, str]:
        headers = {"Accept": "application/json", "X-Turnout-Actor": actor()}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers

    def _unreachable(self, why: str) -> CommandError:
        return CommandError(
            ExitCode.UNREACHABLE,
            f"Turnout does not answer at {self.address} ({why}); is it running?"
            " Start it with 'turnout run', or say where it is with --admin or TURNOUT_ADMIN",
        )


def service_path(service: str, *below: str) -> str:
    return "/v1/services/" + "/".join(quote(part, safe="") for part in (service, *below))


def actor() -> str:
    """Who gives the order, for the decision's record: `cli:USER@HOST` in ASCII."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user id has no name
        user = f"uid{os.getuid()}"
    name = f"cli:{user}@{socket.gethostname()}"
    return name.encode("ascii", "replace").decode()


def _clean(token: str | None) -> str | None:
    # http.client would name an unfit value, that is the token, in its complaint.
    if token is None or re.fullmatch(r"[\x21-\x7e]*", token.strip()):
        return token and token.strip()
    raise CommandError(
        ExitCode.USAGE, "the admin token has characters no header can carry: spaces or not ASCII"
    )


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._socket_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._socket_path)


def _unanswered(timeout_s: float) -> CommandError:
    return CommandError(
        ExitCode.TIMED_OUT,
        f"Turnout took the order but has not answered within {timeout_s:g} s; the change may"
        " still be going on, or be done: look with 'turnout status' and 'turnout decisions'",
    )


def _connection(address: AdminAddress, timeout_s: float) -> HTTPConnection:
    if address.scheme == "unix":
        return _UnixConnection(address.path, timeout_s)
    kind = HTTPSConnection if address.scheme == "https" else HTTPConnection
    return kind(address.host, address.port, timeout=timeout_s)


def _answer(status: int, body: bytes, address: AdminAddress) -> Answer:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise CommandError(
            ExitCode.UNREACHABLE,
            f"what answers at {address} is not Turnout's admin API (status {status}, no JSON);"
            " say where it is with --admin or TURNOUT_ADMIN",
        ) from error
    return Answer(status, body, value)


def _reason(error: OSError | HTTPException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _code(status: int) -> ExitCode:
    # 422: what we sent, or the configuration's file, is not valid; the rest is a refusal.
    return ExitCode.USAGE if status == 422 else ExitCode.REFUSED


def _sentences(answer: Answer) -> tuple[str, tuple[str, ...]]:
    problem = answer.value if isinstance(answer.value, dict) else {}
    sentence = problem.get("detail") or problem.get("title") or f"status {answer.status}"
    errors = problem.get("errors")
    details = tuple(str(error) for error in errors) if isinstance(errors, list) else ()
    return str(sentence) + _next_step(answer.status), details


def _next_step(status: int) -> str:
    if status == 401:
        return " (give the token with --token or TURNOUT_ADMIN_TOKEN)"
    return ""
