"""TLS to the endpoints, with real certificates in files: who is trusted, and what changes that."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.authority import Authority
from tests.e2e.load import Load
from tests.e2e.stage import Origin, Stage, Turnout, wait_until
from tests.e2e.wire import Answer, Wire
from tests.ports import free_port

NAME = "app.test"
HEALTH = {"interval": "100ms", "timeout": "1s"}
NGINX = shutil.which("nginx")


class Site:
    """One proxy with a service for each case; `shop` has all hosts that no other one has."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        self.folder = folder
        self.authority = Authority()
        self.ca = folder / "ca.pem"
        self.trust(self.authority)
        self.good = self.origin("good", NAME)
        self.wrong = self.origin("wrong", "other.test")
        self.shy = self.origin("shy", NAME, str(self.ca))
        self.nginx_port = free_port()
        tls = {"ca": str(self.ca), "server_name": NAME}
        cert, key = self.authority.issue("turnout.test").write(folder, "turnout")
        mixed = [*self.good.addresses, *self.wrong.addresses]
        services = {
            "shop": _service(tls, self.good.addresses, health=HEALTH),
            "mixed": _service(tls, mixed, "mixed", balance="round_robin"),
            "wrong": _service(tls, self.wrong.addresses, "wrong"),
            "known": _service({**tls, "cert": cert, "key": key}, self.shy.addresses, "known"),
            "unknown": _service(tls, self.shy.addresses, "unknown"),
            "checked": _service(tls, self.wrong.addresses, "checked", health=HEALTH),
            "nginx": _service(tls, [f"127.0.0.1:{self.nginx_port}"], "nginx"),
        }
        self.turnout: Turnout = stage.turnout([], [], start=False, top={"services": services})
        self.turnout.launch()
        wait_until(self._serves, "the shop is served", timeout_s=20)

    def _serves(self) -> bool:
        try:
            return bool(self.turnout.endpoint(self.good.addresses[0])["available"])
        except OSError:
            return False

    def trust(self, *authorities: Authority) -> None:
        fresh = self.ca.with_suffix(".new")
        fresh.write_text("".join(each.pem for each in authorities), encoding="utf-8")
        fresh.replace(self.ca)

    def origin(self, pool: str, name: str, *clients: str) -> Origin:
        files = self.authority.issue(name).write(self.folder, pool)
        return self.stage.origin(pool, "v1", 1, *files, *clients)

    async def ask(self, service: str, path: str = "/who", **more: Any) -> Answer:
        async with await Wire.to(self.turnout.port) as wire:
            return await wire.request(path, headers={"Host": f"{service}.test"}, **more)

    def failures(self, service: str) -> float:
        return self.turnout.metric(
            "turnout_upstream_failures_total", service=service, kind="connect"
        )


def _service(tls: dict[str, str], blue: list[str], host: str = "", **more: Any) -> dict[str, Any]:
    route = {"host": f"{host}.test"} if host else {"path": "/"}
    pools = {"blue": {"endpoints": blue, "tls": tls}, "green": {"endpoints": [], "tls": tls}}
    return {"routes": [route], "pools": pools, "active": "blue", **more}


@pytest.fixture(scope="module")
def site(module_stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(module_stage, tmp_path_factory.mktemp("tls"))


async def test_requests_checks_and_the_host_header_go_over_tls(site: Site) -> None:
    answer = await site.ask("any", "/headers")
    assert ["Host", "any.test"] in [list(each) for each in answer.json()["headers"]]
    endpoint = site.turnout.endpoint(site.good.addresses[0])
    assert endpoint["up"] is True
    assert endpoint["last_check"].startswith("200 in ")


async def test_a_wrong_name_is_passed_over_where_there_is_another_endpoint(site: Site) -> None:
    for _ in range(3):
        answers = [await site.ask("mixed", method=method) for method in ("GET", "POST") * 3]
        assert {(answer.status, answer.pool) for answer in answers} == {(200, "good")}
    assert site.failures("mixed") >= 1


async def test_a_wrong_name_alone_is_a_502_and_the_detail_is_for_the_operators(site: Site) -> None:
    answer = await site.ask("wrong")
    assert answer.status == 502
    assert answer.header("proxy-status") == "turnout; error=tls_certificate_error"
    assert b"other.test" not in answer.body
    assert b"mismatch" not in answer.body
    assert site.failures("wrong") >= 1
    assert "certificate: hostname mismatch" in site.turnout.log().lower()
    assert "PRIVATE KEY" not in site.turnout.log()


async def test_a_check_says_in_words_what_is_wrong_with_the_certificate(site: Site) -> None:
    (endpoint,) = site.turnout.service("checked")["pools"]["blue"]["endpoints"]
    assert endpoint["up"] is False
    assert endpoint["last_check"].startswith("certificate: hostname mismatch")
    assert (await site.ask("checked")).status == 503


async def test_an_endpoint_that_wants_a_certificate_gets_the_configured_one(site: Site) -> None:
    assert (await site.ask("known")).pool == "shy"
    answer = await site.ask("unknown", method="POST")
    assert answer.status == 502
    assert str(answer.header("proxy-status")).startswith("turnout; error=")


@pytest.mark.parametrize("size", [1, 100_000, 20_000_000])
async def test_bodies_of_any_size_come_through_both_ways(site: Site, size: int) -> None:
    before = site.turnout.rss_kib()
    down = await site.ask("any", f"/big?bytes={size}")
    assert len(down.body) == size
    sent = bytes(range(250)) * (size // 250 + 1)
    up = await site.ask("any", "/echo", method="POST", body=sent)
    assert up.json()["sha256"] == hashlib.sha256(sent).hexdigest()
    assert site.turnout.rss_kib() - before < 16_000


async def test_a_websocket_goes_over_tls(site: Site) -> None:
    async with await Wire.to(site.turnout.port) as wire:
        await wire.send(
            b"GET /ws HTTP/1.1\r\nHost: any.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert (await wire.answer()).status == 101
        await wire.send(b"\x81\x85\0\0\0\0hello")
        async with asyncio.timeout(10):
            await wire._reader.readuntil(b"\x81\x05hello")  # behind a greeting


@pytest.fixture
def nginx(site: Site) -> Iterator[None]:
    """An nginx with TLS for as long as the test goes."""
    cert, key = site.authority.issue(NAME).write(site.folder, "nginx")
    root = site.folder / "www"
    root.mkdir()
    (root / "file").write_bytes(bytes(range(256)) * 40_000)
    config = site.folder / "nginx.conf"
    config.write_text(
        f"""
        user root; daemon off; worker_processes 1; pid {site.folder}/nginx.pid; error_log /dev/null;
        events {{ }}
        http {{
          access_log off; client_body_temp_path {site.folder}/body; client_max_body_size 1k;
          proxy_temp_path {site.folder}/p; fastcgi_temp_path {site.folder}/f;
          uwsgi_temp_path {site.folder}/u; scgi_temp_path {site.folder}/s;
          server {{
            listen 127.0.0.1:{site.nginx_port} ssl;
            ssl_certificate {cert}; ssl_certificate_key {key}; root {root};
            location = /session {{ return 200 $ssl_session_reused; }}
            location = /last {{ keepalive_timeout 0; return 200 $ssl_session_reused; }}
          }}
        }}""",
        encoding="utf-8",
    )
    process = subprocess.Popen([str(NGINX), "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(site.nginx_port), "nginx listens")
        yield
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    try:
        with closing(socket.create_connection(("127.0.0.1", port), 1)):
            return True
    except OSError:
        return False


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.usefixtures("nginx")
async def test_nginx_is_a_peer_like_any_other(site: Site) -> None:
    answer = await site.ask("nginx", "/file")
    assert answer.body == bytes(range(256)) * 40_000
    reused = [(await site.ask("nginx", "/last")).body for _ in range(6)]
    assert b"r" in reused, "each of them ends its connection, and the session goes on"
    refused = await site.ask("nginx", "/file", method="POST", body=b"x" * 500_000)
    assert refused.status == 413, "it answers and hangs up, with most of the upload unread"


@pytest.fixture
async def load(site: Site) -> AsyncIterator[Load]:
    async with Load(site.turnout.port, clients=8, pause_s=0.02) as load:
        await load.more(50)
        yield load


def _revision(site: Site) -> int:
    return int(site.turnout.get("/v1/status")["revision"])


async def test_an_authority_is_renewed_without_a_failed_request(site: Site, load: Load) -> None:
    """First both are trusted, then the endpoint shows the new one's, then only that is trusted."""
    renewed = Authority()
    for authorities, issuer in (
        ((site.authority, renewed), site.authority),
        ((site.authority, renewed), renewed),
        ((renewed,), renewed),
    ):
        before = _revision(site)
        if issuer is renewed:
            issuer.issue(NAME).write(site.folder, "good")
            site.good.signal(signal.SIGHUP)
        site.trust(*authorities)
        if len(authorities) == 1 or issuer is site.authority:
            await asyncio.to_thread(wait_until, lambda: _revision(site) > before, "it is read")  # noqa: B023
        await load.more(100)
    endpoint = site.turnout.endpoint(site.good.addresses[0])
    assert endpoint["up"] is True
    site.authority = renewed
    assert load.failures == []


async def test_a_deploy_to_a_pool_with_tls_waits_for_its_checks_and_succeeds(
    site: Site, load: Load
) -> None:
    """It runs after the authority was renewed, and with it."""
    fresh = site.origin("fresh", NAME)
    command = ["deploy", "shop", "--endpoints", fresh.addresses[0], "--release", "v2", "--now"]
    done = await asyncio.to_thread(_cli, site, command)
    assert done.returncode == 0, done.stdout + done.stderr
    await load.more(50)
    assert load.seen[-1].pool == "fresh"
    assert load.failures == []


async def test_a_deploy_of_endpoints_with_a_wrong_name_is_not_ready(site: Site) -> None:
    stray = site.origin("stray", "other.test")
    command = ["deploy", "shop", "--endpoints", stray.addresses[0], "--ready-timeout", "5s"]
    done = await asyncio.to_thread(_cli, site, command)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "certificate: hostname mismatch" in done.stdout + done.stderr


def _cli(site: Site, words: list[str]) -> subprocess.CompletedProcess[str]:
    admin = f"http://127.0.0.1:{site.turnout.admin}"
    return subprocess.run(
        [sys.executable, "-m", "proxy.cli.main", *words, "--admin", admin],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=site.turnout.directory,
    )
