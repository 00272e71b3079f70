"""Who may ask the admin API for what: tokens, the Host and Origin of browsers, the actor's name.

With a token configured (`token` writes and reads, `read_token` reads) every request but
`/healthz` and `/readyz` must carry one, and Host and Origin are not looked at: a page of
another site cannot know the token, a browser sends an Authorization header across sites
only after a preflight that is never granted, and an admin behind another proxy is called
by whatever name that proxy has.

Without a token only a loopback address or a unix socket may be bound, and there a browser
on the same machine is the danger: a page of another site may post to 127.0.0.1, or point
its own name at it (DNS rebinding). So the Host must be a loopback name or address or the
one that was bound (421), and an Origin must be our own (403). On a unix socket, which no
browser can reach by itself, any Host will do.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

from proxy.control.admin.bind import Bind
from proxy.control.admin.problem import Problem

PROBES = frozenset({"/healthz", "/readyz"})
READING = frozenset({"GET", "HEAD"})
ACTOR_HEADER = "X-Turnout-Actor"
LONGEST_ACTOR = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The bearer tokens; an empty or absent one matches nothing."""

    write: str | None = None
    read: str | None = None

    @property
    def is_open(self) -> bool:
        return not (self.write or self.read)

    def __repr__(self) -> str:
        return f"Tokens(write={'***' if self.write else None}, read={'***' if self.read else None})"


class Access:
    """Lets a request in or raises the Problem that says why not; `tokens` may be replaced live."""

    def __init__(self, bind: Bind, tokens: Tokens) -> None:
        self._bind = bind
        self.tokens = tokens

    def check(self, request: web.Request) -> None:
        if not self.tokens.is_open:
            self._check_token(request)
            return
        host = _only_host(request)
        if not self._bind.is_unix and not self._is_own_name(host):
            raise Problem(421, f"{host[:80]!r} is no name of this admin API (expected localhost).")
        origin = request.headers.get("Origin")
        if origin is not None and not _is_same_origin(origin, host):
            raise Problem(403, f"Pages of {origin[:80]!r} may not call this admin API.")

    def _check_token(self, request: web.Request) -> None:
        if request.path in PROBES:
            return
        token = _bearer(request.headers.get("Authorization", ""))
        # Both are compared always, so that the time taken says nothing about either.
        may_write = _matches(token, self.tokens.write)
        may_read = _matches(token, self.tokens.read) or may_write
        if not may_read:
            raise _unauthorized(token)
        if request.method not in READING and not may_write:
            raise Problem(
                403,
                "This token may only read; a change needs the token of `admin.token`.",
                headers={"WWW-Authenticate": 'Bearer realm="turnout", error="insufficient_scope"'},
            )

    def _is_own_name(self, host: str) -> bool:
        name = _name_of(host)
        # A request without Host (HTTP/1.0) is no browser's.
        return name in {"", self._bind.host} or is_loopback(name)


def is_loopback(name: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def actor(request: web.Request) -> str:
    """Return who asks, for the decision's record: `cli:...` as it says, `api:...`, or `api`."""
    said = request.headers.get(ACTOR_HEADER, "")
    name = "".join(letter for letter in said if " " <= letter <= "~").strip()[:LONGEST_ACTOR]
    if not name:
        return "api"
    # The prefix is ours, so that nobody signs as "file" or "ttl"; the CLI brings its own.
    return name if name.startswith("cli:") else f"api:{name}"


def _unauthorized(token: bytes) -> Problem:
    challenge = 'Bearer realm="turnout"'
    if not token:
        detail = "A bearer token is needed: Authorization: Bearer TOKEN."
        return Problem(401, detail, headers={"WWW-Authenticate": challenge})
    challenge += ', error="invalid_token"'
    return Problem(401, "This token is not known here.", headers={"WWW-Authenticate": challenge})


def _bearer(header: str) -> bytes:
    scheme, _, token = header.partition(" ")
    return _octets(token.strip()) if scheme.lower() == "bearer" else b""


def _matches(token: bytes, expected: str | None) -> bool:
    known = _octets(expected or "")
    return hmac.compare_digest(token, known) and known != b""


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _only_host(request: web.Request) -> str:
    hosts = request.headers.getall("Host", [])
    if len(hosts) > 1 or (not hosts and request.version >= (1, 1)):
        raise Problem(400, "The request must have exactly one Host header.")
    return hosts[0].strip().lower() if hosts else ""


def _name_of(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


def _is_same_origin(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return False
    ports = {"http": ":80", "https": ":443"}
    if parts.scheme not in ports or not host:
        return False
    default = ports[parts.scheme]
    return parts.netloc.removesuffix(default) == host.removesuffix(default)
