from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from proxy.control.filling import Filling, Member, filling_in_words
from proxy.control.state import Declared, Draining, Override, ServiceState
from proxy.model import CLOSE_GRACE_S


def test_without_weights_everything_goes_to_the_active_pool(shop: ServiceState) -> None:
    assert shop.shares == {"blue": 10_000, "green": 0}
    assert shop.source == "file"
    assert shop.candidate is None


def test_without_weights_they_follow_the_active_pool_in_force(shop: ServiceState) -> None:
    state = replace(shop, active=Override(value="green", who="ann", at=1.0))
    assert state.shares == {"blue": 0, "green": 10_000}
    assert state.source == "api"


def test_weights_of_the_file_stand_beside_another_active_pool(
    declared: Callable[..., Declared],
) -> None:
    file = declared(weights={"blue": 9000, "green": 1000})
    state = ServiceState(name="shop", file=file, active=Override(value="green", who="ann", at=1.0))
    assert state.shares == {"blue": 9000, "green": 1000}
    assert (state.in_charge, state.candidate, state.source) == ("green", "blue", "file")


def test_weights_set_at_run_time_come_first(shop: ServiceState) -> None:
    state = replace(shop, weights=Override(value={"blue": 2500, "green": 7500}, who="a", at=1.0))
    assert state.shares == {"blue": 2500, "green": 7500}
    assert state.candidate == "green"


def test_a_pool_may_be_filled_otherwise_than_the_file_says(shop: ServiceState) -> None:
    other = Filling(members=(Member(address="10.0.0.1:80"),), release="v43")
    state = replace(shop, fillings={"green": Override(value=other, who="ann", at=1.0)})
    assert state.filling("green").addresses() == ("10.0.0.1:80",)
    assert ("green", "10.0.0.1:80") in set(state.listed())
    assert ("green", "127.0.0.1:9101") not in set(state.listed())


def test_a_removed_service_lists_nothing(shop: ServiceState) -> None:
    assert list(replace(shop, is_removed=True).listed()) == []


def test_an_endpoint_drained_by_hand_is_not_usable(shop: ServiceState) -> None:
    drain = Draining(since=1.0, requests_by=2.0, streams_by=3.0, by_operator=True)
    state = replace(shop, endpoint_drains={"blue": {"127.0.0.1:9001": drain}})
    assert state.usable("blue") == ["127.0.0.1:9002"]


def test_endpoints_are_written_as_in_the_file() -> None:
    filling = Filling(members=(Member(address="a:1"), Member(address="b:2", weight=3)))
    assert filling_in_words(filling) == {
        "endpoints": ["a:1", {"address": "b:2", "weight": 3}],
        "release": None,
    }


def test_a_drain_is_over_when_its_last_class_is() -> None:
    drain = Draining(since=0.0, requests_by=30.0, streams_by=300.0, spread_s=10.0)
    assert drain.over_at == 310.0 + CLOSE_GRACE_S, "what is told to close has time to do so"
