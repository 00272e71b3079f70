from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.control import verbs
from proxy.control.decision import Author
from proxy.control.filling import Filling
from proxy.control.fleet import WorkerState
from proxy.control.state import ServiceState
from proxy.control.views import changes_in_words, overrides, worker_view
from proxy.stats import (
    E_FAILURES,
    E_IDLE,
    E_OPEN,
    E_PENDING,
    E_REQUESTS,
    P_ANSWERS,
    P_FAILURES,
)

if TYPE_CHECKING:
    from tests.control.conftest import World


async def test_a_service_is_shown_with_its_numbers(world: World) -> None:
    controller = await world.start()
    blue = world.fleet.pool("blue")
    for block in world.fleet.blocks:
        block.words[blue.slot + P_ANSWERS + 2] = 20
        block.words[blue.slot + P_ANSWERS + 5] = 1
        block.words[blue.slot + P_FAILURES + 1] = 1
        block.words[blue.endpoints[0].slot + E_REQUESTS] = 21
        block.words[blue.endpoints[0].slot + E_FAILURES] = 1
        block.words[blue.endpoints[0].slot + E_IDLE] = 4
    world.fleet.set_in_flight("blue", 3, 1, 0)
    view = controller.service("shop")
    assert view["pools"]["blue"]["in_flight"] == {"request": 3, "stream": 1, "tunnel": 0}
    assert view["pools"]["blue"]["release"] == "v41"
    assert view["pools"]["blue"]["endpoints"][0] == {
        "address": "127.0.0.1:9001",
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
        "ejected_why": None,
        "ejected_until": None,
        "draining": False,
        "reachable": True,
        "full": False,
        "leaving": False,
        "in_flight": 0,
        "idle": 8,
        "open": 0,
        "pending": 0,
        "requests": 42,
        "failures": 2,
    }
    counts = view["counts"]["blue"]
    assert counts["requests"] == 42
    assert counts["answers"] == {"none": 0, "1xx": 0, "2xx": 40, "3xx": 0, "4xx": 0, "5xx": 2}
    assert counts["failures"]["timeout"] == 2
    for key in ("rollout", "lockout", "drain", "candidate"):
        assert view[key] is None


async def test_the_status_is_everything_on_one_page(world: World) -> None:
    controller = await world.start()
    world.clock.advance(5)
    status = controller.status()
    assert status["uptime_s"] == 5.0
    assert status["config"]["path"] == str(world.path)
    assert status["config"]["last_errors"] == []
    assert status["state"] == {"path": str(world.state / "turnout.db"), "problem": None}
    assert [each["pid"] for each in status["workers"]] == [100, 101]
    assert [each["name"] for each in status["services"]] == ["shop"]


def test_a_workers_state_is_shown_with_dates() -> None:
    worker = WorkerState(slot=1, pid=7, revision=3, up=True, started_at=0.0, restarts=2)
    assert worker_view(worker)["started_at"] == "1970-01-01T00:00:00.000Z"


def test_only_what_differs_from_the_file_is_shown(shop: ServiceState, ann: Author) -> None:
    assert overrides(shop) == []
    state = verbs.switch(shop, "green", ann).state
    state = verbs.set_pool(state, "blue", Filling(release="v40"), ann).state
    shown = {each["key"]: (each["value"], each["file_value"]) for each in overrides(state)}
    assert shown["active"] == ("green", "blue")
    assert shown["weights"] == ({"blue": 0, "green": 100}, {"blue": 100, "green": 0})
    assert shown["pools.blue"][0] == {"endpoints": [], "release": "v40"}
    assert {each["who"] for each in overrides(state)} == {"ann"}


def test_a_reload_is_told_in_sentences() -> None:
    records: list[dict[str, Any]] = [
        {
            "service": "shop",
            "what": "weights",
            "from": {"blue": 100},
            "to": {"blue": 90, "green": 10},
            "why": "the file changed",
            "numbers": {},
        },
        {
            "service": None,
            "what": "reload",
            "from": [],
            "to": ["a"],
            "why": "the file changed",
            "numbers": {"key": "listeners"},
        },
    ]
    assert changes_in_words(records) == [
        "shop: weights: blue 100 -> blue 90, green 10 (the file changed)",
        "proxy: reload listeners: [] -> [a] (the file changed)",
    ]


async def test_an_endpoint_is_full_when_nothing_is_free_and_nobody_else_may_wait(
    world: World,
) -> None:
    limits = "limits: {per_endpoint_connections: 4, per_endpoint_pending: 2}"
    world.edit(("active: blue\n", f"active: blue\n    {limits}\n"))
    controller = await world.start()
    slot = world.fleet.pool("blue").endpoints[0].slot

    def shown() -> tuple[bool, bool]:
        endpoint = controller.service("shop")["pools"]["blue"]["endpoints"][0]
        return endpoint["full"], endpoint["available"]

    for block in world.fleet.blocks:
        block.words[slot + E_OPEN] = 2
    assert shown() == (False, True)
    for block in world.fleet.blocks:
        block.words[slot + E_PENDING] = 1
    assert shown() == (True, False)
    world.fleet.blocks[0].words[slot + E_IDLE] = 1
    assert shown() == (False, True)
