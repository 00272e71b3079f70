"""The stage of an end-to-end test: real proxies and real endpoints in their own processes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.ports import free_port

ORIGIN = Path(__file__).parent / "origin.py"
START_S = 60.0
MARK = "E2E_STAGE"
"""Environment variable by which a process can be told to be of a stage."""

Config = dict[str, Any]


def wait_until(
    condition: Callable[[], Any], what: str, *, timeout_s: float = 30.0, every_s: float = 0.03
) -> Any:
    """Poll until `condition` returns something true, and return that."""
    until = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(every_s)
    return value


class Reply:
    """An answer of the admin API."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = answer.read()

    def json(self) -> Any:
        return json.loads(self.body)


class Origin:
    """One process that plays all endpoints of a pool."""

    def __init__(self, pool: str, release: str, count: int, *tls: str) -> None:
        self.pool = pool
        # Nobody else gets one when it has ended: a proxy may still be knocking there.
        self.ports = [free_port() for _ in range(count)]
        self._popen = subprocess.Popen(
            [sys.executable, str(ORIGIN), pool, release, ",".join(map(str, self.ports)), *tls],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._popen.stdout is not None
        assert self._popen.stdout.readline() == b"listening\n"

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self.ports]

    def stats(self) -> list[dict[str, Any]]:
        """What each endpoint has seen, asked past the proxy."""
        return [_ask(port, "GET", "/stats", None, {}).json() for port in self.ports]

    def set_health(self, index: int = 0, *, status: int = 200, drain: bool = False) -> None:
        """What an endpoint answers to health checks from now on."""
        target = f"/set-health?status={status}&drain={int(drain)}"
        assert _ask(self.ports[index], "GET", target, None, {}).status == 200

    def misbehave(self, share: float = 1.0, how: str = "500") -> None:
        """Have this part of the requests fail from now on, with a status or a `reset`."""
        for port in self.ports:
            target = f"/misbehave?share={share}&how={how}"
            assert _ask(port, "GET", target, None, {}).status == 200

    def malformed(self) -> list[str]:
        return [line for one in self.stats() for line in one["malformed"]]

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def end(self) -> None:
        self._popen.kill()
        self._popen.wait()
        assert self._popen.stdout is not None
        self._popen.stdout.close()


class Turnout:
    """A real `turnout run` on a configuration of its own, with its admin API at hand."""

    def __init__(self, directory: Path, config: Config) -> None:
        self.directory = directory
        self.path = directory / "turnout.yaml"
        self.config = config
        self.admin = int(config["admin"]["bind"].rpartition(":")[2])
        binds = [listener["bind"] for listener in config["listeners"]]
        self.port = int(binds[0].rpartition(":")[2])
        self._errors = directory / "stderr"
        self._sessions: list[int] = []
        self._popen: subprocess.Popen[bytes]
        self.write(config)

    # ---- the process ----

    def launch(self) -> None:
        """Start the process; `wait_ready` says when it serves."""
        with self._errors.open("ab") as errors:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "proxy.cli.main", "run", str(self.path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=self.directory,
                env={**os.environ, MARK: str(self.directory)},
                start_new_session=True,  # whatever it starts can be found and ended by it
            )
        self._sessions.append(self._popen.pid)

    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def wait_ready(self) -> None:
        wait_until(self._is_ready, "turnout is ready", timeout_s=START_S)

    def _is_ready(self) -> bool:
        if self._popen.poll() is not None:
            raise AssertionError(f"turnout ended with {self._popen.returncode}:\n{self.log()}")
        try:
            return self.ask("GET", "/readyz").status == 200
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        """Wait for the end of the process; return its exit code."""
        return self._popen.wait(timeout_s)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait(60)

    def pids(self) -> list[int]:
        """Every living process of this turnout: by its session, by our mark if it has left that."""
        mark = f"{MARK}={self.directory}".encode()
        return [
            pid
            for pid, session in _sessions()
            if session in self._sessions or mark in _environment(pid)
        ]

    def kill_all(self) -> None:
        """SIGKILL to the supervisor and every worker."""
        for pid in self.pids():
            _kill(pid)
        self._popen.wait(20)
        wait_until(lambda: not self.pids(), "every killed process has gone")

    def log(self) -> str:
        return self._errors.read_text(encoding="utf-8", errors="replace")

    def clean_up(self) -> None:
        """End it the polite way; whatever of it is then still there is killed."""
        try:
            if self._popen.poll() is None:
                assert self.stop() == 0, f"exit code {self._popen.returncode}:\n{self.log()}"
                assert self.pids() == [], "processes are left behind"
        finally:
            for pid in self.pids():
                _kill(pid)
            self._popen.wait(20)

    # ---- its configuration ----

    def write(self, config: Config) -> None:
        """Replace the file atomically, as editors and deployment tools do."""
        self.write_text(json.dumps(config, indent=2))  # JSON is YAML too

    def write_text(self, text: str) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.path)

    def write_in_place(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")

    # ---- its admin API ----

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        return _ask(self.admin, method, path, body, dict(headers or {}))

    def get(self, path: str) -> Any:
        reply = self.ask("GET", path)
        assert reply.status == 200, reply.body
        return reply.json()

    def change(self, method: str, path: str, body: Any = None) -> Any:
        """Ask for a change that must be granted; return the answer's body."""
        reply = self.ask(method, path, {} if body is None else body)
        assert reply.status in {200, 202}, reply.body
        return reply.json()

    def service(self, name: str = "shop") -> Any:
        return self.get(f"/v1/services/{name}")

    def weights(self, name: str = "shop", **weights: float) -> Any:
        return self.change("PUT", f"/v1/services/{name}/weights", {"weights": weights})

    def switch(self, to: str, name: str = "shop") -> Any:
        return self.change("POST", f"/v1/services/{name}/switch", {"to": to})

    def endpoint(self, address: str, pool: str = "blue", name: str = "shop") -> Any:
        """The view of one endpoint."""
        listed = self.service(name)["pools"][pool]["endpoints"]
        return next(each for each in listed if each["address"] == address)

    def wait_endpoint(self, address: str, state: str, pool: str = "blue") -> Any:
        """Wait until an endpoint is in this state; return its view."""
        wait_until(lambda: self.endpoint(address, pool)["state"] == state, f"{address} is {state}")
        return self.endpoint(address, pool)

    def reload(self) -> Reply:
        return self.ask("POST", "/v1/config/reload", {})

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.get("/v1/status")["workers"]]

    def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Every sample by name: its labels and its value."""
        reply = self.ask("GET", "/metrics")
        assert reply.status == 200
        samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(reply.body.decode()):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
        return samples

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples that carry these labels; 0 if there is none."""
        wanted = labels.items()
        return sum(value for had, value in self.metrics().get(name, []) if wanted <= had.items())

    def rss_kib(self) -> int:
        """Resident memory of the workers together."""
        return sum(_rss_kib(pid) for pid in self.worker_pids())


class Stage:
    """Starts proxies and endpoints for a test, and ends them all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._origins: list[Origin] = []
        self._turnouts: list[Turnout] = []

    def origin(self, pool: str, release: str = "v1", count: int = 1, *tls: str) -> Origin:
        """Endpoints of a pool; `tls` are the files that origin.py takes for it."""
        origin = Origin(pool, release, count, *tls)
        self._origins.append(origin)
        return origin

    def turnout(
        self,
        blue: Origin | list[str],
        green: Origin | list[str],
        *,
        start: bool = True,
        workers: int = 2,
        top: Mapping[str, Any] | None = None,
        **service: Any,
    ) -> Turnout:
        """Start a proxy for one service `shop` with these endpoints; `service` adds keys to it."""
        config = {
            "listeners": [{"bind": f"127.0.0.1:{free_port()}"}],
            "admin": {"bind": f"127.0.0.1:{free_port()}"},
            "workers": workers,
            "access_log": {"path": "off"},
            "services": {"shop": shop(blue, green, **service)},
            **(top or {}),
        }
        directory = self._directory / f"turnout-{len(self._turnouts)}"
        directory.mkdir()
        config.setdefault("state", str(directory / "state"))
        turnout = Turnout(directory, config)
        self._turnouts.append(turnout)
        if start:
            turnout.start()
        return turnout

    def end(self) -> None:
        failures = []
        for turnout in self._turnouts:
            try:
                turnout.clean_up()
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failures.append(str(error))
        for origin in self._origins:
            origin.end()
        assert not failures, "\n".join(failures)

    def log(self) -> str:
        return "\n".join(turnout.log() for turnout in self._turnouts)


def shop(blue: Origin | list[str], green: Origin | list[str], **service: Any) -> Config:
    """A service's configuration: two pools, blue in charge."""
    pools = {"blue": _pool(blue, "v41"), "green": _pool(green, "v42")}
    return {"routes": [{"path": "/"}], "pools": pools, "active": "blue", **service}


def _pool(members: Origin | list[str], release: str) -> Config:
    addresses = members.addresses if isinstance(members, Origin) else members
    return {"endpoints": addresses, "release": release}


def _ask(port: int, method: str, path: str, body: Any, headers: dict[str, str]) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        if isinstance(body, str):
            data: bytes | None = body.encode()
        else:
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **headers} if data else headers
        connection.request(method, path, data, headers)
        return Reply(connection.getresponse())
    finally:
        connection.close()


def _sessions() -> Iterator[tuple[int, int]]:
    """Every living process and its session."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                yield int(entry.name), int(fields[3])


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []  # gone, or not ours to look into


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _rss_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
