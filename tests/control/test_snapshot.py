from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.control import drains, hold, verbs
from proxy.control.config.load import load_file, load_text
from proxy.control.config.schema import Config
from proxy.control.decision import Author
from proxy.control.declared import declared, drain_rules
from proxy.control.filling import Filling
from proxy.control.keys import Rings, StickyKey
from proxy.control.reconcile import remove
from proxy.control.slots import SlotBook
from proxy.control.snapshot import Moment, build
from proxy.control.state import ServiceState
from proxy.model import (
    Drain,
    HeaderRules,
    Hold,
    Preview,
    Redirect,
    Retries,
    Route,
    Service,
    Snapshot,
    Sticky,
)
from proxy.stats import SlotTable

TEXT = """
listeners:
  - bind: 127.0.0.1:8080
    trusted_proxies: [10.0.0.0/8]
    limits: {max_connections: 500}
access_log: {path: "off"}
services:
  shop:
    routes: [{host: Shop.example.com, path: /a}]
    pools:
      green: {endpoints: [{address: "127.0.0.1:9101", weight: 2}], release: v42}
      blue: {endpoints: ["127.0.0.1:9001"], release: v41}
    active: blue
    sticky: {by: cookie, cookie: t, max_idle: 10m, on_zero: finish, endpoint: true}
    preview: {secret: s3cret}
    balance: hash
    timeouts: {connect: 1s, upstream_max_age: 5m}
    warm_connections: 2
    retry: {attempts: 2, budget: 20%, rescue: false}
    limits: {max_body: 1KiB}
    headers: {expose_pool: true}
    drain: {requests: 30s, streams: 5m, spread: 10s}
"""
NOW = Moment(monotonic=500.0, wall=1000.0)


@pytest.fixture
def config() -> Config:
    return load_text(TEXT, "test", {}).config


@pytest.fixture
def shop_state(config: Config) -> ServiceState:
    return ServiceState(name="shop", file=declared(config.services["shop"]))


def build_one(
    config: Config, state: ServiceState, rings: Rings | None = None, now: Moment = NOW
) -> Snapshot:
    states: Mapping[str, ServiceState] = {"shop": state}
    return build(
        config, config.services, states, rings or {}, SlotBook(SlotTable()), revision=3, now=now
    )


def only(snapshot: Snapshot) -> Service:
    (service,) = snapshot.services
    return service


def test_what_the_file_says_reaches_the_workers(config: Config, shop_state: ServiceState) -> None:
    rings = {"shop": (StickyKey(key="aa"), StickyKey(key="bb", until=999.0))}
    snapshot = build_one(config, shop_state, rings)
    service = only(snapshot)
    assert snapshot.revision == 3
    assert snapshot.access_log.path == "off"
    assert snapshot.listeners[0].trusted_proxies == ("10.0.0.0/8",)
    assert snapshot.listeners[0].max_connections == 500
    assert service.retry == Retries(attempts=2, budget=2000, floor=3, rescue=False)
    assert service.routes == (Route(host="shop.example.com", path="/a"),)
    assert [pool.name for pool in service.pools] == ["blue", "green"]
    assert [pool.weight for pool in service.pools] == [10_000, 0]
    assert [pool.release for pool in service.pools] == ["v41", "v42"]
    assert service.pools[1].endpoints[0].weight == 2
    assert service.sticky == Sticky(
        by="cookie", name="t", max_idle_s=600.0, on_zero="finish", endpoint=True, keys=("aa",)
    )
    assert service.preview == Preview(
        header="X-Turnout-Preview", cookie="turnout_preview", secret="s3cret"
    )
    assert (service.balance, service.max_body, service.expose_pool) == ("hash", 1024, True)
    assert service.timeouts.connect_s == 1.0
    assert (service.timeouts.upstream_max_age_s, service.warm_connections) == (300.0, 2)


def test_areas_do_not_move_between_snapshots(config: Config, shop_state: ServiceState) -> None:
    book = SlotBook(SlotTable())
    first, second = (
        build(config, config.services, {"shop": shop_state}, {}, book, revision=r, now=NOW)
        for r in (1, 2)
    )
    assert first.services == second.services
    slots = [pool.slot for pool in only(first).pools]
    slots += [each.slot for pool in only(first).pools for each in pool.endpoints]
    assert len(set(slots)) == len(slots)


def test_deadlines_become_monotonic(config: Config, shop_state: ServiceState) -> None:
    ann = Author(who="ann", at=990.0)
    rules = drain_rules(config.services["shop"])
    switched = drains.settle(
        shop_state, verbs.switch(shop_state, "green", ann).state, rules, now=990.0, offset=0
    )
    blue = only(build_one(config, switched)).pools[0]
    assert blue.drain == Drain(
        since_s=490.0, requests_by_s=520.0, streams_by_s=790.0, spread_s=10.0
    )
    ended = replace(
        switched, pool_drains={"blue": replace(switched.pool_drains["blue"], ended=999.0)}
    )
    assert only(build_one(config, ended)).pools[0].drain is None


def test_an_ended_drain_keeps_traffic_away_where_there_is_weight(
    config: Config, shop_state: ServiceState
) -> None:
    ann = Author(who="ann", at=990.0)
    rules = drain_rules(config.services["shop"])
    split = verbs.set_weights(shop_state, {"blue": 5000, "green": 5000}, ann).state
    drained = drains.drain(split, "blue", None, rules, ann).state
    ended = replace(
        drained, pool_drains={"blue": replace(drained.pool_drains["blue"], ended=999.0)}
    )
    assert only(build_one(config, ended)).pools[0].drain is not None


def test_a_removed_endpoint_stays_listed_and_draining(
    config: Config, shop_state: ServiceState
) -> None:
    ann = Author(who="ann", at=990.0)
    rules = drain_rules(config.services["shop"])
    emptied = drains.settle(
        shop_state,
        verbs.set_pool(shop_state, "green", Filling(), ann).state,
        rules,
        now=990.0,
        offset=0,
    )
    (endpoint,) = only(build_one(config, emptied)).pools[1].endpoints
    assert endpoint.address == "127.0.0.1:9101"
    assert endpoint.drain is not None


def test_a_removed_service_has_no_routes_and_only_endpoints_that_leave(
    config: Config, shop_state: ServiceState
) -> None:
    rules = drain_rules(config.services["shop"])
    gone = drains.settle(shop_state, remove(shop_state).state, rules, now=990.0, offset=0)
    service = only(build_one(config, gone))
    assert service.routes == ()
    assert sum(pool.weight for pool in service.pools) == 10_000
    assert all(each.drain for pool in service.pools for each in pool.endpoints)


def test_without_a_secret_there_is_no_preview(shop_state: ServiceState) -> None:
    config = load_text(TEXT.replace("s3cret", '""'), "test", {}).config
    assert only(build_one(config, shop_state)).preview is None


def test_a_header_to_stick_by_is_named(shop_state: ServiceState) -> None:
    text = TEXT.replace("by: cookie, cookie: t,", "by: 'header:X-User',").replace(
        "on_zero: finish, ", ""
    )
    sticky = only(build_one(load_text(text, "test", {}).config, shop_state)).sticky
    assert (sticky.by, sticky.name) == ("header", "X-User")


def test_the_annotated_configuration_builds() -> None:
    path = Path(__file__).parents[2] / "config" / "turnout.yaml"
    config = load_text(path.read_text(), str(path), {}).config
    states = {
        name: ServiceState(name=name, file=declared(service))
        for name, service in config.services.items()
    }
    book = SlotBook(SlotTable())
    snapshot = build(config, config.services, states, {}, book, revision=1, now=NOW)
    assert [each.name for each in snapshot.services] == sorted(config.services)


def test_a_hold_has_its_times_on_the_clock_of_the_workers(
    config: Config, shop_state: ServiceState
) -> None:
    author = Author(who="ann", at=990.0)
    held = hold.hold(shop_state, author, timeout_s=20.0, most=50).state
    expected = Hold(since_s=490.0, timeout_s=20.0, most=50)
    assert build_one(config, held).services[0].hold == expected
    released = hold.release(held, replace(author, at=998.0), held=3, over_s=5.0).state
    expected = replace(expected, released_s=498.0, over_s=5.0)
    assert build_one(config, released).services[0].hold == expected
    assert build_one(config, shop_state).services[0].hold is None


@pytest.mark.parametrize(
    ("health", "path"),
    [
        ("off", ""),
        ("{}", "/healthz"),
        ("{path: '/up?deep=1'}", "/up"),
        ("{type: tcp}", ""),
    ],
)
def test_the_path_of_health_checks_is_answered_during_a_hold(
    shop_state: ServiceState, health: str, path: str
) -> None:
    config = load_text(f"{TEXT}    health: {health}\n", "test", {}).config
    assert only(build_one(config, shop_state)).health_path == path


def test_pages_rules_prefixes_and_redirections_reach_the_workers(tmp_path: Path) -> None:
    (tmp_path / "errors").mkdir()
    for name in ("502", "50x", "4xx", "error"):
        (tmp_path / f"errors/{name}.html").write_text(f"<p>{name}</p>")
    rules = "headers: {response: {set: {X-A: b}, remove: [Server]}}, errors: {page: errors}"
    (tmp_path / "t.yaml").write_text(
        TEXT.replace("trusted_proxies", "redirect: {to: https, port: 8443}\n    trusted_proxies")
        .replace("path: /a}", "path: /a, strip_prefix: true}")
        .replace("headers: {expose_pool: true}", rules.replace(", errors", "\n    errors"))
    )
    loaded = load_file(str(tmp_path / "t.yaml"), {})
    state = ServiceState(name="shop", file=declared(loaded.config.services["shop"]))
    snapshot = build(
        loaded.config,
        loaded.config.services,
        {"shop": state},
        {},
        SlotBook(SlotTable()),
        files=loaded.files,
        revision=1,
        now=NOW,
    )
    shop = only(snapshot)
    assert {page.status: page.html for page in shop.pages} == {
        502: "<p>502</p>",
        50: "<p>50x</p>",
        4: "<p>4xx</p>",
        0: "<p>error</p>",
    }
    assert shop.response_headers == HeaderRules(set=(("X-A", "b"),), remove=("Server",))
    assert shop.request_headers == HeaderRules()
    assert shop.routes[0].strip_prefix
    assert snapshot.listeners[0].redirect == Redirect(port=8443, status=308)
