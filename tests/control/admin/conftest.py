"""A desk in memory behind the real server, and a real client."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy import stats
from proxy.clock import ManualClock
from proxy.control.admin.auth import Tokens
from proxy.control.admin.metrics import Instruments
from proxy.control.admin.server import AdminServer
from proxy.control.config.files import CertificateFacts
from proxy.control.expiry import Shown
from proxy.control.fleet import WorkerState
from proxy.control.health import HealthBook
from proxy.control.refusal import Invalid, NotFound, Refused, Stale
from proxy.control.slots import SlotBook
from proxy.model import Endpoint, Listener, Pool, Service, Snapshot
from proxy.stats import Board, SlotTable, Totals


class FakeDesk:
    """One service, shop, of blue and green; it remembers every change that was asked for."""

    def __init__(self) -> None:
        self.revision = 1
        self.weights = {"blue": Decimal(100), "green": Decimal(0)}
        self.active = "blue"
        self.phase: str | None = None
        self.asked: list[dict[str, Any]] = []
        self.decided: list[dict[str, Any]] = []
        self.reasons: list[str] = []
        self.invalid: list[str] = []
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.draining: dict[str, Any] | None = None
        self.drained = asyncio.Event()
        self.waited: list[float] = []
        self.given_up = 0

    def status(self) -> dict[str, Any]:
        self._fail()
        config = {"path": "turnout.yaml", "hash": "ab", "loaded_at": "2026-01-02T03:04:05Z"}
        return {
            "version": "0.1.0",
            "revision": self.revision,
            "config": {**config, "last_error": self.invalid[0] if self.invalid else None},
            "services": self.services(),
        }

    def services(self) -> list[dict[str, Any]]:
        return [self.service("shop")]

    def service(self, name: str) -> dict[str, Any]:
        if name != "shop":
            raise NotFound(f"There is no service {name}.")
        weights = {pool: float(weight) for pool, weight in self.weights.items()}
        return {
            "name": name,
            "active": self.active,
            "weights": {"in_force": weights},
            "rollout": None if self.phase is None else {"id": 1, "phase": self.phase},
            "revision": self.revision,
        }

    def etag(self, name: str) -> str:
        self.service(name)
        return f'"{self.revision}"'

    async def set_weights(
        self, name: str, weights: Mapping[str, Decimal], **options: Any
    ) -> dict[str, Any]:
        await self._begin(name, {"verb": "weights", "weights": dict(weights), **options})
        if sum(weights.values()) != 100:
            raise Invalid("The weights of shop must sum to 100.")
        self.weights = dict(weights)
        return self._done(name)

    async def switch(self, name: str, to: str, **options: Any) -> dict[str, Any]:
        await self._begin(name, {"verb": "switch", "to": to, **options})
        if to == self.active:
            raise Refused(f"{to} is already active.")
        self.active = to
        return self._done(name)

    async def rollback(self, name: str, **options: Any) -> dict[str, Any]:
        await self._begin(name, {"verb": "rollback", **options})
        return self._done(name)

    async def deploy(self, name: str, **options: Any) -> dict[str, Any]:
        await self._begin(name, {"verb": "deploy", **options})
        return self._started(name)

    async def start_rollout(self, name: str, to: str, **options: Any) -> dict[str, Any]:
        await self._begin(name, {"verb": "start", "to": to, **options})
        return self._started(name)

    async def move_rollout(self, name: str, verb: str, **options: Any) -> dict[str, Any]:
        await self._begin(name, {"verb": verb, **options})
        if self.phase is None:
            raise Refused(f"{name} has no rollout (turnout rollout start begins one)")
        return self._done(name)

    async def unlock(self, name: str, **options: Any) -> dict[str, Any]:
        await self._begin(name, {"verb": "unlock", **options})
        return self._done(name)

    async def set_pool(self, name: str, pool: str, **options: Any) -> dict[str, Any]:
        await self._begin(name, {"verb": "pool", "pool": pool, **options})
        return self._done(name)

    async def hold(self, name: str, **options: Any) -> dict[str, Any]:
        await self._begin(name, {"verb": "hold", **options})
        return self._done(name)

    async def release(self, name: str, **options: Any) -> dict[str, Any]:
        await self._begin(name, {"verb": "release", **options})
        return self._done(name)

    async def drain(
        self, name: str, pool: str | None, endpoint: str | None, **options: Any
    ) -> dict[str, Any]:
        await self._begin(name, {"verb": "drain", "pool": pool, "endpoint": endpoint, **options})
        self._done(name)
        self.draining = {"pool": pool or "green", "remaining": {"request": 3}, "done": False}
        return self.draining

    async def drain_status(self, name: str, wait_s: float) -> dict[str, Any] | None:
        self.service(name)
        self.waited.append(wait_s)
        if self.draining is not None and wait_s > 0:
            try:
                await asyncio.wait_for(self.drained.wait(), wait_s)
            except TimeoutError:
                return self.draining
            except asyncio.CancelledError:
                self.given_up += 1
                raise
            self.draining = {**self.draining, "remaining": {"request": 0}, "done": True}
        return self.draining

    async def reload(self, *, who: str) -> dict[str, Any]:
        self.asked.append({"verb": "reload", "who": who})
        applied = not self.invalid
        return {"applied": applied, "revision": self.revision, "errors": self.invalid}

    def check_text(self, text: str) -> list[str]:
        return [] if text == "good" else ["turnout.yaml:1:1: services: missing"]

    def config_view(self) -> dict[str, Any]:
        return {"admin": {"token": "***"}}

    def decisions(self, service: str | None, since: int, limit: int) -> list[dict[str, Any]]:
        return [{"id": since + 1, "service": service, "limit": limit}]

    def ready(self) -> tuple[bool, list[str]]:
        return not self.reasons, self.reasons

    async def _begin(self, name: str, asked: dict[str, Any]) -> None:
        self.asked.append(asked)
        await self.gate.wait()
        self._fail()
        self.service(name)
        if asked["if_match"] not in {None, self.etag(name)}:
            raise Stale(f"shop has changed: it is at {self.etag(name)} now.")

    def _started(self, name: str) -> dict[str, Any]:
        if self.phase is not None:
            raise Refused(
                f"rollout 1 to green is {self.phase} (abort, promote or pause it, or wait)"
            )
        self.phase = "warming"
        return self._done(name)

    def _done(self, name: str) -> dict[str, Any]:
        self.revision += 1
        return self.service(name)

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class FakeFleet:
    """Workers as arrays of words, read through the real Totals."""

    def __init__(self) -> None:
        self.totals = Totals()
        self.board = Board(memoryview(bytearray(4096 * 8)).cast("q"), 1)
        self.slots = SlotBook(SlotTable())
        self.health = HealthBook(self.board, self.slots, ManualClock())
        self.states: list[WorkerState] = []
        self.words: dict[int, memoryview] = {}
        self.board = Board(memoryview(bytearray(4096 * 8)).cast("q"), 2)
        self.ejections: dict[tuple[str, str], int] = {}

    def add(self, slot: int, pid: int = 1) -> memoryview:
        words = memoryview(bytearray(4096 * 8)).cast("q")
        self.words[slot] = words
        self.totals.add((slot, pid), words, slot)
        state = WorkerState(slot=slot, pid=pid, revision=1, up=True, started_at=0.0, restarts=0)
        self.states = [other for other in self.states if other.slot != slot] + [state]
        return words

    def retire(self, slot: int, pid: int = 1) -> None:
        self.totals.retire((slot, pid), 4096)
        del self.words[slot]


def shop(*pools: Pool) -> Service:
    return Service(name="shop", routes=(), pools=pools, active=pools[0].name, slot=SERVICE_SLOT)


BLUE_SLOT, GREEN_SLOT, ENDPOINT_SLOT, LISTENER_SLOT, SERVICE_SLOT = 100, 400, 700, 800, 900


def two_pools() -> Snapshot:
    blue = Pool(name="blue", weight=6250, slot=BLUE_SLOT, endpoints=(_endpoint(0), _endpoint(1)))
    green = Pool(name="green", weight=3750, slot=GREEN_SLOT, endpoints=(_endpoint(2),))
    listener = Listener(bind="127.0.0.1:8080", slot=LISTENER_SLOT)
    return Snapshot(revision=7, listeners=(listener,), services=(shop(blue, green),))


def _endpoint(number: int) -> Endpoint:
    slot = ENDPOINT_SLOT + number * stats.ENDPOINT_WORDS
    return Endpoint(address=f"127.0.0.1:900{number}", slot=slot)


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Admin:
    """A running admin server and a client to it."""

    desk: FakeDesk
    fleet: FakeFleet
    clock: ManualClock
    server: AdminServer
    instruments: Instruments
    session: aiohttp.ClientSession
    url: str
    snapshot: list[Snapshot] = field(default_factory=lambda: [two_pools()])

    async def call(self, method: str, path: str, **options: Any) -> Reply:
        if isinstance(options.get("data"), dict):
            options["data"] = json.dumps(options["data"])
        async with self.session.request(method, self.url + path, **options) as response:
            return Reply(response.status, response.headers, await response.text())

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.call("GET", path, **options)

    async def put(self, path: str, body: Any, **options: Any) -> Reply:
        return await self.call("PUT", path, data=body, **options)

    async def post(self, path: str, body: Any = b"", **options: Any) -> Reply:
        return await self.call("POST", path, data=body, **options)


SITE = Shown(
    "0.0.0.0:443",
    "tls/site.crt",
    CertificateFacts(
        names=("shop.example",), not_before=1.6e9, not_after=1.8e9, fingerprint="00" * 32
    ),
)
Serve = Callable[..., Awaitable[Admin]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start admin servers: `await serve(tokens=..., bind=...)`; all are stopped at the end."""
    running: list[Admin] = []

    async def start(bind: str = "127.0.0.1:0", tokens: Tokens | None = None) -> Admin:
        desk, fleet, clock = FakeDesk(), FakeFleet(), ManualClock()
        snapshot = [two_pools()]
        instruments = Instruments(
            snapshot=lambda: snapshot[0],
            totals=fleet.totals,
            workers=lambda: fleet.states,
            config=lambda: desk.status()["config"],
            board=fleet.board,
            health=fleet.health,
            checks_in_flight=lambda: 3,
            ejections=lambda: fleet.ejections,
            hook_calls=lambda: {("shop", "delivered"): 4},
            hooks_pending=lambda: 2,
            certificates=lambda: [SITE, SITE],
        )
        server = AdminServer(desk, instruments, bind=bind, tokens=tokens, clock=clock)
        await server.start()
        address = server.addresses[0]
        is_unix = address.startswith("unix:")
        connector = aiohttp.UnixConnector(address.removeprefix("unix:")) if is_unix else None
        session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=20), auto_decompress=True
        )
        url = "http://localhost" if is_unix else f"http://{address}"
        running.append(Admin(desk, fleet, clock, server, instruments, session, url, snapshot))
        return running[-1]

    yield start
    for admin in running:
        await admin.session.close()
        await admin.server.stop()


@pytest.fixture
async def admin(serve: Serve) -> Admin:
    return await serve()


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path is short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
async def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait until a condition holds, thirty seconds at most."""

    async def wait(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():  # noqa: ASYNC110 - what is waited for knows of no event
                await asyncio.sleep(0.005)

    return wait
