"""The admin server: the application on its sockets, from start to stop."""

from __future__ import annotations

import asyncio
import logging
import socket

import structlog
from aiohttp import web

from proxy.clock import Clock, SystemClock
from proxy.control.admin.app import build_app
from proxy.control.admin.auth import Access, Tokens
from proxy.control.admin.bind import SocketFile, address_of, close_all, open_sockets, parse
from proxy.control.admin.desk import Desk
from proxy.control.admin.handlers import Handlers
from proxy.control.admin.idempotency import Replies
from proxy.control.admin.metrics import FleetCollector, Instruments

_log = structlog.get_logger("admin")

KEEPALIVE_S = 75.0
"""Also the time a connection has to send its first whole request head."""
STOP_S = 5.0
"""What requests that run at a stop still get."""


class AdminServer:
    """Answers the admin API for `desk` on `bind` (`host:port`, `[v6]:port` or `unix:/path`).

    Pass `sock`, a listening socket that its owner closes, to serve on it instead of opening
    `bind`; `bind` still says which Host names are ours. `tokens` may be replaced at any time.
    """

    def __init__(
        self,
        desk: Desk,
        instruments: Instruments,
        *,
        bind: str,
        tokens: Tokens | None = None,
        sock: socket.socket | None = None,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._bind = parse(bind)
        self._given = sock
        self._opened: list[socket.socket] = []
        self._socket_file: SocketFile | None = None
        self._access = Access(self._bind, tokens or Tokens())
        self._stopping = asyncio.Event()
        handlers = Handlers(desk, FleetCollector(instruments, clock), self._stopping)
        app = build_app(desk, handlers, self._access, Replies(clock))
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_library_log(),
            # A client that goes away ends its wait; a change completes all the same (see Desk).
            handler_cancellation=True,
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=STOP_S,
        )

    @property
    def tokens(self) -> Tokens:
        return self._access.tokens

    @tokens.setter
    def tokens(self, tokens: Tokens) -> None:
        self._access.tokens = tokens

    @property
    def addresses(self) -> list[str]:
        """Where it listens, ports as they were drawn; empty before the start."""
        return [address_of(sock) for sock in self._opened]

    async def start(self) -> None:
        """Open the sockets and serve; OSError with a sentence when they cannot be had."""
        if self._given is not None:
            # The event loop closes what it serves on, and the owner wants to keep its own.
            self._opened = [self._given.dup()]
        else:
            self._opened = open_sockets(self._bind)
            if self._bind.is_unix:
                self._socket_file = SocketFile.of(self._bind.path)
        await self._runner.setup()
        for sock in self._opened:
            await web.SockSite(self._runner, sock).start()

    async def stop(self) -> None:
        """Answer who waits, let running requests end, close what was opened."""
        self._stopping.set()
        await self._runner.cleanup()
        close_all(self._opened)
        self._opened = []
        if self._socket_file is not None:
            self._socket_file.remove()


class _ToEvents(logging.Handler):
    """Turns what aiohttp logs, such as a request that is no HTTP, into one event of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        _log.warning("admin connection failed", said=record.getMessage(), error=repr(error))


def _library_log() -> logging.Logger:
    logger = logging.getLogger("turnout.admin")
    logger.propagate = False
    logger.handlers = [_ToEvents()]
    return logger
