from __future__ import annotations

from dataclasses import replace

from proxy.control import drains, verbs
from proxy.control.decision import Author
from proxy.control.drain_view import MOST_SHOWN, drain_view, find, main_drain_view, subjects
from proxy.control.drains import Cut, DrainRules
from proxy.control.fleet import InFlight
from proxy.control.state import ServiceState

NINE_ONE = "127.0.0.1:9001"


class Three:
    """Three requests everywhere, one of them in each endpoint; one tunnel was cut."""

    def pool(self, service: str, pool: str) -> tuple[int, int, int]:
        assert (service, bool(pool)) == ("shop", True)
        return (3, 0, 0)

    def endpoint(self, service: str, pool: str, address: str) -> int:
        assert (service, bool(pool), bool(address)) == ("shop", True, True)
        return 1

    def cut_since(self, service: str, pool: str, since: float) -> Cut:
        assert (service, bool(pool), since > 0) == ("shop", True, True)
        return (0, 0, 1)


def switched(shop: ServiceState, ann: Author, rules: DrainRules) -> ServiceState:
    return drains.settle(shop, verbs.switch(shop, "green", ann).state, rules, now=1000.0, offset=0)


def item(kind: str = "tunnel", endpoint: str = NINE_ONE) -> InFlight:
    return InFlight(
        kind=kind, age_s=1.23456, pool="blue", endpoint=endpoint, route="GET /", request_id="r"
    )


def test_the_drain_of_a_pool_has_the_documented_shape(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    view = main_drain_view(switched(shop, ann, rules), rules, Three(), 1010.0)
    assert view == {
        "pool": "blue",
        "endpoint": None,
        "since": "1970-01-01T00:16:40.000Z",
        "deadline_s": 290.0,
        "requests_left_s": 20.0,
        "streams_left_s": 290.0,
        "remaining": {"request": 3, "stream": 0, "tunnel": 0},
        "cut": {"request": 0, "stream": 0, "tunnel": 1},
        "items": [],
        "done": False,
        "endpoints": [
            {"address": NINE_ONE, "in_flight": 1, "leaving": False},
            {"address": "127.0.0.1:9002", "in_flight": 1, "leaving": False},
        ],
    }


def test_times_left_never_fall_below_nothing(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    view = main_drain_view(switched(shop, ann, rules), rules, Three(), 1305.0)
    assert view is not None
    assert (view["deadline_s"], view["requests_left_s"], view["done"]) == (0.0, 0.0, False)


def test_a_drain_that_has_ended_stays_with_zeros(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    state = switched(shop, ann, rules)
    ended = replace(state.pool_drains["blue"], ended=1005.0, cut=(2, 0, 0))
    view = main_drain_view(replace(state, pool_drains={"blue": ended}), rules, Three(), 1010.0)
    assert view is not None
    assert view["remaining"] == {"request": 0, "stream": 0, "tunnel": 0}
    assert (view["cut"]["request"], view["done"], view["deadline_s"]) == (2, True, 0.0)


def test_bound_clients_are_said(shop: ServiceState, ann: Author, rules: DrainRules) -> None:
    bound = replace(rules, keeps_bound=True)
    view = main_drain_view(switched(shop, ann, bound), bound, Three(), 1100.0)
    assert view is not None
    assert view["bound_until_s"] == 200.0


def test_without_a_drain_there_is_none(shop: ServiceState, rules: DrainRules) -> None:
    assert main_drain_view(shop, rules, Three(), 1000.0) is None


def test_an_endpoints_classes_are_told_by_its_items(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    state = drains.drain(shop, "blue", NINE_ONE, rules, ann).state
    subject = find(state, "blue", NINE_ONE)
    assert subject is not None
    known = drain_view(state, subject, rules, Three(), now=1001.0, items=[item()])
    assert known["remaining"] == {"request": 0, "stream": 0, "tunnel": 1}
    assert known["items"][0]["age_s"] == 1.235
    unknown = drain_view(state, subject, rules, Three(), now=1001.0)
    assert unknown["remaining"] == {"request": 1, "stream": 0, "tunnel": 0}


class OneTunnel(Three):
    """The pool has a tunnel, and nothing else."""

    def pool(self, service: str, pool: str) -> tuple[int, int, int]:
        assert (service, bool(pool)) == ("shop", True)
        return (0, 0, 1)


def test_an_endpoints_stream_is_no_request_though_nobody_asked_the_workers(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    state = drains.drain(shop, "blue", NINE_ONE, rules, ann).state
    view = main_drain_view(state, rules, OneTunnel(), 1010.0)
    assert view is not None
    assert view["remaining"] == {"request": 0, "stream": 0, "tunnel": 1}


def test_only_so_many_items_are_shown(shop: ServiceState, ann: Author, rules: DrainRules) -> None:
    state = switched(shop, ann, rules)
    items = [item()] * (MOST_SHOWN + 5)
    view = drain_view(state, subjects(state)[0], rules, Three(), now=1001.0, items=items)
    assert len(view["items"]) == MOST_SHOWN


def test_a_running_drain_comes_before_an_ended_one(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    state = switched(shop, ann, rules)
    ended = {"blue": replace(state.pool_drains["blue"], ended=1005.0)}
    state = replace(state, pool_drains=ended)
    state = drains.drain(state, "blue", NINE_ONE, rules, replace(ann, at=900.0)).state
    assert [each.endpoint for each in subjects(state)] == [NINE_ONE, None]
