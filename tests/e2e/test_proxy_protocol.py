"""A real HAProxy in front of us: what it says of its clients is what the endpoints are told."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stage import Stage, Turnout, wait_until
from tests.e2e.wire import Wire
from tests.ports import free_port

HAPROXY = shutil.which("haproxy")
pytestmark = pytest.mark.skipif(HAPROXY is None, reason="there is no HAProxy")

WAYS = {
    "v1": "send-proxy",
    "v2": "send-proxy-v2",
    "v2 with extensions": "send-proxy-v2 proxy-v2-options unique-id,crc32c",
}
CLIENTS = ["127.0.0.5", "::1"]


class Front:
    """One HAProxy with a port for each way of telling, by IPv4 and by IPv6."""

    def __init__(self, directory: Path, turnout: Turnout, path: Path) -> None:
        self.ports = {way: free_port() for way in WAYS}
        self.unix_port = free_port()
        self.checked = free_port()
        lines = ["defaults", "  mode tcp", "  timeout connect 5s", "  timeout client 20s"]
        lines += ["  timeout server 20s"]
        for number, (way, keyword) in enumerate(WAYS.items()):
            lines += [f"listen way{number}", f"  bind 127.0.0.1:{self.ports[way]}"]
            lines += [f"  bind [::1]:{self.ports[way]} v6only", "  unique-id-format %[uuid]"]
            lines += [f"  server turnout 127.0.0.1:{turnout.port} {keyword}"]
        lines += ["listen unix", f"  bind 127.0.0.1:{self.unix_port}"]
        lines += [f"  server turnout unix@{path} send-proxy-v2"]
        lines += ["listen checked", f"  bind 127.0.0.1:{self.checked}", "  option httpchk GET /who"]
        lines += [
            f"  server turnout 127.0.0.1:{turnout.port} send-proxy-v2 check inter 100ms fall 1"
        ]
        config = directory / "haproxy.cfg"
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        assert HAPROXY is not None
        self._popen = subprocess.Popen(
            [HAPROXY, "-db", "-q", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: _answers(self.checked), "HAProxy listens")

    def end(self) -> None:
        self._popen.kill()
        self._popen.wait()


def _answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def turnout(module_stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Turnout:
    made = module_stage.turnout(module_stage.origin("blue"), [], start=False)
    path = tmp_path_factory.mktemp("s") / "t.sock"
    behind = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1"]}
    made.config["listeners"][0].update(behind)
    made.config["listeners"].append(
        {"bind": f"unix:{path}", **behind, "trusted_proxies": ["unix:"]}
    )
    made.write(made.config)
    made.start()
    return made


@pytest.fixture(scope="module")
def front(turnout: Turnout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    path = Path(turnout.config["listeners"][1]["bind"].removeprefix("unix:"))
    made = Front(tmp_path_factory.mktemp("haproxy"), turnout, path)
    yield made
    made.end()


async def seen(wire: Wire) -> dict[str, str]:
    """The header lines that the endpoint got, by their names in lower case."""
    forged = {"X-Forwarded-For": "192.0.2.66", "X-Forwarded-Port": "1"}
    got = (await wire.request("/headers", headers=forged)).json()["headers"]
    return {name.lower(): value for name, value in got}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("way", WAYS)
async def test_the_client_of_haproxy_is_our_client(front: Front, way: str, client: str) -> None:
    host = "::1" if ":" in client else "127.0.0.1"
    streams = await asyncio.open_connection(host, front.ports[way], local_addr=(client, 0))
    async with Wire(*streams) as wire:
        for _ in range(2):
            headers = await seen(wire)
            assert headers["x-forwarded-for"] == client
            assert headers["x-forwarded-port"] == str(front.ports[way])
            assert headers["x-forwarded-proto"] == "http"


async def test_a_unix_socket_may_stand_between_us(front: Front) -> None:
    async with await Wire.to(front.unix_port, source="127.0.0.6") as wire:
        assert (await seen(wire))["x-forwarded-for"] == "127.0.0.6"


async def test_its_health_checks_pass_and_big_bodies_arrive_whole(
    turnout: Turnout, front: Front
) -> None:
    def accepted() -> float:
        return turnout.metric("turnout_connections_accepted_total")

    before, refused = accepted(), _refused(turnout)
    await asyncio.to_thread(wait_until, lambda: accepted() > before + 3, "checks come and pass")
    assert _refused(turnout) == refused
    async with await Wire.to(front.checked, source="127.0.0.7") as wire:
        body = bytes(range(256)) * 4096
        answer = await wire.request("/echo", method="POST", body=body)
        assert answer.status == 200
        assert answer.json()["length"] == len(body)


async def test_who_comes_past_haproxy_gets_nothing_and_is_counted(turnout: Turnout) -> None:
    before = _refused(turnout)
    async with await Wire.to(turnout.port) as wire:
        await wire.send(b"GET /who HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await wire.is_closed()
    assert _refused(turnout) >= before + 1
    async with await Wire.to(turnout.port, source="127.0.0.9") as wire:  # it is not trusted
        assert (await seen(wire))["x-forwarded-for"] == "127.0.0.9"
        await wire.send(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n")
        assert (await wire.answer()).status == 400


def _refused(turnout: Turnout) -> float:
    return turnout.metric("turnout_connections_refused_total", reason="proxy_protocol")
