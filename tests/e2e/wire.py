"""A client's connection that believes nothing: every answer is parsed strictly, by hand."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from dataclasses import dataclass, field
from typing import Any, Self

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ([\t -~\x80-\xff]*)")
HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
TIMEOUT_S = 20.0


class WireError(Exception):
    """The connection ended, was reset, or carried what is no HTTP (silence is a TimeoutError)."""


class TruncatedError(WireError):
    """It ended, or was reset, in the body of an answer."""


@dataclass(slots=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    """Names in lower case."""
    body: bytes = b""
    framing: str = "none"
    """none, length, chunked or end (of the connection)."""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[Answer] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        found = self.all(name)
        return ", ".join(found) if found else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def pool(self) -> str:
        return str(self.json()["pool"])

    @property
    def closes(self) -> bool:
        return self.framing == "end" or (self.header("connection") or "").lower() == "close"


class Wire:
    """One connection to the proxy; `async with Wire.to(port) as wire`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(
        cls,
        port: int,
        *,
        source: str | None = None,
        tls: ssl.SSLContext | None = None,
        name: str = "shop.example.com",
    ) -> Self:
        local = (source, 0) if source else None
        asked = None if tls is None else name
        async with asyncio.timeout(TIMEOUT_S):
            return cls(
                *await asyncio.open_connection(
                    "127.0.0.1", port, local_addr=local, ssl=tls, server_hostname=asked
                )
            )

    @property
    def tls(self) -> ssl.SSLObject:
        found: ssl.SSLObject | None = self._writer.get_extra_info("ssl_object")
        assert found is not None, "this connection has no TLS"
        return found

    @property
    def names_shown(self) -> set[str]:
        """Those in the other side's certificate."""
        shown: Any = self.tls.getpeercert()
        return {value for _, value in shown["subjectAltName"]}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._writer.transport.abort()

    @property
    def has_ended(self) -> bool:
        """Whether the other side is known to have closed, with nothing left to read."""
        return self._reader.at_eof() or self._reader.exception() is not None

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._writer.drain()
        except ConnectionError as error:
            raise WireError(f"broken off while sending: {error}") from error

    def finish(self) -> None:
        """Close our side only."""
        self._writer.write_eof()

    async def request(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Send one request, read its answer."""
        await self.send(request_bytes(path, method=method, headers=headers, body=body))
        return await self.answer(method)

    async def answer(self, method: str = "GET") -> Answer:
        """Read the final answer, with the interim ones before it."""
        interim: list[Answer] = []
        kind = WireError
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while (answer := await self._head()).status < 200 and answer.status != 101:
                    interim.append(answer)
                answer.interim = interim
                kind = TruncatedError
                await self._body(answer, method)
        except asyncio.IncompleteReadError as error:
            raise kind(f"closed after {error.partial[-200:]!r}") from error
        except ConnectionError as error:
            raise kind(f"broken off: {error!r}") from error
        return answer

    async def head(self) -> Answer:
        """Read only a head, for whoever follows the body piece by piece."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self._head()

    async def chunk(self) -> bytes:
        """Read the next chunk of a chunked body: empty at its end, WireError if broken off."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._chunk()
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise WireError(f"broken off in a body: {error!r}") from error

    async def rest(self) -> bytes:
        """Everything until the other side closes."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._reader.read()
        except ConnectionError:
            return b""

    async def is_closed(self) -> bool:
        """Whether the other side closes within the timeout, saying no more."""
        return await self.rest() == b""

    async def stays_open(self, seconds: float) -> bool:
        """Whether nothing at all comes for so long, an end included."""
        try:
            async with asyncio.timeout(seconds):
                await self._reader.read(1)
        except TimeoutError:
            return True
        return False

    async def _head(self) -> Answer:
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        match = STATUS_LINE.fullmatch(first)
        if match is None:
            raise WireError(f"status line {first!r}")
        return Answer(int(match[1]), [_header(line) for line in lines])

    async def _body(self, answer: Answer, method: str) -> None:
        lengths, codings = answer.all("content-length"), answer.all("transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise WireError(f"two framings: {lengths} {codings}")
        if method == "HEAD" or answer.status in {101, 204, 304}:
            return
        if codings:
            if codings != ["chunked"]:
                raise WireError(f"transfer-encoding {codings}")
            answer.framing = "chunked"
            answer.body = b"".join([piece async for piece in self._chunks()])
            answer.trailers = self._trailers
        elif lengths:
            answer.framing = "length"
            answer.body = await self._reader.readexactly(int(lengths[0]))
        else:
            answer.framing = "end"
            answer.body = await self._reader.read()

    async def _chunks(self) -> Any:
        while piece := await self._chunk():
            yield piece

    async def _chunk(self) -> bytes:
        line = (await self._reader.readuntil(b"\r\n"))[:-2].split(b";")[0]
        if not re.fullmatch(rb"[0-9a-fA-F]+", line):
            raise WireError(f"chunk size {line!r}")
        if size := int(line, 16):
            piece = await self._reader.readexactly(size + 2)
            if not piece.endswith(b"\r\n"):
                raise WireError("a chunk without its end")
            return piece[:-2]
        self._trailers = []
        while (line := await self._reader.readuntil(b"\r\n")) != b"\r\n":
            self._trailers.append(_header(line[:-2]))
        return b""

    _trailers: list[tuple[str, str]]


def request_bytes(
    path: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1"]
    named = {"Host": "shop.example.com", **(headers or {})}
    if body is not None:
        named["Content-Length"] = str(len(body))
    lines += [f"{name}: {value}" for name, value in named.items()]
    return ("\r\n".join([*lines, "", ""])).encode("latin-1") + (body or b"")


def _header(line: bytes) -> tuple[str, str]:
    match = HEADER_LINE.fullmatch(line)
    if match is None:
        raise WireError(f"header line {line!r}")
    return match[1].decode("latin-1").lower(), match[2].decode("latin-1")
