"""TLS to a client: plain HTTP is answered, and the end of our side is the connection's, too."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from proxy.dataplane.tls_layer import OPEN, SHAKING, TlsLayer


class TlsTransport(TlsLayer):
    __slots__ = ("_plain_answer",)
    LEFT = "the client left during the handshake"

    def __init__(
        self,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
        plain_answer: Callable[[], bytes],
    ) -> None:
        super().__init__(context, make, server_side=True)
        self._plain_answer = plain_answer

    def _refuse(self, problem: ssl.SSLError) -> None:
        if problem.reason == "HTTP_REQUEST":
            self._raw.write(self._plain_answer())
        else:
            super()._refuse(problem)

    def write_eof(self) -> None:
        """Tell the client that nothing more comes, and go on reading."""
        if self._state is OPEN and not self._raw.is_closing():
            self._say_end()
            self._raw.write_eof()

    def give_up(self) -> None:
        """End a connection whose handshake is not waited for any more; an open one has its owner."""
        if self._state is SHAKING:
            self.abort()


async def accept(
    sock: socket.socket,
    context: ssl.SSLContext,
    make: Callable[[], asyncio.Protocol],
    plain_answer: Callable[[], bytes],
) -> None:
    """Serve an accepted socket by TLS; returns when the handshake is done, OSError if it failed.

    A client that speaks plain HTTP is told so by `plain_answer`.
    Whoever cancels it, because it takes too long, closes the connection.
    """
    made = TlsTransport(context, make, plain_answer)
    try:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: made, sock)
        await made.handshake()
    except asyncio.CancelledError:
        made.give_up()
        raise
