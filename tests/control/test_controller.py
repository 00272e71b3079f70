from __future__ import annotations

import asyncio
import sqlite3
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from proxy.control.fleet import InFlight
from proxy.control.refusal import Invalid, NotFound, Refused, Stale, Unavailable
from proxy.stats import DOWN, UNCHECKED
from proxy.tasks import spawn

if TYPE_CHECKING:
    from tests.control.conftest import Until, World

D = Decimal


async def test_starts_with_what_the_file_says(world: World) -> None:
    controller = await world.start()
    view = controller.service("shop")
    assert view["active"] == "blue"
    assert view["weights"] == {
        "declared": {"blue": 100, "green": 0},
        "in_force": {"blue": 100, "green": 0},
        "source": "file",
    }
    assert world.fleet.pool("blue").weight == 10_000
    assert controller.ready() == (True, [])


async def test_a_change_is_in_force_everywhere_when_it_answers(world: World) -> None:
    controller = await world.start()
    view = await controller.set_weights(
        "shop", {"blue": D(90), "green": D("10")}, who="ann", reason="try v42"
    )
    assert view["weights"]["in_force"] == {"blue": 90, "green": 10}
    assert view["weights"]["source"] == "api"
    assert view["candidate"] == "green"
    assert view["applied"] is True
    assert world.fleet.pool("green").weight == 1000
    assert view["overrides"] == [
        {
            "key": "weights",
            "value": {"blue": 90, "green": 10},
            "file_value": {"blue": 100, "green": 0},
            "who": "ann",
            "reason": "try v42",
            "at": "2023-11-14T22:13:20.000Z",
            "until": None,
        }
    ]


async def test_every_change_leaves_one_decision_with_its_revision(world: World) -> None:
    controller = await world.start()
    await controller.set_weights("shop", {"blue": D(90), "green": D(10)}, who="ann")
    record = world.last("weights")
    assert record["revision"] == controller.status()["revision"] == world.fleet.snapshot.revision
    assert set(record) == {
        *("id", "at", "service", "who", "what", "from", "to", "why", "numbers"),
        *("revision", "config"),
    }
    assert controller.decisions("shop", record["id"], 10) == []
    assert controller.decisions(None, record["id"] - 1, 10) == [record]
    assert controller.decisions("other", 0, 10) == []


async def test_decisions_page_upwards_and_show_the_newest_first_of_all(world: World) -> None:
    controller = await world.start()
    for share in (10, 20, 30):
        weights = {"blue": D(100 - share), "green": D(share)}
        await controller.set_weights("shop", weights, who="ann")
    ids = [each["id"] for each in controller.decisions(None, 0, 1000)]
    assert [each["id"] for each in controller.decisions(None, 0, 2)] == ids[-2:]
    assert [each["id"] for each in controller.decisions(None, ids[0], 2)] == ids[1:3]
    assert controller.decisions(None, 0, 0) == []


# ---- refusals ----


async def test_what_does_not_exist_is_not_found(world: World) -> None:
    controller = await world.start()
    with pytest.raises(NotFound, match=r"there is no service blog \(known: shop\)"):
        controller.service("blog")
    with pytest.raises(NotFound):
        await controller.switch("blog", "green", who="ann")
    with pytest.raises(NotFound):
        await controller.drain_status("blog", 0)


async def test_a_stale_change_is_refused(world: World) -> None:
    controller = await world.start()
    etag = controller.etag("shop")
    await controller.set_weights("shop", {"blue": D(90), "green": D(10)}, who="a", if_match=etag)
    with pytest.raises(Stale, match="shop has changed meanwhile"):
        await controller.switch("shop", "green", who="bob", if_match=etag)
    await controller.switch("shop", "green", who="bob", if_match="*")
    assert controller.service("shop")["active"] == "green"


@pytest.mark.parametrize("percent", ["NaN", "100.001", "-1"])
async def test_weights_that_are_no_percentages_are_invalid(world: World, percent: str) -> None:
    controller = await world.start()
    before = controller.status()["revision"]
    with pytest.raises(Invalid):
        await controller.set_weights("shop", {"blue": D(percent)}, who="ann")
    assert controller.status()["revision"] == before


async def test_a_time_must_be_above_nothing(world: World) -> None:
    controller = await world.start()
    with pytest.raises(Invalid, match="ttl"):
        await controller.set_weights("shop", {"blue": D(100)}, who="ann", ttl_s=0)


async def test_an_address_that_is_none_is_invalid_and_named(world: World) -> None:
    controller = await world.start()
    with pytest.raises(Invalid, match=r"endpoints\[1\]: "):
        await controller.set_pool(
            "shop", "green", endpoints=[("a:1", 1), ("nonsense", 1)], release=None, who="ann"
        )
    with pytest.raises(Invalid, match="release"):
        await controller.set_pool("shop", "green", endpoints=[], release="a\nb", who="ann")
    with pytest.raises(Invalid, match="pool: name the pool"):
        await controller.drain("shop", None, "a:1", who="ann")


async def test_a_locked_store_refuses_the_change_and_nothing_moves(world: World) -> None:
    controller = await world.start()
    before = (controller.service("shop"), len(world.fleet.applied))
    other = sqlite3.connect(world.state / "turnout.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            await controller.switch("shop", "green", who="ann")
        other.execute("ROLLBACK")
    finally:
        other.close()
    assert (controller.service("shop"), len(world.fleet.applied)) == before
    await controller.switch("shop", "green", who="ann")


# ---- switch and rollback ----


async def test_a_switch_asks_the_endpoints_first(world: World) -> None:
    controller = await world.start()
    world.probes.problems["127.0.0.1:9101"] = "connection refused"
    with pytest.raises(Refused, match=r"green is not ready: 127\.0\.0\.1:9101: connection refused"):
        await controller.switch("shop", "green", who="ann")
    assert world.fleet.pool("green").weight == 0
    view = await controller.switch("shop", "green", force=True, who="ann")
    assert view["weights"]["in_force"] == {"blue": 0, "green": 100}
    assert world.last("switch")["why"] == "forced"
    with pytest.raises(Refused, match="green is already active"):
        await controller.switch("shop", "green", force=True, who="ann")


async def test_a_rollback_goes_back_and_voids_cookies(world: World) -> None:
    controller = await world.start()
    await controller.switch("shop", "green", who="ann")
    view = await controller.rollback("shop", who="bob", reason="errors")
    assert view["active"] == "blue"
    assert world.fleet.pool("green").epoch == 1
    assert world.last("rollback")["why"] == "by hand: errors"
    with pytest.raises(Refused, match="nothing to go back to"):
        await controller.rollback("shop", who="bob")


async def test_a_rollback_to_nothing_available_needs_force(world: World) -> None:
    controller = await world.start()
    await controller.switch("shop", "green", who="ann")
    world.probes.problems = dict.fromkeys(
        ["127.0.0.1:9001", "127.0.0.1:9002"], "connection refused"
    )
    with pytest.raises(Refused, match=r"blue is not ready: 127\.0\.0\.1:9001: connection refused;"):
        await controller.rollback("shop", who="ann")
    await controller.rollback("shop", who="ann", force=True)
    assert controller.service("shop")["active"] == "blue"


async def test_a_rollback_needs_only_one_endpoint(world: World) -> None:
    controller = await world.start()
    await controller.switch("shop", "green", who="ann")
    world.probes.problems["127.0.0.1:9001"] = "connection refused"
    await controller.rollback("shop", who="ann")


# ---- connections ahead of traffic ----


async def test_a_pool_that_gets_more_is_warmed_before_it_gets_it(world: World) -> None:
    controller = await world.start()
    await controller.set_weights("shop", {"blue": Decimal(90), "green": Decimal(10)}, who="ann")
    assert world.fleet.warmed == [("shop", "green", 1)], "at the revision before the change"
    await controller.switch("shop", "green", who="ann")
    assert world.fleet.warmed[1:] == [("shop", "green", 2)]
    await controller.rollback("shop", who="ann")
    assert world.fleet.warmed[2:] == [], "a rollback waits for nothing"


async def test_what_is_refused_warms_nothing(world: World) -> None:
    controller = await world.start()
    world.probes.problems["127.0.0.1:9101"] = "connection refused"
    with pytest.raises(Refused):
        await controller.switch("shop", "green", who="ann")
    assert world.fleet.warmed == []


async def test_warming_that_fails_fails_no_change(world: World) -> None:
    controller = await world.start()
    world.fleet.warm_error = RuntimeError("no")
    view = await controller.switch("shop", "green", who="ann")
    assert view["active"] == "green"


# ---- one after the other, to the end ----


async def test_a_change_whose_caller_went_away_is_finished(world: World, until: Until) -> None:
    controller = await world.start()
    gate, reached = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await gate.wait()

    world.fleet.before_apply = wait
    caller = spawn(
        controller.switch("shop", "green", who="ann"), name="caller", report=lambda *_: None
    )
    await reached.wait()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    gate.set()
    await until(lambda: world.fleet.pool("green").weight == 10_000)


async def test_changes_are_made_one_after_the_other(world: World) -> None:
    controller = await world.start()
    running = 0

    async def alone() -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0)
        running -= 1

    world.fleet.before_apply = alone
    await asyncio.gather(
        *(
            controller.set_weights("shop", {"blue": D(100 - n), "green": D(n)}, who=f"u{n}")
            for n in range(1, 9)
        )
    )
    revisions = [each.revision for each in world.fleet.applied]
    assert revisions == sorted(set(revisions))


async def test_a_change_that_could_not_be_applied_stands_and_says_so(
    world: World, until: Until
) -> None:
    controller = await world.start()
    world.fleet.apply_error = RuntimeError("worker 1 is gone")
    view = await controller.switch("shop", "green", who="ann")
    assert view["applied"] is False
    _, reasons = controller.ready()
    assert "is not applied: worker 1 is gone" in reasons[0]
    world.fleet.apply_error = None
    await until(lambda: controller.ready() == (True, []))
    assert world.fleet.pool("green").weight == 10_000


# ---- times ----


async def test_weights_for_a_time_end_by_themselves(world: World, until: Until) -> None:
    controller = await world.start()
    await controller.set_weights(
        "shop", {"blue": D(50), "green": D(50)}, who="ann", ttl_s=60, reason="load test"
    )
    (override,) = controller.service("shop")["overrides"]
    assert override["until"] == "2023-11-14T22:14:20.000Z"
    world.clock.advance(61)
    await until(lambda: world.fleet.pool("green").weight == 0)
    record = world.last("ttl")
    assert record["who"] == "ttl"
    assert record["to"] == {"blue": 100, "green": 0}


async def test_a_time_that_ended_while_we_were_down_is_over(world: World) -> None:
    controller = await world.start()
    await controller.set_weights("shop", {"blue": D(50), "green": D(50)}, who="ann", ttl_s=60)
    world.clock.advance(61)
    await world.restart()
    assert world.fleet.applied[0].services[0].pools[1].weight == 0
    assert "ttl" in world.whats("shop")


# ---- drains ----


def tunnel(age_s: float) -> InFlight:
    return InFlight(
        kind="tunnel",
        age_s=age_s,
        pool="blue",
        endpoint="127.0.0.1:9001",
        route="GET /ws",
        request_id="r1",
    )


async def test_a_switch_drains_what_it_leaves(world: World) -> None:
    controller = await world.start()
    world.fleet.set_in_flight("blue", 60, 10, 1)
    world.fleet.items = [tunnel(12.5)]
    view = await controller.switch("shop", "green", who="ann")
    drain = view["drain"]
    assert (drain["pool"], drain["endpoint"], drain["done"]) == ("blue", None, False)
    assert drain["remaining"] == {"request": 60, "stream": 10, "tunnel": 1}
    assert (drain["requests_left_s"], drain["streams_left_s"]) == (30.0, 300.0)
    assert drain["deadline_s"] == 300.0
    status = await controller.drain_status("shop", 0.05)
    assert status is not None
    assert status["items"] == [
        {
            "class": "tunnel",
            "age_s": 12.5,
            "pool": "blue",
            "endpoint": "127.0.0.1:9001",
            "route": "GET /ws",
            "request_id": "r1",
        }
    ]


async def test_waiting_for_a_drain_ends_when_it_is_empty(world: World) -> None:
    controller = await world.start()
    world.fleet.set_in_flight("blue", 2, 0, 0)
    await controller.switch("shop", "green", who="ann")
    waiting = spawn(controller.drain_status("shop", 30), name="wait", report=lambda *_: None)
    await asyncio.sleep(0.1)
    assert not waiting.done()
    world.fleet.set_in_flight("blue", 0, 0, 0)
    async with asyncio.timeout(20):
        status = await waiting
    assert status["done"] is True
    assert status["remaining"] == {"request": 0, "stream": 0, "tunnel": 0}
    assert world.last("drained")["why"] == "empty"
    assert world.fleet.pool("blue").drain is None


async def test_what_was_cut_at_the_deadline_is_counted(world: World) -> None:
    controller = await world.start()
    world.fleet.set_cut("blue", 5, 0, 0)
    world.fleet.set_in_flight("blue", 0, 0, 3)
    await controller.switch("shop", "green", who="ann")
    world.clock.advance(305)
    world.fleet.set_cut("blue", 5, 0, 3)
    world.fleet.set_in_flight("blue", 0, 0, 0)
    status = await controller.drain_status("shop", 5)
    assert status is not None
    assert status["cut"] == {"request": 0, "stream": 0, "tunnel": 3}
    assert world.last("drained")["numbers"]["cut"]["tunnel"] == 3
    assert world.last("drained")["why"] == "3 cut at the deadline"
    view = controller.service("shop")["drain"]
    assert (view["done"], view["cut"]["tunnel"]) == (True, 3)


async def test_a_drain_goes_on_after_a_restart(world: World) -> None:
    controller = await world.start()
    world.fleet.set_in_flight("blue", 1, 0, 0)
    await controller.switch("shop", "green", who="ann")
    before = controller.service("shop")["drain"]
    assert before["done"] is False
    world.clock.advance(10)
    controller = await world.restart()
    first = world.fleet.applied[0].services[0].pools[0]
    assert first.drain is not None
    assert first.drain.requests_by_s - world.clock.monotonic() == pytest.approx(20.0)
    status = await controller.drain_status("shop", 5)
    assert status is not None
    assert status["done"] is True


async def test_endpoints_that_leave_stay_until_they_are_empty(world: World) -> None:
    controller = await world.start()
    world.fleet.set_endpoint_in_flight("blue", "127.0.0.1:9002", 1)
    view = await controller.set_pool(
        "shop", "blue", endpoints=[("127.0.0.1:9001", 2)], release="v43", who="ann"
    )
    assert view["pools"]["blue"]["release"] == "v43"
    shown = {each["address"]: each for each in view["pools"]["blue"]["endpoints"]}
    assert shown["127.0.0.1:9001"]["weight"] == 2
    left = shown["127.0.0.1:9002"]
    assert (left["leaving"], left["draining"], left["available"]) == (True, True, False)
    assert left["in_flight"] == 1
    world.fleet.set_endpoint_in_flight("blue", "127.0.0.1:9002", 0)
    status = await controller.drain_status("shop", 5)
    assert status is not None
    assert status["remaining"] == {"request": 0, "stream": 0, "tunnel": 0}
    assert status["done"] is True
    assert [each.address for each in world.fleet.pool("blue").endpoints] == ["127.0.0.1:9001"]
    assert await controller.drain_status("shop", 0) is None


async def test_an_endpoint_is_drained_and_taken_back_by_hand(world: World) -> None:
    controller = await world.start()
    view = await controller.drain("shop", "blue", "127.0.0.1:9001", who="ann")
    assert (view["pool"], view["endpoint"]) == ("blue", "127.0.0.1:9001")
    assert world.fleet.pool("blue").endpoints[0].drain is not None
    again = await controller.drain("shop", "blue", "127.0.0.1:9001", who="ann")
    assert again["since"] == view["since"]
    with pytest.raises(Refused, match="last endpoint"):
        await controller.drain("shop", "blue", "127.0.0.1:9002", who="ann")
    undone = await controller.drain("shop", "blue", "127.0.0.1:9001", undo=True, who="ann")
    assert undone["done"] is True
    assert world.fleet.pool("blue").endpoints[0].drain is None


async def test_a_drain_without_a_name_is_of_the_idle_pool(world: World) -> None:
    controller = await world.start()
    assert (await controller.drain("shop", None, None, who="ann"))["pool"] == "green"


# ---- reload ----


async def test_a_reload_without_a_change_changes_nothing(world: World) -> None:
    controller = await world.start()
    applied = len(world.fleet.applied)
    world.edit(("services:", "# a remark\nservices:"))
    answer = await controller.reload(who="api")
    assert answer["applied"] is True
    assert (answer["changes"], answer["errors"]) == ([], [])
    assert len(world.fleet.applied) == applied
    assert controller.status()["config"]["hash"] == answer["hash"]


async def test_a_reload_puts_the_file_in_force(world: World) -> None:
    controller = await world.start()
    world.edit(("9101", "9102"), ("requests: 30s", "requests: 5s"))
    answer = await controller.reload(who="api")
    assert answer["applied"] is True
    assert len(answer["changes"]) == 2
    assert answer["revision"] == world.fleet.snapshot.revision
    assert {"pool", "reload"} <= set(world.whats("shop"))
    assert world.last("reload")["numbers"] == {"key": "drain"}
    assert world.last("pool")["who"] == "file"
    assert world.fleet.pool("green").endpoints[0].address == "127.0.0.1:9102"


async def test_an_invalid_file_changes_nothing_and_stays_visible(world: World) -> None:
    controller = await world.start()
    applied, text = len(world.fleet.applied), world.path.read_text()
    world.edit(("active: blue", "active: red"))
    answer = await controller.reload(who="api")
    assert answer["applied"] is False
    assert "red" in answer["errors"][0]
    assert controller.status()["config"]["last_error"] == answer["errors"][0]
    assert len(world.fleet.applied) == applied
    world.path.unlink()
    assert (await controller.reload(who="api"))["applied"] is False
    world.write(text)
    assert (await controller.reload(who="api"))["applied"] is True
    assert controller.status()["config"]["last_error"] is None


async def test_what_cannot_change_live_is_refused_with_a_sentence(world: World) -> None:
    controller = await world.start()
    world.edit(("services:", "workers: 3\nadmin: {bind: 127.0.0.1:9999}\nservices:"))
    answer = await controller.reload(who="api")
    assert answer["applied"] is False
    assert [each.split(": ", 1)[1] for each in answer["errors"]] == [
        "workers changed: needs a restart; nothing of the new file is in force",
        "admin.bind changed: needs a restart; nothing of the new file is in force",
    ]


async def test_a_listener_that_cannot_be_opened_fails_the_reload_whole(world: World) -> None:
    controller = await world.start()
    world.fleet.bind_problems = ["127.0.0.1:8081: address already in use"]
    world.edit(("state:", "  - bind: 127.0.0.1:8081\nstate:"), ("9101", "9102"))
    answer = await controller.reload(who="api")
    assert answer["errors"] == ["127.0.0.1:8081: address already in use"]
    assert len(world.fleet.snapshot.listeners) == 1
    assert world.fleet.pool("green").endpoints[0].address == "127.0.0.1:9101"
    world.fleet.bind_problems = []
    assert (await controller.reload(who="api"))["applied"] is True
    assert len(world.fleet.snapshot.listeners) == 2


async def test_the_file_wins_only_where_it_changed(world: World) -> None:
    controller = await world.start()
    await controller.set_weights("shop", {"blue": D(90), "green": D(10)}, who="ann")
    world.edit(("9101", "9102"))
    await controller.reload(who="api")
    assert world.fleet.pool("green").weight == 1000
    world.edit(("active: blue", "active: blue\n    weights: {blue: 60, green: 40}"))
    await controller.reload(who="api")
    assert world.fleet.pool("green").weight == 4000
    assert world.last("weights")["why"] == "the file changed; it wins over ann's 90/10"


async def test_a_file_that_changed_while_we_were_down_wins_as_well(world: World) -> None:
    controller = await world.start()
    await controller.set_weights("shop", {"blue": D(90), "green": D(10)}, who="ann")
    await world.restart()
    assert world.fleet.applied[0].services[0].pools[1].weight == 1000
    world.edit(("active: blue", "active: blue\n    weights: {blue: 60, green: 40}"))
    await world.restart()
    assert world.fleet.applied[0].services[0].pools[1].weight == 4000
    assert "it wins over ann's 90/10" in world.last("weights")["why"]


async def test_a_service_comes_and_goes_by_the_file(world: World, until: Until) -> None:
    controller = await world.start()
    text = world.path.read_text()
    blog = """  blog:
    routes: [{host: blog.example.com}]
    pools: {only: {endpoints: ["127.0.0.1:9301"]}}
    active: only
"""
    world.write(text + blog)
    await controller.reload(who="api")
    assert controller.service("blog")["weights"]["in_force"] == {"only": 100}
    world.fleet.set_endpoint_in_flight_of("blog", "only", "127.0.0.1:9301", 1)
    world.write(text)
    await controller.reload(who="api")
    leaving = world.fleet.pool("only", "blog")
    assert leaving.endpoints[0].drain is not None
    with pytest.raises(NotFound, match="leaving"):
        await controller.switch("blog", "only", who="ann")
    assert controller.ready() == (True, [])
    world.fleet.set_endpoint_in_flight_of("blog", "only", "127.0.0.1:9301", 0)
    await until(lambda: [each.name for each in world.fleet.snapshot.services] == ["shop"])
    with pytest.raises(NotFound):
        controller.service("blog")


async def test_a_change_of_the_file_is_noticed(world: World, until: Until) -> None:
    await world.start(watch_file=True)
    world.edit(("9101", "9102"))
    await until(lambda: world.fleet.pool("green").endpoints[0].address == "127.0.0.1:9102")


async def test_no_secret_reaches_a_decision_or_a_view(world: World) -> None:
    world.edit(("active: blue", "active: blue\n    sticky: {by: cookie, secret: first-secret}"))
    controller = await world.start()
    world.edit(("first-secret", "second-secret"))
    await controller.reload(who="api")
    assert world.last("reload")["numbers"] == {"key": "sticky"}
    shown = repr([controller.decisions(None, 0, 99), controller.status(), controller.config_view()])
    assert "-secret" not in shown
    assert "***" in shown


# ---- keys ----


def keys(world: World) -> tuple[str, ...]:
    return world.fleet.snapshot.services[0].sticky.keys


async def test_cookies_stay_valid_over_restarts_and_a_new_secret(world: World) -> None:
    world.edit(("active: blue", "active: blue\n    sticky: {by: cookie, max_age: 1h}"))
    await world.start()
    (made,) = keys(world)
    controller = await world.restart()
    assert keys(world) == (made,)
    world.edit(("by: cookie,", "by: cookie, secret: given,"))
    await controller.reload(who="api")
    given, old = keys(world)
    assert old == made
    await world.restart()
    assert keys(world) == (given, made)
    world.clock.advance(3601)
    await world.restart()
    assert keys(world) == (given,)


async def test_a_service_that_went_while_we_were_down_is_gone(world: World) -> None:
    text = world.path.read_text()
    world.write(text.replace("shop:", "blog:").replace("path: /", "path: /blog"))
    await world.start()
    world.write(text)
    controller = await world.restart()
    assert [each["name"] for each in controller.services()] == ["shop"]
    gone, added = controller.decisions(None, 0, 2)
    assert {gone["service"], added["service"]} == {"shop", "blog"}
    assert {gone["why"], added["why"]} == {"added to the file", "removed from the file"}


# ---- life ----


async def test_an_acknowledged_change_is_in_force_after_a_restart(world: World) -> None:
    controller = await world.start()
    await controller.switch("shop", "green", who="ann", reason="v42")
    revision = controller.status()["revision"]
    controller = await world.restart()
    assert world.fleet.applied[0].services[0].pools[1].weight == 10_000
    assert controller.status()["revision"] > revision
    assert controller.service("shop")["active"] == "green"
    assert world.last("switch")["who"] == "ann"
    await controller.rollback("shop", who="ann")
    assert controller.service("shop")["active"] == "blue"


async def test_a_damaged_store_is_said_and_the_file_is_in_force(world: World) -> None:
    controller = await world.start()
    await controller.switch("shop", "green", who="ann")
    await world.stop()
    (world.state / "turnout.db").write_bytes(b"garbage " * 1000)
    controller = await world.restart()
    assert controller.service("shop")["active"] == "blue"
    problem = controller.status()["state"]["problem"]
    assert "set aside as turnout.db.damaged-" in problem
    assert world.last("started")["why"] == problem


async def test_a_stopping_proxy_is_not_ready(world: World) -> None:
    controller = await world.start()
    controller.begin_shutdown()
    assert controller.ready() == (False, ["shutting down"])


async def test_a_service_nobody_can_reach_is_not_ready(world: World) -> None:
    controller = await world.start()
    later = int(world.clock.monotonic() * 1000) + 5000
    world.fleet.set_unreachable_until("blue", "127.0.0.1:9001", later, later)
    assert controller.ready()[0]
    world.fleet.set_unreachable_until("blue", "127.0.0.1:9002", later, later)
    why = "could not be connected to"
    assert controller.ready() == (
        False,
        [f"shop has no available endpoint (127.0.0.1:9001: {why}; 127.0.0.1:9002: {why})"],
    )
    endpoint = controller.service("shop")["pools"]["blue"]["endpoints"][0]
    assert (endpoint["available"], endpoint["reachable"]) == (False, False)
    world.fleet.set_unreachable_until("blue", "127.0.0.1:9002", later, 0)
    assert controller.ready()[0]


async def test_a_body_is_checked_without_being_used(world: World) -> None:
    controller = await world.start()
    assert controller.check_text(world.path.read_text()) == []
    assert controller.check_text("listeners: 3") != []


async def test_after_the_stop_nothing_is_changed(world: World) -> None:
    controller = await world.start()
    await world.stop()
    with pytest.raises(Unavailable, match="closed"):
        await controller.switch("shop", "green", who="ann")


def with_checks(world: World, health: str = "{interval: 1h, fall: 1}") -> None:
    world.edit(("    active: blue\n", f"    active: blue\n    health: {health}\n"))


def marks(world: World, pool: str) -> list[int]:
    return [world.fleet.board.state(each.slot) for each in world.fleet.pool(pool).endpoints]


async def test_the_first_snapshot_is_applied_when_it_is_known_who_is_up(world: World) -> None:
    with_checks(world)
    world.checks.problems["127.0.0.1:9002"] = "connection refused"
    seen: list[list[int]] = []

    async def look() -> None:
        slots = [("shop", "blue", f"127.0.0.1:900{number}") for number in (1, 2)]
        assert controller.health[slots[0]].words == "200 in 1 ms"
        seen.append([world.fleet.board.state(controller._ledger.book.endpoint(*s)) for s in slots])

    world.fleet.before_apply = look
    controller = world.make()
    await controller.start()
    assert seen == [[0, UNCHECKED]]
    assert controller.ready() == (True, [])
    endpoint = controller.service("shop")["pools"]["blue"]["endpoints"][1]
    assert (endpoint["state"], endpoint["last_check"]) == ("unchecked", "connection refused")


async def test_a_new_endpoint_is_marked_before_the_workers_hear_of_it(world: World) -> None:
    with_checks(world)
    controller = await world.start()
    seen: list[int] = []

    async def look() -> None:
        slot = controller._ledger.book.endpoint("shop", "green", "127.0.0.1:9109")
        seen.append(world.fleet.board.state(slot))

    world.fleet.before_apply = look
    world.checks.problems["127.0.0.1:9109"] = "503 in 2 ms"
    await controller.set_pool(
        "shop", "green", endpoints=[("127.0.0.1:9109", 1)], release=None, who="ann"
    )
    assert seen == [UNCHECKED]


async def test_a_switch_goes_by_the_checks_where_there_are_some(world: World) -> None:
    with_checks(world)
    world.checks.problems["127.0.0.1:9101"] = "503 in 2 ms"
    controller = await world.start()
    with pytest.raises(Refused) as refused:
        await controller.switch("shop", "green", who="ann")
    assert refused.value.detail == (
        "green is not ready: 127.0.0.1:9101: 503 in 2 ms (--force overrides)"
    )
    assert world.probes.asked == [], "no connection is opened beside the checks"
    world.checks.problems.clear()
    await controller.switch("shop", "green", who="ann")  # it was asked once more
    await controller.rollback("shop", who="ann")
    world.checks.problems["127.0.0.1:9101"] = "503 in 2 ms"
    await controller.switch("shop", "green", force=True, who="ann")


async def test_half_of_what_the_active_pool_has_up_is_enough(world: World, until: Until) -> None:
    more = '["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]'
    world.edit(('["127.0.0.1:9001", "127.0.0.1:9002"]', more))
    with_checks(world)
    controller = await world.start()
    with pytest.raises(Refused, match="fewer than half of the 3 of blue"):
        await controller.switch("shop", "green", who="ann")
    world.checks.problems["127.0.0.1:9002"] = "connection refused"
    controller = await world.restart()
    world.edit(("interval: 1h", "interval: 50ms"))
    await controller.reload(who="ann")
    await until(lambda: marks(world, "blue") == [0, DOWN, 0])
    await controller.switch("shop", "green", who="ann")


async def test_what_was_down_is_down_after_a_restart(world: World, until: Until) -> None:
    with_checks(world, "{interval: 50ms, fall: 1, rise: 1000}")
    controller = await world.start()
    world.checks.problems["127.0.0.1:9001"] = "503 in 2 ms"
    await until(lambda: marks(world, "blue") == [DOWN, 0])
    world.checks.problems.clear()
    await world.restart()
    assert marks(world, "blue") == [DOWN, 0]
    assert controller is not world.controller


async def test_a_service_without_anybody_up_says_why(world: World, until: Until) -> None:
    with_checks(world, "{interval: 50ms, fall: 1}")
    controller = await world.start()
    for address in ("127.0.0.1:9001", "127.0.0.1:9002"):
        world.checks.problems[address] = "503 in 2 ms"
    await until(lambda: marks(world, "blue") == [DOWN, DOWN])
    why = "127.0.0.1:9001: 503 in 2 ms; 127.0.0.1:9002: 503 in 2 ms"
    assert controller.ready() == (False, [f"shop has no available endpoint ({why})"])


async def test_checks_come_and_go_with_a_reload(world: World) -> None:
    controller = await world.start()
    assert world.checks.asked == []
    world.checks.problems["127.0.0.1:9001"] = "503 in 2 ms"
    with_checks(world)
    assert (await controller.reload(who="ann"))["changes"]
    assert marks(world, "blue") == [0, 0], "they have served until now"
    world.edit(("    health: {interval: 1h, fall: 1}\n", ""))
    await controller.reload(who="ann")
    assert controller.service("shop")["pools"]["blue"]["endpoints"][0]["checked"] is None
