"""Asks one endpoint how it is, as its service's `health` says, and puts the answer in words."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import aiohttp
from yarl import URL

from proxy import __version__, client_tls
from proxy.control.probe import connect, in_words
from proxy.model import PoolTls
from proxy.policy.health import Outcome, Thresholds

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

USER_AGENT = f"turnout-health/{__version__}"
ASKS_TO_DRAIN = "X-Turnout-Drain"

MOST_HEAD = 8 * 1024
"""Bytes of a line, and of a header field, of an answer."""
MOST_BODY = 4 * 1024
NAME_S = 5
"""How long a looked-up name is good; meanwhile, and while it is looked up, all checks share it."""
BODY_S = 0.25
"""A body is read only so that small ones end well for the application."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """How the endpoints of one service are checked."""

    kind: Literal["http", "https", "tcp"] = "http"
    path: str = "/healthz"
    host: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    statuses: tuple[tuple[int, int], ...] = ((200, 399),)
    verify: bool = True
    """Of `https` alone, where the pool itself has no `tls`."""
    tls: PoolTls | None = None
    """How TLS is spoken to the pool, whose checks speak it too then."""
    interval_s: float = 2.0
    timeout_s: float = 2.0
    limits: Thresholds = field(default_factory=Thresholds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one check."""

    outcome: Outcome
    words: str
    """`200 in 1.2 ms`, `connection refused`."""


class Prober(Protocol):
    async def check(self, address: str, settings: CheckSettings) -> Result:
        """Check once, within the settings' timeout; never raises for what an endpoint does."""
        ...

    async def close(self) -> None: ...


class NetworkProber:
    """Checks over the network: a new connection each time, as a new client would have."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def check(self, address: str, settings: CheckSettings) -> Result:
        try:
            async with asyncio.timeout(settings.timeout_s):
                if settings.kind == "tcp":
                    return await _check_tcp(address)
                return await self._check_http(address, settings)
        except TimeoutError:
            what = "connection" if settings.kind == "tcp" else "answer"
            return _failed(f"no {what} within {settings.timeout_s:g} s")
        except (OSError, ValueError, aiohttp.ClientError) as error:
            return _failed(_why(error))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _check_http(self, address: str, settings: CheckSettings) -> Result:
        if not address.startswith("unix:"):
            if self._session is None:
                self._session = _session(
                    aiohttp.TCPConnector(force_close=True, limit=0, ttl_dns_cache=NAME_S)
                )
            return await _get(self._session, address, settings)
        path, tls = address.removeprefix("unix:"), settings.tls
        if tls is not None:
            if tls.verify and not tls.server_name:
                return _failed("TLS: no server_name says whose certificate to expect")
            connector: aiohttp.UnixConnector = _UnixTls(path, tls)
        elif settings.kind == "https":
            return _failed("no https over a unix socket")
        else:
            connector = aiohttp.UnixConnector(path, force_close=True)
        async with _session(connector) as session:
            return await _get(session, "localhost", settings)


class _UnixTls(aiohttp.UnixConnector):
    """TLS over a unix socket, which aiohttp has not: to it, it is plain HTTP."""

    def __init__(self, path: str, tls: PoolTls) -> None:
        super().__init__(path, force_close=True)
        self._context = client_tls.context(tls)
        self._name = client_tls.name_for(tls, "")

    async def _create_connection(self, *_: Any, **__: Any) -> ResponseHandler:
        made: ResponseHandler = self._factory()
        await asyncio.get_running_loop().create_unix_connection(
            lambda: made, self.path, ssl=self._context, server_hostname=self._name or ""
        )
        return made


def _session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the caller has the clock
        auto_decompress=False,
        trust_env=False,
        max_line_size=MOST_HEAD,
        max_field_size=MOST_HEAD,
        read_bufsize=MOST_BODY,
        skip_auto_headers=("Accept-Encoding",),
    )


async def _get(session: aiohttp.ClientSession, authority: str, settings: CheckSettings) -> Result:
    began = time.monotonic()
    tls, kind, name = settings.tls, settings.kind, None
    if tls is not None:
        kind = "http" if isinstance(session.connector, _UnixTls) else "https"
        name = client_tls.name_for(tls, "")
    elif kind == "https":
        name = _name_of(settings.host)
    async with session.get(
        URL(f"{kind}://{authority}{settings.path}", encoded=True),
        headers=dict(_headers(settings)),
        allow_redirects=False,
        ssl=settings.verify if tls is None else client_tls.context(tls),
        server_hostname=name,
    ) as answer:
        words = f"{answer.status} in {_took(time.monotonic() - began)}"
        asks = answer.headers.get(ASKS_TO_DRAIN, "").strip().lower() in {"1", "true"}
        with suppress(TimeoutError, OSError, aiohttp.ClientError):
            async with asyncio.timeout(BODY_S):
                await answer.content.read(MOST_BODY)
        answer.close()
    is_pass = any(first <= answer.status <= last for first, last in settings.statuses)
    outcome = Outcome(is_pass=is_pass, asks_to_drain=asks)
    return Result(outcome=outcome, words=words)


async def _check_tcp(address: str) -> Result:
    began = time.monotonic()
    writer = await connect(address)
    took = time.monotonic() - began
    writer.transport.abort()  # nothing was sent, so there is nothing to wait for
    return Result(outcome=Outcome(is_pass=True), words=f"connected in {_took(took)}")


def _headers(settings: CheckSettings) -> Iterator[tuple[str, str]]:
    yield "User-Agent", USER_AGENT
    if settings.host:
        yield "Host", settings.host
    yield from settings.headers.items()


def _name_of(host: str | None) -> str | None:
    """The name in a Host header, without its port."""
    return None if host is None else URL(f"https://{host}", encoded=True).host


def _failed(words: str) -> Result:
    return Result(outcome=Outcome(is_pass=False), words=words)


def _why(error: Exception) -> str:
    """What went wrong, in words; the cause where aiohttp wraps it."""
    tls_error = _tls_error(error)
    if tls_error is not None:
        return client_tls.in_words(tls_error)
    match error:
        case aiohttp.ClientConnectorDNSError():
            words = "the name is not known"
        case aiohttp.ClientConnectorError():
            words = in_words(error.os_error)
        case aiohttp.ServerDisconnectedError():
            words = "closed without an answer"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            words = "the answer is no valid HTTP"
        case _:
            words = in_words(error)
    return words


def _tls_error(error: Exception) -> ssl.SSLError | None:
    """What TLS itself has to say of a failure."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    elif isinstance(error, aiohttp.ClientOSError) and isinstance(error.__cause__, ssl.SSLError):
        error = error.__cause__
    return error if isinstance(error, ssl.SSLError) else None


def _took(seconds: float) -> str:
    """`0.4 ms`, `12 ms`, `1.5 s`."""
    if seconds >= 1.0:
        return f"{seconds:.1f} s"
    ms = seconds * 1000.0
    return f"{ms:.0f} ms" if ms >= 10.0 else f"{ms:.1f}".removesuffix(".0") + " ms"
