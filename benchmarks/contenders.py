"""What is measured in turn: how each proxy and the origin are configured and started."""

from __future__ import annotations

import http.client
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Process
from tests.ports import free_port

HERE = Path(__file__).parent
BODY = "x" * 109


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    port: int
    process: Process


@dataclass(frozen=True, slots=True)
class Bench:
    """Where a run keeps its files, which cores it has, and where the origin's two pools listen."""

    directory: Path
    proxy_cores: set[int]
    other_cores: set[int]
    blue: int
    green: int


def start_origin(bench: Bench) -> Process:
    """Start the origin of both pools: nginx where installed, else our own."""
    if shutil.which("nginx") is None:
        argv = [sys.executable, str(HERE / "origin.py"), str(bench.blue), str(bench.green)]
        return _listening(Process(argv, on=bench.other_cores), bench.green)
    servers = "\n".join(
        f"server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{BODY}'; }}"
        f" location /files/ {{ alias {bench.directory}/files/; }} }}"
        for port in (bench.blue, bench.green)
    )
    process = _nginx(bench, "origin", servers, bench.other_cores)
    return _listening(process, bench.green)


def serves_files() -> bool:
    """Whether the origin has /files/ (our own one has not)."""
    return shutil.which("nginx") is not None


def start_nginx(bench: Bench) -> Contender | None:
    if shutil.which("nginx") is None:
        return None
    port = free_port()
    process = _nginx(
        bench,
        "nginx",
        f"""
        upstream blue {{ server 127.0.0.1:{bench.blue}; keepalive 128; keepalive_requests 100000000; }}
        upstream green {{ server 127.0.0.1:{bench.green}; keepalive 128; keepalive_requests 100000000; }}
        split_clients "$cookie_turnout" $pool {{ 80% blue; * green; }}
        server {{
          listen 127.0.0.1:{port} backlog=4096;
          location / {{
            proxy_pass http://$pool;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
          }}
        }}
        """,
        bench.proxy_cores,
    )
    return Contender("nginx", port, _listening(process, port))


def _nginx(bench: Bench, name: str, servers: str, on: set[int]) -> Process:
    prefix = bench.directory / name
    prefix.mkdir()
    path = prefix / "nginx.conf"
    temporary = " ".join(
        f"{kind}_temp_path {prefix}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path.write_text(
        f"""
        daemon off; worker_processes 1; pid {prefix}/pid; error_log {prefix}/error.log;
        worker_rlimit_nofile 20000;
        events {{ worker_connections 10000; }}
        http {{
          access_log off; keepalive_timeout 75; keepalive_requests 100000000; sendfile on;
          {temporary}
          {servers}
        }}
        """,
        encoding="utf-8",
    )
    argv = ["nginx", "-p", str(prefix), "-e", f"{prefix}/error.log", "-c", str(path)]
    return Process(argv, on=on)


def start_haproxy(bench: Bench) -> Contender | None:
    if shutil.which("haproxy") is None:
        return None
    port = free_port()
    path = bench.directory / "haproxy.cfg"
    path.write_text(
        f"""
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 60s
  http-reuse always
  option forwardfor
frontend in
  bind 127.0.0.1:{port}
  use_backend green if {{ rand(100) lt 20 }}
  default_backend blue
backend blue
  server blue 127.0.0.1:{bench.blue}
backend green
  server green 127.0.0.1:{bench.green}
""",
        encoding="utf-8",
    )
    process = Process(["haproxy", "-db", "-f", str(path)], on=bench.proxy_cores)
    return Contender("HAProxy", port, _listening(process, port))


def start_caddy(bench: Bench) -> Contender | None:
    if shutil.which("caddy") is None:
        return None
    port = free_port()
    path = bench.directory / "Caddyfile"
    path.write_text(
        f"""
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port}, http://localhost:{port} {{
  reverse_proxy 127.0.0.1:{bench.blue} 127.0.0.1:{bench.green} {{
    lb_policy weighted_round_robin 4 1
  }}
}}
""",
        encoding="utf-8",
    )
    argv = ["caddy", "run", "--adapter", "caddyfile", "--config", str(path)]
    home = str(bench.directory)
    env = {"GOMAXPROCS": "1", "HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}
    process = Process(argv, on=bench.proxy_cores, env=env)
    return Contender("Caddy", port, _listening(process, port))


def start_relay(bench: Bench) -> Contender:
    port = free_port()
    argv = [sys.executable, str(HERE / "bare_relay.py"), str(port)]
    process = Process([*argv, str(bench.blue), str(bench.green)], on=bench.proxy_cores)
    return Contender("bare relay", port, _listening(process, port))


def start_turnout(bench: Bench, *, access_log: bool, workers: int = 1) -> Contender:
    """Turnout with everything on: cookie made and verified, two pools in use, metrics."""
    port, admin = free_port(), free_port()
    name = "Turnout, access log" if access_log else "Turnout"
    directory = bench.directory / name.replace(", ", "-").replace(" ", "-")
    directory.mkdir()
    path = directory / "turnout.yaml"
    log = str(directory / "access.log") if access_log else "off"
    config = {
        "listeners": [{"bind": f"127.0.0.1:{port}"}],
        "admin": {"bind": f"127.0.0.1:{admin}"},
        "workers": workers,
        "state": str(directory / "state"),
        "access_log": {"path": log, "format": "json"},
        "services": {
            "bench": {
                "routes": [{"path": "/"}],
                "pools": {
                    "blue": {"endpoints": [f"127.0.0.1:{bench.blue}"], "release": "v1"},
                    "green": {"endpoints": [f"127.0.0.1:{bench.green}"], "release": "v2"},
                },
                "active": "blue",
                "weights": {"blue": 80, "green": 20},
                # One key for every Turnout of the run: the cookies of one are good for the others.
                "sticky": {"by": "cookie", "secret": "the same key for every contender"},
            }
        },
    }
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")  # JSON is YAML too
    argv = [sys.executable, "-m", "proxy.cli.main", "run", str(path)]
    process = Process(argv, on=bench.proxy_cores)
    _wait_until_ready(process, admin)
    return Contender(name, port, process)


def _wait_until_ready(process: Process, admin: int) -> None:
    process.wait_for_port(admin)
    until = time.monotonic() + 15
    while time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=5)
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
        connection.close()
        if status == 200:
            return
        time.sleep(0.05)
    raise TimeoutError(f"turnout did not become ready:\n{process.log()}")


def _listening(process: Process, port: int) -> Process:
    process.wait_for_port(port)
    return process


def cookies(contender: Contender, count: int) -> list[str]:
    """`count` clients' cookies as `name=value`, each from a first answer of Turnout."""
    connection = http.client.HTTPConnection("127.0.0.1", contender.port, timeout=5)
    found = []
    for _ in range(count):
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        found.append(answer.headers["Set-Cookie"].partition(";")[0])
    connection.close()
    return found
