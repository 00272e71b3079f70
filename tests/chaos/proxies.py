"""Turnout, nginx and HAProxy in front of the same endpoints, each as a good operator would set it up.

Two pools at 80 to 20, connections kept, the same patience with endpoints, a GET
tried again elsewhere, a POST never, checks where the proxy has any.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from benchmarks.processes import Process
from tests.chaos.endpoint import Endpoints
from tests.e2e.stage import Turnout, shop, wait_until
from tests.ports import free_port

SHARE = 80
"""Of blue, in percent; the rest is green's."""
CONNECT_S, RESPONSE_S = 1, 2


class Proxy(Protocol):
    name: str
    port: int

    def end(self) -> None: ...


class TurnoutProxy:
    name = "Turnout"

    def __init__(self, directory: Path, endpoints: Endpoints, *, workers: int = 2) -> None:
        own = directory / "turnout"
        own.mkdir()
        self.turnout = Turnout(own, _turnout(own, endpoints, workers))
        self.port = self.turnout.port
        try:
            self.turnout.start()
        except BaseException:
            self.turnout.clean_up()
            raise
        self._workers = self.turnout.worker_pids()

    def complaints(self) -> list[str]:
        """What is not as it was before, once the load has gone."""
        found = []
        if not _comes_true(lambda: self.turnout.metric("turnout_in_flight") == 0):
            found.append("something is in flight though nobody asks")
        if not _comes_true(lambda: not self._unavailable()):
            found.append(f"not available again: {', '.join(self._unavailable())}")
        if self.turnout.worker_pids() != self._workers:
            found.append("a worker has died")
        return found

    def _unavailable(self) -> list[str]:
        return [
            endpoint["address"]
            for pool in self.turnout.service()["pools"].values()
            for endpoint in pool["endpoints"]
            if not endpoint["available"]
        ]

    def end(self) -> None:
        self.turnout.clean_up()


def _comes_true(condition: Callable[[], bool]) -> bool:
    try:
        wait_until(condition, "all is well")
    except AssertionError:
        return False
    return True


def _turnout(directory: Path, endpoints: Endpoints, workers: int) -> dict[str, Any]:
    service = shop(
        endpoints.addresses("blue"),
        endpoints.addresses("green"),
        weights={"blue": SHARE, "green": 100 - SHARE},
        timeouts={
            "connect": f"{CONNECT_S}s",
            "response": f"{RESPONSE_S}s",
            "read_stall": f"{RESPONSE_S}s",
        },
        health={
            "path": "/healthz",
            "interval": "500ms",
            "timeout": "500ms",
            "rise": 2,
            "fall": 2,
        },
        ejection={"consecutive_failures": 5, "base_time": "1s", "max_time": "4s"},
        retry={"attempts": 2, "budget": "20%", "floor": 10},
    )
    return {
        "listeners": [{"bind": f"127.0.0.1:{free_port()}"}],
        "admin": {"bind": f"127.0.0.1:{free_port()}"},
        "workers": workers,
        "access_log": {"path": "off"},
        "state": str(directory / "state"),
        "services": {"shop": service},
    }


def start(
    directory: Path, endpoints: Endpoints, stack: ExitStack
) -> tuple[TurnoutProxy, list[Proxy]]:
    """Start Turnout, and all of them: those that are installed. The stack ends them."""
    turnout = TurnoutProxy(directory, endpoints)
    stack.callback(turnout.end)
    started: list[Proxy] = [turnout]
    for start_other in (nginx, haproxy):
        if (other := start_other(directory, endpoints)) is not None:
            stack.callback(other.end)
            started.append(other)
    return turnout, started


class OtherProxy:
    """nginx or HAProxy, in one process."""

    def __init__(self, name: str, port: int, argv: list[str]) -> None:
        self.name = name
        self.port = port
        self._process = Process(argv, on=os.sched_getaffinity(0))
        try:
            self._process.wait_for_port(port)
        except BaseException:
            self._process.end()
            raise

    def end(self) -> None:
        self._process.end()


def nginx(directory: Path, endpoints: Endpoints) -> OtherProxy | None:
    if shutil.which("nginx") is None:
        return None
    own = directory / "nginx"
    own.mkdir()
    port = free_port()
    upstreams = "\n".join(
        f"upstream {pool} {{ {_servers(endpoints.addresses(pool))}"
        " keepalive 64; keepalive_requests 100000000; }"
        for pool in ("blue", "green")
    )
    temporary = " ".join(
        f"{kind}_temp_path {own}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (own / "nginx.conf").write_text(
        f"""
        daemon off; worker_processes 1; pid {own}/pid; error_log {own}/error.log;
        events {{ worker_connections 1024; }}
        http {{
          access_log off; keepalive_requests 100000000; {temporary}
          {upstreams}
          split_clients "$request_id" $pool {{ {SHARE}% blue; * green; }}
          server {{
            listen 127.0.0.1:{port};
            location / {{
              proxy_pass http://$pool;
              proxy_http_version 1.1;
              proxy_set_header Connection "";
              proxy_set_header Host $host;
              proxy_connect_timeout {CONNECT_S}s;
              proxy_read_timeout {RESPONSE_S}s;
              proxy_next_upstream error timeout invalid_header;
              proxy_next_upstream_tries 3;
            }}
          }}
        }}
        """,
        encoding="utf-8",
    )
    argv = ["nginx", "-p", str(own), "-e", f"{own}/error.log", "-c", f"{own}/nginx.conf"]
    return OtherProxy("nginx", port, argv)


def _servers(addresses: list[str]) -> str:
    return " ".join(f"server {address} max_fails=3 fail_timeout=2s;" for address in addresses)


def haproxy(directory: Path, endpoints: Endpoints) -> OtherProxy | None:
    if shutil.which("haproxy") is None:
        return None
    port = free_port()
    path = directory / "haproxy.cfg"
    path.write_text(
        f"""
global
  nbthread 1
  maxconn 1024
defaults
  mode http
  timeout connect {CONNECT_S}s
  timeout client 75s
  timeout server {RESPONSE_S}s
  http-reuse safe
  retries 3
  option redispatch 1
  retry-on conn-failure empty-response junk-response response-timeout
  option httpchk GET /healthz
  default-server check inter 500ms rise 2 fall 2 observe layer7 error-limit 5 on-error mark-down
frontend in
  bind 127.0.0.1:{port}
  http-request disable-l7-retry if METH_POST
  use_backend green if {{ rand(100) ge {SHARE} }}
  default_backend blue
backend blue
{_backend(endpoints.addresses("blue"))}
backend green
{_backend(endpoints.addresses("green"))}
""",
        encoding="utf-8",
    )
    return OtherProxy("HAProxy", port, ["haproxy", "-db", "-f", str(path)])


def _backend(addresses: list[str]) -> str:
    return "\n".join(f"  server s{number} {one}" for number, one in enumerate(addresses, 1))
