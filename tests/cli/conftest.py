"""A real little HTTP server that records requests and gives the admin API's documented answers."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from proxy.cli.main import main


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class StubAdmin:
    """Answers `GET /path` by what was set for it: (status, value), or a list of them in turn."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)

    def set(self, call: str, status: int, value: Any) -> None:
        self.answers[call] = [(status, value)]

    def then(self, call: str, status: int, value: Any) -> None:
        self.answers.setdefault(call, []).append((status, value))

    def answer(self, call: Call) -> tuple[int, Any]:
        self.calls.append(call)
        queue = self.answers.get(f"{call.method} {call.path.partition('?')[0]}")
        if not queue:
            return 404, problem(404, f"there is nothing at {call.path}")
        return queue.pop(0) if len(queue) > 1 else queue[0]


def problem(status: int, detail: str, **more: Any) -> dict[str, Any]:
    return {"type": "about:blank", "title": "refused", "status": status, "detail": detail, **more}


def _handler(stub: StubAdmin) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            call = Call(self.command, self.path, dict(self.headers.items()), body)
            status, value = stub.answer(call)
            raw = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_PUT = do_POST = _serve  # noqa: N815 - names of http.server

        def address_string(self) -> str:
            return "peer"

        def log_message(self, *args: Any) -> None:
            """Keep the tests' output to the tests."""

    return Handler


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def _served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TURNOUT_ADMIN", "TURNOUT_ADMIN_TOKEN", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubAdmin]:
    stub = StubAdmin()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(stub))
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("TURNOUT_ADMIN", stub.url)
    yield from (stub for _ in _served(server))


@pytest.fixture
def unix_admin(tmp_path: Path) -> Iterator[StubAdmin]:
    path = tmp_path / "a.sock"
    stub = StubAdmin(url=f"unix:{path}")
    server = _UnixServer(str(path), _handler(stub))
    yield from (stub for _ in _served(server))


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def turnout(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run one verb in this process."""

    def run(*argv: str) -> Ran:
        code = main(argv)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def refusal() -> Callable[..., dict[str, Any]]:
    return problem


@pytest.fixture
def service_view() -> Callable[..., dict[str, Any]]:
    """The service `shop` as GET /v1/services/shop shows it, with what differs given by name."""

    def endpoint(address: str, **more: Any) -> dict[str, Any]:
        return {
            "address": address,
            "weight": 1,
            "available": True,
            "state": "available",
            "up": True,
            "checked": None,
            "last_check": None,
            "last_check_at": None,
            "since": None,
            "ejected": False,
            "asks_to_drain": False,
            "reachable": True,
            "draining": False,
            "leaving": False,
            "in_flight": 6,
            "idle": 2,
            "requests": 5110,
            "failures": 0,
            **more,
        }

    def view(blue: float = 100, **more: Any) -> dict[str, Any]:
        weights = {"blue": blue, "green": 100 - blue}
        return {
            "name": "shop",
            "active": "blue",
            "candidate": "green" if 0 < blue < 100 else None,
            "weights": {"declared": weights, "in_force": weights, "source": "file"},
            "rollout": None,
            "guard": None,
            "pools": {
                "blue": {
                    "release": "v41",
                    "in_flight": {"request": 9, "stream": 2, "tunnel": 1},
                    "endpoints": [endpoint("127.0.0.1:9001"), endpoint("127.0.0.1:9002")],
                },
                "green": {
                    "release": "v42",
                    "in_flight": {"request": 1, "stream": 0, "tunnel": 0},
                    "endpoints": [
                        endpoint(
                            "unix:/run/g.sock",
                            in_flight=1,
                            requests=1103,
                            failures=3,
                            available=False,
                            state="unreachable",
                            reachable=False,
                        )
                    ],
                },
            },
            "drain": None,
            "lockout": None,
            "overrides": [],
            "counts": {"blue": {"requests": 10220}, "green": {"requests": 1103}},
            "revision": 4,
            **more,
        }

    return view


@pytest.fixture
def rollout_view(service_view: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The service `shop` in the middle of its rollout 12 to green, at a phase and a share."""

    def view(phase: str = "baking", share: float = 10, **more: Any) -> dict[str, Any]:
        rollout = {
            "id": 12,
            "phase": phase,
            "step": 2,
            "steps": [
                {"weight": 1, "bake_s": 120.0, "pause": False},
                {"weight": 10, "bake_s": 300.0, "pause": True},
                {"weight": 100, "bake_s": 0.0, "pause": False},
            ],
            "weight": share,
            "bake_left_s": 192.5 if phase in {"baking", "paused"} else None,
            "reason": None,
            "end": None,
            "candidate": "green",
            "old": "blue",
            "release": "v42",
            "paused": None,
            "requests": 812,
            "min_requests": 100,
            "began_at": "2026-05-04T10:00:00.000+00:00",
            "phase_at": "2026-05-04T10:00:14.200+00:00",
            "who": "cli:ann@host",
        }
        guard = {
            "mode": "enforce",
            "verdict": "CONTINUE",
            "reason": "",
            "words": "",
            "tests": [
                {"name": "errors", "evidence": 0.3, "bar": 5.3},
                {"name": "latency", "evidence": -1.2, "bar": 6.0},
            ],
            "sides": {
                "green": {"requests": 10, "errors": 0},
                "blue": {"requests": 90, "errors": 1},
            },
        }
        return service_view(
            100 - share,
            **{
                "active": "green" if share == 100 else "blue",
                "rollout": rollout | more.pop("rollout", {}),
                "guard": guard | more.pop("guard", {}),
                **more,
            },
        )

    return view


@pytest.fixture
def emptied() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The view with nothing in flight in blue."""

    def change(view: dict[str, Any]) -> dict[str, Any]:
        view["pools"]["blue"]["in_flight"] = {"request": 0, "stream": 0, "tunnel": 0}
        return view

    return change


@pytest.fixture
def drain_view() -> Callable[..., dict[str, Any]]:
    def view(request: int = 0, tunnel: int = 0, **more: Any) -> dict[str, Any]:
        return {
            "pool": "blue",
            "endpoint": None,
            "since": "2026-05-04T10:00:00.000+00:00",
            "deadline_s": 298.2 if request or tunnel else 0.0,
            "remaining": {"request": request, "stream": 0, "tunnel": tunnel},
            "cut": {"request": 0, "stream": 0, "tunnel": 0},
            "items": [],
            "done": not (request or tunnel),
            "endpoints": [],
            **more,
        }

    return view


@pytest.fixture
def status_view(service_view: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def view(**more: Any) -> dict[str, Any]:
        return {
            "version": "0.1.0",
            "started_at": 1777888800.0,
            "uptime_s": 7500.0,
            "revision": 12,
            "workers": [{"slot": 0, "pid": 1, "up": True}, {"slot": 1, "pid": 2, "up": True}],
            "config": {
                "path": "config/turnout.yaml",
                "hash": "ab",
                "loaded_at": None,
                "last_error": None,
                "last_errors": [],
            },
            "state": {"path": "var/turnout", "problem": None},
            "services": [service_view()],
            **more,
        }

    return view
