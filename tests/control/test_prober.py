"""Checks against real sockets that answer as they are told to, byte by byte."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from proxy import __version__
from proxy.control.prober import CheckSettings, NetworkProber
from proxy.model import PoolTls
from tests.authority import Authority

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
QUICK = CheckSettings(timeout_s=5.0)

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Answers:
    """Gives one answer to every connection, and keeps what it was asked."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heads: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(self.answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    handler: Handler, host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    server = await asyncio.start_server(handler, host, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    finally:
        await end(server)


async def end(server: asyncio.Server) -> None:
    """Close the server when it has accepted everything, and everything accepted is over."""
    await quiet()
    server.close()
    await quiet()


async def quiet() -> None:
    """Wait until nothing is going on but ourselves."""
    rounds = 0
    async with asyncio.timeout(20):
        while rounds < 5:  # one task leads to the next, with callbacks in between
            rounds = rounds + 1 if asyncio.all_tasks() == {asyncio.current_task()} else 0
            await asyncio.sleep(0)


@pytest.fixture
async def prober() -> AsyncIterator[NetworkProber]:
    made = NetworkProber()
    yield made
    await made.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_answer_that_passes_is_told_with_its_time(
    prober: NetworkProber, host: str
) -> None:
    async with serving(Answers(OK), host) as address:
        result = await prober.check(address, QUICK)
    assert result.outcome.is_pass
    assert result.outcome.asks_to_drain is False
    assert re.fullmatch(r"200 in [\d.]+ ms", result.words)


async def test_it_says_who_asks_for_what_and_keeps_no_connection(prober: NetworkProber) -> None:
    origin = Answers(OK)
    settings = replace(
        QUICK, path="/ready?deep=%20a", host="shop.internal", headers={"X-Probe": "turnout"}
    )
    async with serving(origin) as address:
        for _ in range(2):
            assert (await prober.check(address, settings)).outcome.is_pass
    assert len(origin.heads) == 2
    request, *lines = origin.heads[0].split("\r\n")
    assert request == "GET /ready?deep=%20a HTTP/1.1"
    assert {f"User-Agent: turnout-health/{__version__}", "Host: shop.internal"} <= set(lines)
    assert "X-Probe: turnout" in lines
    assert "connection: close" in map(str.lower, lines)


@pytest.mark.parametrize(
    ("status", "statuses", "is_pass"),
    [
        (200, ((200, 399),), True),
        (302, ((200, 399),), True),
        (404, ((200, 399),), False),
        (503, ((200, 399),), False),
        (401, ((200, 299), (401, 401)), True),
        (302, ((200, 299),), False),
    ],
)
async def test_the_statuses_say_what_passes_and_redirections_are_not_followed(
    prober: NetworkProber, status: int, statuses: tuple[tuple[int, int], ...], *, is_pass: bool
) -> None:
    origin = Answers(b"HTTP/1.1 %d X\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n" % status)
    async with serving(origin) as address:
        result = await prober.check(address, replace(QUICK, statuses=statuses))
    assert result.outcome.is_pass is is_pass
    assert result.words.startswith(f"{status} in ")
    assert len(origin.heads) == 1


@pytest.mark.parametrize(
    ("status", "header", "asks"),
    [
        (200, b"X-Turnout-Drain: 1", True),
        (503, b"x-turnout-drain: TRUE", True),
        (200, b"X-Turnout-Drain: 0", False),
        (200, b"X-Turnout-Drain:", False),
        (200, b"X-Other: 1", False),
    ],
)
async def test_an_answer_may_ask_for_a_drain_whatever_its_status(
    prober: NetworkProber, status: int, header: bytes, *, asks: bool
) -> None:
    answer = b"HTTP/1.1 %d X\r\n%b\r\nContent-Length: 0\r\n\r\n" % (status, header)
    async with serving(Answers(answer)) as address:
        result = await prober.check(address, QUICK)
    assert result.outcome.asks_to_drain is asks
    assert result.outcome.is_pass is (status == 200)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed without an answer"),
        (b"220 smtp.example.com ready\r\n\r\n", "the answer is no valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000, "the answer is no valid HTTP"),
    ],
)
async def test_what_is_no_answer_fails_in_words(
    prober: NetworkProber, answer: bytes, words: str
) -> None:
    async with serving(Answers(answer)) as address:
        result = await prober.check(address, QUICK)
    assert (result.outcome.is_pass, result.outcome.asks_to_drain) == (False, None)
    assert result.words == words


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_an_endpoint_that_refuses_fails_in_words(prober: NetworkProber, kind: str) -> None:
    async with serving(Answers(OK)) as address:
        pass  # nobody listens there any more
    settings = replace(QUICK, kind="tcp" if kind == "tcp" else "http")
    assert (await prober.check(address, settings)).words == "connection refused"


async def test_an_endpoint_that_says_nothing_fails_after_the_timeout(
    prober: NetworkProber,
) -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()
        gone.set()

    async with serving(silent) as address:
        result = await prober.check(address, replace(QUICK, timeout_s=0.5))
        assert result.words == "no answer within 0.5 s"
        async with asyncio.timeout(20):
            await gone.wait()  # the connection was given up


async def test_a_body_without_end_is_not_read_to_the_end(prober: NetworkProber) -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                writer.write(bytes(65536))
                sent += 65536
                await writer.drain()
        except OSError:
            writer.close()

    async with serving(endless) as address, asyncio.timeout(20):
        assert (await prober.check(address, replace(QUICK, timeout_s=5.0))).outcome.is_pass
    assert sent < 100_000_000


async def test_a_body_that_does_not_come_does_not_fail_what_the_status_said(
    prober: NetworkProber,
) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        await reader.read()
        writer.close()

    async with serving(slow) as address:
        assert (await prober.check(address, QUICK)).outcome.is_pass


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_a_unix_socket_is_checked(prober: NetworkProber, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    server = await asyncio.start_unix_server(Answers(OK), path)
    settings = replace(QUICK, kind="tcp" if kind == "tcp" else "http")
    result = await prober.check(f"unix:{path}", settings)
    await end(server)
    assert result.outcome.is_pass
    assert (await prober.check(f"unix:{tmp_path}/none", settings)).words == (
        "no such file or directory"
    )


async def test_a_connection_is_enough_for_tcp(prober: NetworkProber) -> None:
    async with serving(Answers(b"")) as address:
        result = await prober.check(address, replace(QUICK, kind="tcp"))
    assert result.outcome.is_pass
    assert re.fullmatch(r"connected in [\d.]+ ms", result.words)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """One that nobody vouches for."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=shop.internal"
    subprocess.run([*made.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


async def test_a_certificate_must_be_valid_unless_told_otherwise(
    prober: NetworkProber, certificate: ssl.SSLContext
) -> None:
    settings = replace(QUICK, kind="https", host="shop.internal:8443")
    async with serving(Answers(OK), context=certificate) as address:
        distrusted = await prober.check(address, settings)
        trusted = await prober.check(address, replace(settings, verify=False))
    assert not distrusted.outcome.is_pass
    assert distrusted.words == "certificate: self-signed certificate"
    assert trusted.outcome.is_pass, trusted.words


async def test_https_to_a_plain_port_fails_in_words(prober: NetworkProber) -> None:
    async with serving(Answers(b"HTTP/1.1 400 Bad\r\n\r\n")) as address:
        result = await prober.check(address, replace(QUICK, kind="https", timeout_s=0.5))
    assert not result.outcome.is_pass
    assert result.words


# ---- pools with TLS ----


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.mark.parametrize("kind", ["http", "https"])
async def test_a_pool_with_tls_is_asked_by_tls_as_the_pool_says(
    prober: NetworkProber, authority: Authority, kind: Literal["http", "https"]
) -> None:
    names: list[str | None] = []
    context = authority.issue("app.internal").server(clients=authority)
    context.sni_callback = lambda _, name, __: names.append(name)
    tls = PoolTls(
        ca=authority.pem,
        server_name="app.internal",
        certificate=authority.issue("turnout.internal").certificate,
    )
    origin = Answers(OK)
    settings = replace(QUICK, kind=kind, host="shop.example", tls=tls)
    async with serving(origin, context=context) as address:
        result = await prober.check(address, settings)
    assert result.outcome.is_pass, result.words
    assert re.fullmatch(r"200 in [\d.]+ ms", result.words)
    assert names == ["app.internal"]
    assert "\r\nHost: shop.example\r\n" in origin.heads[0]


async def test_an_address_is_looked_for_in_the_certificate_where_there_is_no_name(
    prober: NetworkProber, authority: Authority
) -> None:
    settings = replace(QUICK, tls=PoolTls(ca=authority.pem))
    async with serving(Answers(OK), context=authority.issue("127.0.0.1").server()) as address:
        assert (await prober.check(address, settings)).outcome.is_pass
    async with serving(Answers(OK), context=authority.issue("other.test").server()) as address:
        result = await prober.check(address, settings)
    assert not result.outcome.is_pass
    assert result.words.startswith("certificate: IP address mismatch")


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        (PoolTls(server_name="other.test", ca="ours"), "certificate: hostname mismatch"),
        (PoolTls(ca="another"), "certificate: unable to get local issuer certificate"),
        (PoolTls(), "certificate: "),
        (PoolTls(verify=False), "200 in "),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_said(
    prober: NetworkProber, authority: Authority, tls: PoolTls, words: str
) -> None:
    pems = {"ours": authority.pem, "another": Authority().pem}
    settings = replace(QUICK, tls=replace(tls, ca=pems.get(tls.ca, "")))
    async with serving(Answers(OK), context=authority.issue("127.0.0.1").server()) as address:
        result = await prober.check(address, settings)
    assert result.words.startswith(words)


async def test_a_plain_endpoint_of_a_pool_with_tls_is_told_as_such(
    prober: NetworkProber, authority: Authority
) -> None:
    async with serving(Answers(b"HTTP/1.1 400 Bad\r\n\r\n")) as address:
        tls = PoolTls(ca=authority.pem)
        result = await prober.check(address, replace(QUICK, tls=tls, timeout_s=1.0))
    assert not result.outcome.is_pass
    assert result.words


async def test_a_unix_socket_is_asked_by_tls_too(
    prober: NetworkProber, authority: Authority, tmp_path: Path
) -> None:
    path = str(tmp_path / "app.sock")
    origin = Answers(OK)
    context = authority.issue("app.internal").server()
    server = await asyncio.start_unix_server(origin, path, ssl=context)
    tls = PoolTls(ca=authority.pem, server_name="app.internal")
    result = await prober.check(f"unix:{path}", replace(QUICK, tls=tls))
    nameless = await prober.check(f"unix:{path}", replace(QUICK, tls=PoolTls(ca=authority.pem)))
    other = replace(tls, server_name="other.internal")
    mismatch = await prober.check(f"unix:{path}", replace(QUICK, tls=other))
    await end(server)
    assert result.outcome.is_pass, result.words
    assert nameless.words == "TLS: no server_name says whose certificate to expect"
    assert mismatch.words.startswith("certificate: hostname mismatch")
    assert len(origin.heads) == 1


async def test_tcp_only_connects_also_where_the_pool_has_tls(
    prober: NetworkProber, authority: Authority
) -> None:
    tls = PoolTls(ca=authority.pem)
    async with serving(Answers(b"")) as address:
        result = await prober.check(address, replace(QUICK, kind="tcp", tls=tls))
    assert result.outcome.is_pass
