"""Balance: ratios among those present, fewer requests first, and a hash that holds still."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import Balance
from proxy.policy.balance import Balancer, ByHash, LeastRequests, RoundRobin, balancer
from proxy.policy.sticky import hash_of

KINDS: list[Balance] = ["least_requests", "round_robin", "hash"]


@dataclass(eq=False, slots=True)
class Endpoint:
    name: str
    weight: int = 1
    busy: int = 0
    current: float = 0.0

    @property
    def key(self) -> int:
        return hash_of(self.name.encode())


def endpoints(**weights: int) -> list[Endpoint]:
    return [Endpoint(name, weight) for name, weight in weights.items()]


def shares(balance: Balancer, members: list[Endpoint], turns: int = 6000) -> dict[str, float]:
    """Share of each member when no request takes any time."""
    took = Counter(
        balance.pick(members, hash_of(b"client %d" % turn)).name for turn in range(turns)
    )
    return {member.name: took[member.name] / turns for member in members}


def due(members: list[Endpoint]) -> dict[str, float]:
    total = sum(member.weight for member in members)
    return {member.name: member.weight / total for member in members}


@pytest.fixture(params=KINDS)
def balance(request: pytest.FixtureRequest) -> Balancer:
    kind: Balance = request.param
    return balancer(kind, random.Random(7).random)


def test_a_single_member_takes_everything(balance: Balancer) -> None:
    members = endpoints(a=3)
    assert shares(balance, members, turns=20) == {"a": 1.0}


@pytest.mark.parametrize(
    "weights",
    [{"a": 1, "b": 1}, {"a": 1, "b": 3}, {"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 2, "c": 5}],
)
def test_an_idle_pool_is_used_in_the_ratio_of_its_weights(
    balance: Balancer, weights: dict[str, int]
) -> None:
    members = endpoints(**weights)
    assert shares(balance, members) == pytest.approx(due(members), abs=0.025)


@pytest.mark.parametrize("missing", ["a", "b", "c", "d"])
def test_the_others_keep_their_ratios_when_one_is_missing(balance: Balancer, missing: str) -> None:
    members = endpoints(a=1, b=2, c=3, d=6)
    shares(balance, members, turns=101)
    present = [member for member in members if member.name != missing]
    assert shares(balance, present) == pytest.approx(due(present), abs=0.025)
    assert shares(balance, members) == pytest.approx(due(members), abs=0.025)


def test_each_kind_has_its_balancer() -> None:
    kinds = {kind: type(balancer(kind, random.random)) for kind in KINDS}
    assert kinds == {"least_requests": LeastRequests, "round_robin": RoundRobin, "hash": ByHash}


# ---- least requests ----


def test_of_two_the_one_with_fewer_requests_is_taken() -> None:
    a, b = members = endpoints(a=1, b=1)
    a.busy, b.busy = 3, 2
    assert shares(LeastRequests(random.Random(1).random), members, turns=50)["b"] == 1.0


def test_requests_are_counted_against_the_weight() -> None:
    a, b = members = endpoints(a=1, b=4)
    a.busy, b.busy = 1, 3
    assert shares(LeastRequests(random.Random(1).random), members, turns=50)["b"] == 1.0
    a.busy, b.busy = 1, 5
    assert shares(LeastRequests(random.Random(1).random), members, turns=50)["a"] == 1.0


@pytest.mark.parametrize("weights", [{"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 2, "c": 3}])
def test_the_busiest_of_many_is_never_taken(weights: dict[str, int]) -> None:
    members = endpoints(**weights)
    members[0].busy = 100
    assert shares(LeastRequests(random.Random(1).random), members, turns=300)["a"] == 0.0


def test_long_requests_end_up_in_the_ratio_of_the_weights() -> None:
    members = endpoints(a=1, b=2, c=3)
    balance = LeastRequests(random.Random(3).random)
    for _ in range(600):
        balance.pick(members, 0).busy += 1
    assert [member.busy for member in members] == pytest.approx([100, 200, 300], abs=5)


@given(
    weights=st.lists(st.integers(1, 100), min_size=1, max_size=6),
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2),
)
def test_every_draw_gives_a_member(weights: list[int], draws: list[float]) -> None:
    members = [Endpoint(str(index), weight) for index, weight in enumerate(weights)]
    assert LeastRequests(iter(draws).__next__).pick(members, 0) in members


# ---- round robin ----


def test_round_robin_mixes_the_turns_smoothly() -> None:
    members = endpoints(a=5, b=1, c=1)
    balance = RoundRobin()
    assert "".join(balance.pick(members, 0).name for _ in range(14)) == "aabacaa" * 2


@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_one_round_is_exact_and_comes_back_to_where_it_began(weights: list[int]) -> None:
    members = [Endpoint(str(index), weight) for index, weight in enumerate(weights)]
    balance = RoundRobin()
    took = Counter(balance.pick(members, 0).name for _ in range(sum(weights)))
    assert [took[member.name] for member in members] == weights
    assert [member.current for member in members] == [0] * len(weights)


# ---- hash ----


def clients(count: int) -> list[int]:
    return [hash_of(b"client %d" % number) for number in range(count)]


def test_a_client_stays_with_its_member_whatever_the_order_and_the_load() -> None:
    members = endpoints(a=1, b=2, c=3)
    balance = ByHash()
    before = [balance.pick(members, client).name for client in clients(500)]
    for busy, member in enumerate(members):
        member.busy = busy
    assert [balance.pick(members[::-1], client).name for client in clients(500)] == before


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_only_the_clients_of_a_member_that_leaves_move(gone: int) -> None:
    members = endpoints(a=1, b=2, c=3)
    present = [member for index, member in enumerate(members) if index != gone]
    balance = ByHash()
    for client in clients(2000):
        before, after = balance.pick(members, client), balance.pick(present, client)
        assert after is before or before is members[gone]


def test_a_raised_weight_moves_clients_only_toward_it() -> None:
    members = endpoints(a=1, b=2, c=3)
    balance = ByHash()
    before = [balance.pick(members, client) for client in clients(2000)]
    members[0].weight = 2
    after = [balance.pick(members, client) for client in clients(2000)]
    moved = {new.name for old, new in zip(before, after, strict=True) if old is not new}
    assert moved == {"a"}


@given(key=st.integers(0, 2**64 - 1))
def test_every_key_gives_a_member(key: int) -> None:
    members = endpoints(a=1, b=2)
    assert ByHash().pick(members, key) in members
    # a client whose hash is a member's own: the mixed bits are all zero
    assert ByHash().pick(members, members[0].key) in members
