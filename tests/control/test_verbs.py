from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from proxy.control import verbs
from proxy.control.decision import Author
from proxy.control.filling import Filling, Member
from proxy.control.refusal import Invalid, NotFound, Refused
from proxy.control.state import Declared, Override, ServiceState

SPLIT = {"blue": 9000, "green": 1000}
TO_GREEN = {"blue": 0, "green": 10_000}


def test_weights_by_hand_leave_the_active_pool_in_charge(shop: ServiceState, ann: Author) -> None:
    change = verbs.set_weights(shop, SPLIT, ann)
    assert change.state.shares == SPLIT
    assert change.state.in_charge == "blue"
    (record,) = change.decisions
    assert (record.what, record.who) == ("weights", "ann")
    assert (record.before, record.after) == ({"blue": 100, "green": 0}, {"blue": 90, "green": 10})
    assert record.why == "by hand: v42 looks good"


def test_everything_to_the_other_pool_is_a_switch_by_hand(shop: ServiceState, ann: Author) -> None:
    change = verbs.set_weights(shop, TO_GREEN, ann)
    assert change.state.in_charge == "green"
    assert change.state.previous_active == "blue"
    assert change.decisions[0].numbers == {"active": "green"}
    assert "green is the active pool now" in change.decisions[0].why


def test_a_pool_that_is_not_named_gets_nothing(shop: ServiceState, ann: Author) -> None:
    assert verbs.set_weights(shop, {"green": 10_000}, ann).state.shares == TO_GREEN


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ({"blue": 9000}, "blue 90 % do not sum to 100"),
        ({"blue": 10_000, "green": 1}, "do not sum to 100"),
        ({"blue": 11_000, "green": -1000}, "do not sum to 100"),
        ({"red": 10_000}, r"shop has no pool red \(it has blue, green\)"),
        ({}, "do not sum"),
    ],
)
def test_weights_that_make_no_sense_are_invalid(
    shop: ServiceState, ann: Author, shares: dict[str, int], says: str
) -> None:
    with pytest.raises(Invalid, match=says):
        verbs.set_weights(shop, shares, ann)


def test_a_pool_without_endpoints_gets_no_weight(
    declared: Callable[..., Declared], ann: Author
) -> None:
    state = ServiceState(name="shop", file=declared(green=()))
    with pytest.raises(Refused, match="green has no endpoints"):
        verbs.set_weights(state, SPLIT, ann)


def test_a_value_that_repeats_the_file_is_no_override(shop: ServiceState, ann: Author) -> None:
    away = verbs.set_weights(shop, SPLIT, ann).state
    assert verbs.set_weights(away, {"blue": 10_000}, ann).state == shop


# ---- for a time ----


def test_weights_for_a_time_give_way_to_the_file_again(shop: ServiceState, ann: Author) -> None:
    state = verbs.set_weights(shop, SPLIT, ann, until=1060.0).state
    assert verbs.next_expiry(state) == 1060.0
    assert verbs.expire(state, 1059.9) is None
    change = verbs.expire(state, 1060.0)
    assert change is not None
    assert change.state == shop
    assert (change.decisions[0].what, change.decisions[0].who) == ("ttl", "ttl")
    assert "the time set by ann is over; the file's value is in force" in change.decisions[0].why
    assert change.decisions[0].after == {"blue": 100, "green": 0}


def test_weights_for_a_time_give_way_to_what_was_set_before(
    shop: ServiceState, ann: Author
) -> None:
    before = verbs.set_weights(shop, {"blue": 5000, "green": 5000}, ann).state
    bob = Author(who="bob", at=1001.0)
    state = verbs.set_weights(before, SPLIT, bob, until=1060.0).state
    change = verbs.expire(state, 2000.0)
    assert change is not None
    assert change.state.shares == {"blue": 5000, "green": 5000}
    assert "what ann set before is in force again" in change.decisions[0].why


def test_a_switch_for_a_time_comes_back_with_its_active_pool(
    shop: ServiceState, ann: Author
) -> None:
    state = verbs.set_weights(shop, TO_GREEN, ann, until=1060.0).state
    change = verbs.expire(state, 1060.0)
    assert change is not None
    assert change.state == shop
    assert change.decisions[0].numbers == {"active": "blue"}


def test_a_layer_that_can_never_be_in_force_again_is_not_kept(
    shop: ServiceState, ann: Author
) -> None:
    state = shop
    for number in range(5):
        state = verbs.set_weights(state, SPLIT, ann, until=1060.0 + number).state
    assert state.weights is not None
    assert state.weights.under is None


def test_a_short_time_over_a_long_one_shows_the_long_one_again(
    shop: ServiceState, ann: Author
) -> None:
    state = verbs.set_weights(shop, {"blue": 5000, "green": 5000}, ann, until=5000.0).state
    state = verbs.set_weights(state, SPLIT, ann, until=2000.0).state
    change = verbs.expire(state, 2000.0)
    assert change is not None
    assert change.state.shares == {"blue": 5000, "green": 5000}
    assert verbs.next_expiry(change.state) == 5000.0


def test_a_switch_makes_a_pool_in_charge_for_good(shop: ServiceState, ann: Author) -> None:
    state = verbs.set_weights(shop, TO_GREEN, ann, until=1060.0).state
    state = verbs.set_weights(state, SPLIT, ann).state
    state = verbs.switch(state, "green", ann).state
    assert verbs.expire(state, 9999.0) is None
    assert state.previous_active == "blue"


# ---- switch ----


def test_a_switch_moves_everything_and_remembers(shop: ServiceState, ann: Author) -> None:
    change = verbs.switch(shop, "green", ann)
    assert change.state.shares == TO_GREEN
    assert (change.state.in_charge, change.state.previous_active) == ("green", "blue")
    assert change.decisions[0].what == "switch"


def test_a_switch_to_where_everything_is_is_refused(shop: ServiceState) -> None:
    with pytest.raises(Refused, match="blue is already active and carries all of shop"):
        verbs.check_switch(shop, "blue")


def test_a_switch_to_the_active_pool_ends_a_split(shop: ServiceState, ann: Author) -> None:
    state = verbs.set_weights(shop, SPLIT, ann).state
    verbs.check_switch(state, "blue")
    assert verbs.switch(state, "blue", ann).state == shop


def test_a_switch_needs_a_pool_of_the_service(shop: ServiceState) -> None:
    with pytest.raises(Invalid, match="no pool red"):
        verbs.check_switch(shop, "red")


def test_a_switch_needs_an_endpoint_even_by_force(
    declared: Callable[..., Declared], ann: Author
) -> None:
    state = ServiceState(name="shop", file=declared(green=()))
    with pytest.raises(Refused, match="green is not ready: it has no endpoints"):
        verbs.switch(state, "green", ann, force=True)


def test_readiness_is_refused_with_each_reason(shop: ServiceState) -> None:
    problems: dict[str, str | None] = {"127.0.0.1:9101": "connection refused"}
    with pytest.raises(Refused) as refused:
        verbs.check_ready(shop, "green", problems, beside="blue")
    assert refused.value.detail == (
        "green is not ready: 127.0.0.1:9101: connection refused (--force overrides)"
    )


def test_where_it_is_known_half_of_what_is_available_is_enough(shop: ServiceState) -> None:
    problems = {"127.0.0.1:9101": None, "127.0.0.1:9102": "503 in 1 ms"}
    verbs.check_ready(shop, "green", problems, beside="blue", available=2)
    verbs.check_ready(shop, "green", problems, beside="blue", available=0)
    with pytest.raises(Refused, match=r"fewer than half of the 3 of blue; .*503 in 1 ms"):
        verbs.check_ready(shop, "green", problems, beside="blue", available=3)


def test_half_as_many_as_the_active_pool_has_are_enough(shop: ServiceState) -> None:
    verbs.check_ready(shop, "green", {"127.0.0.1:9101": None}, beside="blue")
    assert verbs.enough_ready(shop, "blue") == 1


def test_fewer_than_half_are_refused(declared: Callable[..., Declared]) -> None:
    state = ServiceState(name="shop", file=declared(blue=("a:1", "b:1", "c:1")))
    assert verbs.enough_ready(state, "blue") == 2
    with pytest.raises(Refused, match="1 of its 1 endpoints can take traffic, fewer than half"):
        verbs.check_ready(state, "green", {"127.0.0.1:9101": None}, beside="blue")


# ---- rollback ----


def test_a_rollback_goes_back_to_the_pool_before(shop: ServiceState, ann: Author) -> None:
    state = verbs.switch(shop, "green", ann).state
    change = verbs.rollback(state, ann)
    assert change.state.shares == shop.shares
    assert change.state.in_charge == "blue"
    assert change.state.epochs == {"green": 1}
    assert change.decisions[0].what == "rollback"


def test_a_rollback_of_a_split_goes_to_the_active_pool(shop: ServiceState, ann: Author) -> None:
    state = verbs.set_weights(shop, SPLIT, ann).state
    after = verbs.rollback(state, ann).state
    assert after.shares == shop.shares
    assert after.epochs == {"green": 1}


def test_a_second_rollback_has_nothing_to_go_back_to(shop: ServiceState, ann: Author) -> None:
    state = verbs.rollback(verbs.switch(shop, "green", ann).state, ann).state
    with pytest.raises(Refused, match="shop has nothing to go back to: no pool was active before"):
        verbs.rollback(state, ann)


def test_each_rollback_raises_the_epoch(shop: ServiceState, ann: Author) -> None:
    state = shop
    for _ in range(3):
        state = verbs.rollback(verbs.switch(state, "green", ann).state, ann).state
    assert state.epochs == {"green": 3}


def test_a_rollback_to_an_empty_pool_is_refused_even_by_force(
    shop: ServiceState, ann: Author
) -> None:
    state = verbs.switch(shop, "green", ann).state
    state = verbs.set_pool(state, "blue", Filling(), ann).state
    with pytest.raises(Refused, match="blue cannot take over: it has no endpoints"):
        verbs.rollback(state, ann, force=True)


# ---- pools ----


def test_a_pool_is_filled_with_other_endpoints(shop: ServiceState, ann: Author) -> None:
    filling = Filling(members=(Member(address="10.0.0.1:80", weight=2),), release="v43")
    change = verbs.set_pool(shop, "green", filling, ann)
    assert change.state.filling("green") == filling
    assert change.decisions[0].before == {
        "green": {"endpoints": ["127.0.0.1:9101"], "release": None}
    }
    back = verbs.set_pool(change.state, "green", shop.file.fillings["green"], ann)
    assert back.state == shop


def test_a_pool_that_does_not_exist_is_not_found(shop: ServiceState, ann: Author) -> None:
    with pytest.raises(NotFound, match="shop has no pool red"):
        verbs.set_pool(shop, "red", Filling(), ann)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ((Member(address="a:1"), Member(address="a:1")), r"endpoints\[1\]: a:1 is listed twice"),
        ((Member(address="a:1", weight=0),), r"endpoints\[0\]: weight 0"),
    ],
)
def test_a_filling_that_makes_no_sense_is_invalid(
    shop: ServiceState, ann: Author, members: tuple[Member, ...], says: str
) -> None:
    with pytest.raises(Invalid, match=says):
        verbs.set_pool(shop, "green", Filling(members=members), ann)


def test_a_pool_with_traffic_is_not_emptied(shop: ServiceState, ann: Author) -> None:
    with pytest.raises(Refused, match="blue carries 100 % of shop"):
        verbs.set_pool(shop, "blue", Filling(), ann)
    assert verbs.set_pool(shop, "green", Filling(), ann).state.usable("green") == []


def test_a_pool_that_will_have_traffic_again_is_not_emptied(
    shop: ServiceState, ann: Author
) -> None:
    state = verbs.set_weights(shop, TO_GREEN, ann, until=1060.0).state
    with pytest.raises(Refused, match="blue gets traffic again"):
        verbs.set_pool(state, "blue", Filling(), ann)


def test_what_was_set_for_good_has_no_expiry(shop: ServiceState, ann: Author) -> None:
    state = verbs.set_weights(shop, SPLIT, ann).state
    assert verbs.next_expiry(state) is None
    assert verbs.expire(state, 1e12) is None


def test_an_override_for_a_time_that_repeats_the_file_stays(
    shop: ServiceState, ann: Author
) -> None:
    split = verbs.set_weights(shop, SPLIT, ann).state
    calm = verbs.set_weights(split, {"blue": 10_000}, ann, until=1060.0).state
    assert isinstance(calm.weights, Override)
    after = verbs.expire(calm, 1060.0)
    assert after is not None
    assert after.state.shares == SPLIT


def test_a_forced_switch_says_so(shop: ServiceState, ann: Author) -> None:
    quiet = replace(ann, reason="")
    change = verbs.switch(shop, "green", quiet, force=True)
    assert change.decisions[0].why == "forced"
    assert change.decisions[0].numbers["force"] is True
