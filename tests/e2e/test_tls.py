"""TLS through a real proxy: real clients, renewed files, clients' certificates, resumption."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect

from tests.e2e.stage import Stage, Turnout, wait_until
from tests.e2e.wire import Wire, WireError
from tests.ports import free_port

AUTHORITY = trustme.CA()
NAME = "shop.example.com"
MIB = 1024 * 1024


def write(folder: Path, name: str, *names: str, authority: trustme.CA = AUTHORITY) -> None:
    """A certificate and its key, each replaced as renewing programs do."""
    pair = authority.issue_cert(*names)
    chain = b"".join(each.bytes() for each in pair.cert_chain_pems)
    for suffix, content in (("key", pair.private_key_pem.bytes()), ("crt", chain)):
        fresh = folder / f"{name}.{suffix}.new"
        fresh.write_bytes(content)
        fresh.rename(folder / f"{name}.{suffix}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    write(folder, "shop", NAME, "127.0.0.1")
    write(folder, "admin", "admin.example.com")
    write(folder, "client", "worker.example.com")
    (folder / "ca.pem").write_bytes(AUTHORITY.cert_pem.bytes())
    return folder


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: free_port() for name in ("site", "strict", "asking")}


@pytest.fixture(scope="module")
def turnout(module_stage: Stage, folder: Path, ports: dict[str, int]) -> Iterator[Turnout]:
    def pair(name: str) -> dict[str, str]:
        return {"cert": str(folder / f"{name}.crt"), "key": str(folder / f"{name}.key")}

    def listener(name: str, **tls: Any) -> dict[str, Any]:
        said = {"certificates": [pair("shop"), pair("admin")], **tls}
        return {"bind": f"127.0.0.1:{ports[name]}", "tls": said}

    ca = str(folder / "ca.pem")
    blue = module_stage.origin("blue", "v41")
    turnout = module_stage.turnout(
        blue,
        module_stage.origin("green", "v42"),
        workers=2,
        top={
            "listeners": [
                listener("site", hsts={}),
                listener("strict", min_version="1.3", client_ca=ca),
                listener("asking", client_ca=ca, client_auth="optional"),
            ]
        },
    )
    yield turnout
    assert blue.malformed() == []


def trusting(folder: Path, *, shows: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if shows:
        context.load_cert_chain(folder / f"{shows}.crt", folder / f"{shows}.key")
    return context


async def secure(port: int, context: ssl.SSLContext, name: str = NAME) -> Wire:
    return await Wire.to(port, tls=context, name=name)


def curl(folder: Path, url: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["curl", "-sS", "--max-time", "20", "--cacert", str(folder / "ca.pem"), *options, url],
        capture_output=True,
        check=False,
    )


def shown(port: int, folder: Path, name: str = NAME) -> set[str]:
    """The names in the certificate that a new client is shown."""

    async def ask() -> set[str]:
        async with await secure(port, trusting(folder), name) as wire:
            return wire.names_shown

    return asyncio.run(ask())


# ---- real clients ----


@pytest.mark.usefixtures("turnout")
@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not here")
def test_curl_is_served_and_told_to_stay_with_https(folder: Path, ports: dict[str, int]) -> None:
    to = ("--connect-to", f"::127.0.0.1:{ports['site']}")
    done = curl(folder, f"https://{NAME}/headers", "-i", "--http1.1", *to)
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert b"\r\nStrict-Transport-Security: max-age=31536000" in head
    headers = {name.lower(): value for name, value in json.loads(body)["headers"]}
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-forwarded-port"] == str(ports["site"])
    for name in ("admin.example.com", NAME):  # each name has its certificate
        assert curl(folder, f"https://{name}/who", *to).returncode == 0
    assert b"HTTP/1.1 400" in curl(folder, f"http://127.0.0.1:{ports['site']}/", "-i").stdout


@pytest.mark.usefixtures("turnout")
@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not here")
def test_openssl_is_refused_what_is_too_old(ports: dict[str, int]) -> None:
    def s_client(name: str, *options: str) -> str:
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{ports[name]}", *options],
            input=b"",
            capture_output=True,
            timeout=20,
            check=False,
        )
        return (done.stdout + done.stderr).decode(errors="replace")

    seclevel = ("-cipher", "DEFAULT@SECLEVEL=0")
    assert "alert protocol version" in s_client("site", "-tls1_1", *seclevel)
    assert "alert protocol version" in s_client("strict", "-tls1_2")
    found = s_client("site", "-tls1_2", "-alpn", "h2,http/1.1")
    assert "ALPN protocol: http/1.1" in found
    assert "Secure Renegotiation IS supported" in found
    assert "Compression: NONE" in found


@pytest.mark.usefixtures("turnout")
async def test_big_bodies_and_a_websocket_go_through(folder: Path, ports: dict[str, int]) -> None:
    context = trusting(folder)
    async with await secure(ports["site"], context) as wire:
        body = bytes(range(256)) * (8 * MIB // 256)
        echoed = await wire.request("/echo", method="POST", body=body)
        assert echoed.json()["length"] == len(body)
        assert len((await wire.request(f"/big?bytes={8 * MIB}")).body) == 8 * MIB
    url = f"wss://127.0.0.1:{ports['site']}/ws"
    async with connect(url, ssl=context, server_hostname=NAME) as socket:
        for message in ("hello", "x" * 50_000):
            await socket.send(message)
            while (said := await socket.recv()) != message:  # it may say who it is first
                assert isinstance(said, str)


async def test_a_name_that_is_none_is_refused_and_fills_no_log(
    turnout: Turnout, folder: Path, ports: dict[str, int]
) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(folder).wrap_bio(incoming, outgoing, server_hostname=NAME)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    assert NAME.encode() in hello
    reader, writer = await asyncio.open_connection("127.0.0.1", ports["site"])
    writer.write(hello.replace(NAME.encode(), b"\xff" * len(NAME)))
    async with asyncio.timeout(10):
        assert (await reader.read())[:1] == b"\x15", "an alert, and the end"
    writer.close()
    log = turnout.log()
    assert "UnicodeDecodeError" not in log
    assert "Traceback" not in log


# ---- clients' certificates ----


async def test_a_client_must_have_a_certificate_where_it_is_required(
    turnout: Turnout, folder: Path, ports: dict[str, int]
) -> None:
    with pytest.raises((ssl.SSLError, WireError, ConnectionError)):
        async with await secure(ports["strict"], trusting(folder)) as wire:
            await wire.request("/who")
    async with await secure(ports["strict"], trusting(folder, shows="client")) as wire:
        got = await wire.request("/headers", headers={"X-Client-Cert-San": "DNS:root.example"})
    headers = [(name.lower(), value) for name, value in got.json()["headers"]]
    assert ("x-client-cert-san", "DNS:worker.example.com") in headers
    assert [name for name, _ in headers].count("x-client-cert-san") == 1
    wait_until(
        lambda: (
            turnout.metric(
                "turnout_connections_refused_total",
                listener=f"127.0.0.1:{ports['strict']}",
                reason="tls",
            )
            >= 1
        ),
        "the refused handshake is counted",
    )


@pytest.mark.usefixtures("turnout")
async def test_and_may_do_without_where_it_is_optional(folder: Path, ports: dict[str, int]) -> None:
    forged = {"X-Client-Cert-Subject": "CN=root", "X_Client_Cert_San": "DNS:root"}
    async with await secure(ports["asking"], trusting(folder)) as wire:
        got = await wire.request("/headers", headers=forged)
    assert not [n for n, _ in got.json()["headers"] if "client" in n.lower()]
    async with await secure(ports["asking"], trusting(folder, shows="client")) as wire:
        got = await wire.request("/headers", headers=forged)
    assert ["X-Client-Cert-San", "DNS:worker.example.com"] in got.json()["headers"]
    assert "root" not in got.body.decode()


# ---- renewed files ----


def test_status_and_metrics_say_until_when_certificates_are_valid(
    turnout: Turnout, folder: Path, ports: dict[str, int]
) -> None:
    found = turnout.get("/v1/status")["certificates"]
    assert len(found) == 6
    assert found[0]["names"] == [NAME]
    assert found[0]["state"] == "valid"
    assert (
        turnout.metric(
            "turnout_tls_certificate_expiry_timestamp_seconds",
            listener=f"127.0.0.1:{ports['site']}",
            certificate=str(folder / "shop.crt"),
        )
        > time.time()
    )


@pytest.mark.usefixtures("turnout")
async def test_a_renewed_file_is_served_while_open_connections_go_on(
    folder: Path, ports: dict[str, int]
) -> None:
    port, answered, failed = ports["site"], 0, 0
    until = time.monotonic() + 60

    async def ask() -> None:
        nonlocal answered, failed
        async with await secure(port, trusting(folder)) as wire:
            while time.monotonic() < until:
                failed += (await wire.request("/who")).status != 200
                answered += 1
                await asyncio.sleep(0.02)

    asking = asyncio.get_running_loop().create_task(ask())
    await asyncio.sleep(0.3)
    write(folder, "shop", NAME, "renewed.example.com")
    renewed = time.monotonic()
    while "renewed.example.com" not in await asyncio.to_thread(shown, port, folder):
        assert time.monotonic() - renewed < 20
        await asyncio.sleep(0.1)
    before = answered
    while answered < before + 5:
        await asyncio.sleep(0.05)
        assert not asking.done(), asking.exception()
    until = 0.0
    await asking
    assert not failed


def test_a_file_that_does_not_fit_leaves_the_old_one_and_shows(
    turnout: Turnout, folder: Path, ports: dict[str, int]
) -> None:
    def is_told(words: str) -> bool:
        return words in str(turnout.get("/v1/status")["config"]["last_error"])

    whole = (folder / "shop.key").read_bytes()
    before = shown(ports["site"], folder)
    other = AUTHORITY.issue_cert("other.example.com")
    for wrong, words in (
        (b"nothing", "holds no private key that can be read"),
        (other.private_key_pem.bytes(), "is not the key of the certificate beside it"),
    ):
        (folder / "shop.key").write_bytes(wrong)
        wait_until(
            partial(is_told, words),
            "the status says what is wrong",
        )
        assert turnout.metric("turnout_config_last_reload_successful") == 0
        assert shown(ports["site"], folder) == before
    (folder / "shop.key").write_bytes(whole)
    wait_until(
        lambda: turnout.get("/v1/status")["config"]["last_error"] is None, "all is well again"
    )
    assert shown(ports["site"], folder) == before
    assert "PRIVATE" not in turnout.log()


# ---- resumption ----


@pytest.mark.usefixtures("turnout")
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_a_session_is_resumed(folder: Path, ports: dict[str, int], version: str) -> None:
    context = trusting(folder)
    context.maximum_version = ssl.TLSVersion[version]

    def connect_once(session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
        import socket  # noqa: PLC0415 - a plain client of the standard library

        with (
            socket.create_connection(("127.0.0.1", ports["site"]), 10) as sock,
            context.wrap_socket(sock, server_hostname=NAME, session=session) as tls,
        ):
            tls.sendall(b"GET /who HTTP/1.1\r\nHost: " + NAME.encode() + b"\r\n\r\n")
            assert tls.recv(65536).startswith(b"HTTP/1.1 200 ")
            return bool(tls.session_reused), tls.session

    reused, session = await asyncio.to_thread(connect_once, None)
    assert not reused
    results = [(await asyncio.to_thread(connect_once, session))[0] for _ in range(8)]
    assert all(results), "by any worker"
