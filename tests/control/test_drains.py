from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.control import drains, verbs
from proxy.control.decision import Author
from proxy.control.drains import GRACE_S, Cut, DrainRules
from proxy.control.filling import Filling, Member
from proxy.control.refusal import NotFound, Refused
from proxy.control.state import Change, Draining, ServiceState
from proxy.model import CLOSE_GRACE_S

SPLIT = {"blue": 9000, "green": 1000}
NINE_ONE = "127.0.0.1:9001"


class Counts:
    """What is in flight, as the test says."""

    def __init__(self) -> None:
        self.pools: dict[str, tuple[int, int, int]] = {}
        self.endpoints: dict[str, int] = {}
        self.cut: Cut = (0, 0, 0)

    def pool(self, service: str, pool: str) -> tuple[int, int, int]:
        assert service == "shop"
        return self.pools.get(pool, (0, 0, 0))

    def endpoint(self, service: str, pool: str, address: str) -> int:
        assert (service, bool(pool)) == ("shop", True)
        return self.endpoints.get(address, 0)

    def cut_since(self, service: str, pool: str, since: float) -> Cut:
        assert (service, bool(pool), since > 0) == ("shop", True, True)
        return self.cut


@pytest.fixture
def counts() -> Counts:
    return Counts()


def settled(
    before: ServiceState, change: Change, rules: DrainRules, *, now: float = 1000.0, offset: int = 5
) -> ServiceState:
    return drains.settle(before, change.state, rules, now=now, offset=offset)


# ---- what follows from a change ----


def test_a_pool_that_falls_to_zero_drains(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    after = settled(shop, verbs.switch(shop, "green", ann), rules)
    assert after.pool_drains == {
        "blue": Draining(since=1000.0, requests_by=1030.0, streams_by=1300.0, spread_s=10.0)
    }


def test_a_pool_that_gets_traffic_again_loses_its_drain(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    away = settled(shop, verbs.switch(shop, "green", ann), rules)
    back = settled(away, verbs.set_weights(away, SPLIT, ann), rules, now=1001.0)
    assert back.pool_drains == {}


def test_a_pool_that_stays_at_zero_keeps_its_deadlines(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    away = settled(shop, verbs.switch(shop, "green", ann), rules)
    filling = Filling(members=(Member(address="10.0.0.1:80"),))
    later = settled(away, verbs.set_pool(away, "green", filling, ann), rules, now=1010.0)
    assert later.pool_drains == away.pool_drains


def test_the_offset_is_drawn_anew_when_a_split_begins(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    began = settled(shop, verbs.set_weights(shop, SPLIT, ann), rules, offset=1234)
    assert began.offset == 1234
    moved = verbs.set_weights(began, {"blue": 5000, "green": 5000}, ann)
    went_on = settled(began, moved, rules, offset=77)
    assert went_on.offset == 1234
    assert settled(went_on, verbs.switch(went_on, "green", ann), rules, offset=77).offset == 1234


def test_an_endpoint_that_is_no_longer_listed_stays_draining(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    filling = Filling(members=(Member(address=NINE_ONE),))
    after = settled(shop, verbs.set_pool(shop, "blue", filling, ann), rules)
    assert set(after.leaving["blue"]) == {"127.0.0.1:9002"}
    assert after.leaving["blue"]["127.0.0.1:9002"].streams_by == 1300.0
    back = settled(
        after, verbs.set_pool(after, "blue", shop.file.fillings["blue"], ann), rules, now=1005.0
    )
    assert back.leaving == {}


def test_being_removed_prolongs_no_deadline(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    away = settled(shop, verbs.switch(shop, "green", ann), rules)
    emptied = settled(away, verbs.set_pool(away, "blue", Filling(), ann), rules, now=1025.0)
    assert {each.requests_by for each in emptied.leaving["blue"].values()} == {1030.0}


def test_an_endpoint_that_leaves_is_no_longer_drained_by_hand(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    drained = settled(shop, drains.drain(shop, "blue", NINE_ONE, rules, ann), rules)
    filling = Filling(members=(Member(address="127.0.0.1:9002"),))
    after = settled(drained, verbs.set_pool(drained, "blue", filling, ann), rules, now=1010.0)
    assert after.endpoint_drains == {}
    assert after.leaving["blue"][NINE_ONE].requests_by == 1030.0


# ---- by command ----


def test_without_a_name_the_idle_pool_is_meant(shop: ServiceState, ann: Author) -> None:
    assert drains.named(shop, None, None) == "green"
    with pytest.raises(Refused, match="all pools of shop carry traffic"):
        drains.named(verbs.set_weights(shop, SPLIT, ann).state, None, None)


@pytest.mark.parametrize(
    ("pool", "endpoint", "says"),
    [("red", None, "shop has no pool red"), ("blue", "x:1", "blue has no endpoint x:1")],
)
def test_what_does_not_exist_is_not_found(
    shop: ServiceState, pool: str, endpoint: str | None, says: str
) -> None:
    with pytest.raises(NotFound, match=says):
        drains.named(shop, pool, endpoint)


def test_the_pool_that_carries_everything_is_not_drained(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    with pytest.raises(Refused, match="blue carries all of shop; switch first"):
        drains.drain(shop, "blue", None, rules, ann)


def test_a_pool_with_weight_drains_while_the_other_can_carry(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    split = verbs.set_weights(shop, SPLIT, ann).state
    change = drains.drain(split, "blue", None, rules, ann)
    assert change.state.pool_drains["blue"].by_operator
    assert change.state.shares == split.shares
    with pytest.raises(Refused, match="green carries all of shop"):
        drains.drain(change.state, "green", None, rules, ann)
    undone = drains.undo(change.state, "blue", None, ann)
    assert undone.state == split
    assert [each.what for each in undone.decisions] == ["drain"]


def test_a_drain_that_runs_is_joined(shop: ServiceState, ann: Author, rules: DrainRules) -> None:
    once = drains.drain(shop, "green", None, rules, ann).state
    again = drains.drain(once, "green", None, rules, replace(ann, at=1020.0))
    assert (again.state, again.decisions) == (once, ())


def test_the_last_endpoint_of_a_pool_with_traffic_is_not_drained(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    state = drains.drain(shop, "blue", NINE_ONE, rules, ann).state
    with pytest.raises(Refused, match=r"127\.0\.0\.1:9002 is the last endpoint of blue"):
        drains.drain(state, "blue", "127.0.0.1:9002", rules, ann)


def test_there_is_nothing_to_undo_without_a_drain(shop: ServiceState, ann: Author) -> None:
    with pytest.raises(Refused, match="blue is not draining"):
        drains.undo(shop, "blue", None, ann)
    with pytest.raises(Refused, match="is not draining by command"):
        drains.undo(shop, "blue", NINE_ONE, ann)


# ---- the end ----


def away(shop: ServiceState, ann: Author, rules: DrainRules) -> ServiceState:
    return settled(shop, verbs.switch(shop, "green", ann), rules)


def test_a_drain_ends_when_nothing_is_in_flight(
    shop: ServiceState, ann: Author, rules: DrainRules, counts: Counts
) -> None:
    state = away(shop, ann, rules)
    counts.pools["blue"] = (1, 0, 0)
    assert drains.finish(state, rules, counts, 1002.0) is None
    counts.pools["blue"] = (0, 0, 0)
    change = drains.finish(state, rules, counts, 1002.5)
    assert change is not None
    assert change.state.pool_drains["blue"].ended == 1002.5
    (record,) = change.decisions
    assert (record.what, record.why) == ("drained", "empty")
    assert record.numbers == {"took_s": 2.5, "cut": {"request": 0, "stream": 0, "tunnel": 0}}
    assert drains.finish(change.state, rules, counts, 1003.0) is None


def test_a_drain_ends_when_the_workers_have_cut_the_rest(
    shop: ServiceState, ann: Author, rules: DrainRules, counts: Counts
) -> None:
    state = away(shop, ann, rules)
    counts.pools["blue"] = (0, 0, 2)
    counts.cut = (1, 0, 2)
    cut_by = 1310.0 + CLOSE_GRACE_S
    assert drains.finish(state, rules, counts, cut_by) is None
    change = drains.finish(state, rules, counts, cut_by + GRACE_S)
    assert change is not None
    assert change.decisions[0].why == "3 cut at the deadline"
    assert change.state.pool_drains["blue"].cut == (1, 0, 2)


def test_a_drain_of_bound_clients_waits_for_the_deadline_of_streams(
    shop: ServiceState, ann: Author, rules: DrainRules, counts: Counts
) -> None:
    bound = replace(rules, keeps_bound=True)
    state = away(shop, ann, bound)
    assert drains.finish(state, bound, counts, 1299.0) is None
    assert drains.finish(state, bound, counts, 1300.0) is not None


def test_an_endpoint_vanishes_when_it_is_empty(
    shop: ServiceState, ann: Author, rules: DrainRules, counts: Counts
) -> None:
    filling = Filling(members=(Member(address=NINE_ONE),))
    state = settled(shop, verbs.set_pool(shop, "blue", filling, ann), rules)
    counts.endpoints["127.0.0.1:9002"] = 1
    assert drains.finish(state, rules, counts, 1001.0) is None
    assert drains.running_drains(state)
    counts.endpoints.clear()
    change = drains.finish(state, rules, counts, 1001.0)
    assert change is not None
    assert change.state.leaving == {}
    assert change.decisions[0].after == {"pool": "blue", "endpoint": "127.0.0.1:9002"}
    assert not drains.running_drains(change.state)


def test_an_endpoint_drained_by_hand_stays_so_when_it_is_empty(
    shop: ServiceState, ann: Author, rules: DrainRules, counts: Counts
) -> None:
    state = settled(shop, drains.drain(shop, "blue", NINE_ONE, rules, ann), rules)
    change = drains.finish(state, rules, counts, 1001.0)
    assert change is not None
    assert change.state.usable("blue") == ["127.0.0.1:9002"]
    assert drains.finish(change.state, rules, counts, 1002.0) is None
