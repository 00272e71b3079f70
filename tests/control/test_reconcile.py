from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from proxy.control import verbs
from proxy.control.decision import Author
from proxy.control.filling import Filling, Member
from proxy.control.reconcile import begin, reconcile_file, remove
from proxy.control.state import Declared, ServiceState

ANN = Author(who="ann", reason="v42", at=1000.0)
SPLIT = {"blue": 9000, "green": 1000}
HALF = {"blue": 5000, "green": 5000}
WHOLE_BLUE = {"blue": 10_000, "green": 0}
WHOLE_GREEN = {"blue": 0, "green": 10_000}


def untouched(state: ServiceState) -> ServiceState:
    return state


def split(state: ServiceState) -> ServiceState:
    return verbs.set_weights(state, SPLIT, ANN).state


def switched(state: ServiceState) -> ServiceState:
    return verbs.switch(state, "green", ANN).state


@dataclass(frozen=True)
class Case:
    """The file before, what was done by hand, the file after; then what is in force and said."""

    says: str
    before: dict[str, object]
    hand: Callable[[ServiceState], ServiceState]
    after: dict[str, object]
    shares: dict[str, int]
    active: str
    records: list[str]


CASES = [
    Case("same file, nothing by hand", {}, untouched, {}, WHOLE_BLUE, "blue", []),
    Case("same file keeps weights", {}, split, {}, SPLIT, "blue", []),
    Case("same file keeps a switch", {}, switched, {}, WHOLE_GREEN, "green", []),
    Case(
        "another pool's endpoints keep the weights",
        {},
        split,
        {"green": ("127.0.0.1:9102",)},
        SPLIT,
        "blue",
        ["pool"],
    ),
    Case(
        "the file's new weights win",
        {},
        split,
        {"weights": HALF},
        HALF,
        "blue",
        ["weights"],
    ),
    Case(
        "the file's new weights win over a switch, which stays in charge",
        {},
        switched,
        {"weights": SPLIT},
        SPLIT,
        "green",
        ["weights"],
    ),
    Case(
        "weights written out that say the same change nothing",
        {},
        split,
        {"weights": {"blue": 10_000, "green": 0}},
        SPLIT,
        "blue",
        [],
    ),
    Case(
        "weights taken out of the file follow the active pool in force",
        {"weights": SPLIT},
        switched,
        {},
        WHOLE_GREEN,
        "green",
        ["weights"],
    ),
    Case(
        "another active pool wins over weights derived from the old one",
        {},
        split,
        {"active": "green"},
        WHOLE_GREEN,
        "green",
        ["active", "weights"],
    ),
    Case(
        "another active pool keeps weights by hand where the file's are the same",
        {"weights": HALF},
        split,
        {"weights": HALF, "active": "green"},
        SPLIT,
        "green",
        ["active"],
    ),
    Case(
        "the file follows a switch",
        {},
        switched,
        {"active": "green"},
        WHOLE_GREEN,
        "green",
        ["active", "weights"],
    ),
    Case(
        "a removed pool takes its weights along",
        {},
        split,
        {"green": None},
        {"blue": 10_000},
        "blue",
        ["weights", "pool"],
    ),
    Case(
        "a removed pool takes a switch along",
        {},
        switched,
        {"green": None},
        {"blue": 10_000},
        "blue",
        ["active", "weights", "pool"],
    ),
    Case(
        "an added pool keeps what was set",
        {"green": None},
        untouched,
        {},
        WHOLE_BLUE,
        "blue",
        ["pool"],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_file_against_api(case: Case, declared: Callable[..., Declared]) -> None:
    state = case.hand(ServiceState(name="shop", file=declared(**case.before)))
    change = reconcile_file(state, declared(**case.after))
    assert change.state.shares == case.shares
    assert change.state.in_charge == case.active
    assert [each.what for each in change.decisions] == case.records
    assert all(each.who == "file" and each.why for each in change.decisions)
    again = reconcile_file(change.state, declared(**case.after))
    assert (again.state, again.decisions) == (change.state, ())


def test_the_record_says_over_whom_the_file_won(declared: Callable[..., Declared]) -> None:
    state = split(ServiceState(name="shop", file=declared()))
    (record,) = reconcile_file(state, declared(weights=HALF)).decisions
    assert record.why == "the file changed; it wins over ann's 90/10 (v42)"
    assert record.before == {"blue": 90, "green": 10}
    assert record.after == {"blue": 50, "green": 50}


def test_a_pool_filled_by_hand_survives_until_its_own_lines_change(
    declared: Callable[..., Declared],
) -> None:
    state = ServiceState(name="shop", file=declared())
    filling = Filling(members=(Member(address="10.0.0.1:80"),), release="v43")
    state = verbs.set_pool(state, "green", filling, ANN).state
    kept = reconcile_file(state, declared(blue=("10.0.0.9:80",)))
    assert kept.state.filling("green") == filling
    won = reconcile_file(kept.state, declared(blue=("10.0.0.9:80",), green=("10.0.0.2:80",)))
    assert won.state.filling("green").addresses() == ("10.0.0.2:80",)
    assert "it wins over ann's 10.0.0.1:80, release v43 (v42)" in won.decisions[0].why


def test_what_was_set_before_a_time_goes_with_its_pool(
    declared: Callable[..., Declared],
) -> None:
    state = split(ServiceState(name="shop", file=declared()))
    calm = verbs.set_weights(state, {"blue": 10_000}, ANN, until=2000.0).state
    after = reconcile_file(calm, declared(green=None)).state
    assert after.weights is not None
    assert after.weights.under is None
    expired = verbs.expire(after, 2000.0)
    assert expired is not None
    assert expired.state.shares == {"blue": 10_000}


def test_a_change_of_the_active_pool_by_the_file_can_be_rolled_back(
    declared: Callable[..., Declared],
) -> None:
    state = ServiceState(name="shop", file=declared())
    after = reconcile_file(state, declared(active="green")).state
    assert after.previous_active == "blue"
    assert verbs.rollback(after, ANN).state.shares == WHOLE_BLUE


def test_a_removed_service_forgets_what_was_set(declared: Callable[..., Declared]) -> None:
    state = split(ServiceState(name="shop", file=declared()))
    change = remove(state)
    assert change.state.is_removed
    assert change.state.weights is None
    assert [each.what for each in change.decisions] == ["service"]


def test_a_service_that_comes_back_begins_from_the_file(
    declared: Callable[..., Declared],
) -> None:
    state = switched(ServiceState(name="shop", file=declared(), epochs={"green": 2}))
    gone = replace(remove(state).state, offset=77)
    back = begin("shop", declared(), after=gone).state
    assert back.shares == WHOLE_BLUE
    assert back.epochs == {"green": 2}
