"""A service through any order of operators, files and times; what must hold after each of them."""

from __future__ import annotations

import json
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.control import codec, drains, hold, verbs
from proxy.control.decision import Author
from proxy.control.drains import GRACE_S, Cut, DrainRules
from proxy.control.filling import Filling, Member
from proxy.control.reconcile import begin, reconcile_file, remove
from proxy.control.refusal import Refusal
from proxy.control.state import Change, Declared, ServiceState
from proxy.model import CLOSE_GRACE_S, WHOLE

ADDRESSES = ("a:1", "b:1", "c:1", "d:1")
RULES = DrainRules(requests_s=30.0, streams_s=300.0, spread_s=10.0)

fillings = st.lists(st.sampled_from(ADDRESSES), unique=True, max_size=3).map(
    lambda addresses: Filling(members=tuple(Member(address=each) for each in addresses))
)
full = fillings.filter(lambda filling: bool(filling.members))
shares = st.integers(0, WHOLE).map(lambda green: {"blue": WHOLE - green, "green": green})
ends = st.sampled_from([0, WHOLE]).map(lambda green: {"blue": WHOLE - green, "green": green})
pools = st.sampled_from(["blue", "green"])
times = st.one_of(st.none(), st.floats(1.0, 500.0))


@st.composite
def files(draw: st.DrawFn) -> Declared:
    """A file that the configuration's checks would let pass."""
    names = draw(st.sampled_from([("blue",), ("green",), ("blue", "green")]))
    active = draw(st.sampled_from(names))
    given = draw(st.one_of(st.none(), shares)) if len(names) == 2 else None
    return Declared(
        active=active,
        shares=given or {active: WHOLE},
        has_weights=given is not None,
        fillings={name: draw(full) for name in names},
    )


class Busy:
    """What is in flight, drawn anew whenever somebody looks."""

    def __init__(self, count: int) -> None:
        self.count = count

    def pool(self, service: str, pool: str) -> tuple[int, int, int]:
        assert service
        assert pool
        return (self.count, 0, 0)

    def endpoint(self, service: str, pool: str, address: str) -> int:
        assert service
        assert pool
        return self.count if address < "c" else 0

    def cut_since(self, service: str, pool: str, since: float) -> Cut:
        assert service
        assert pool
        assert since
        return (self.count, 0, 0)


class ServiceLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.offset = 0
        file = Declared(
            active="blue",
            shares={"blue": WHOLE},
            fillings={
                "blue": Filling(members=(Member(address="a:1"), Member(address="b:1"))),
                "green": Filling(members=(Member(address="c:1"),)),
            },
        )
        self.state = begin("shop", file).state

    def author(self) -> Author:
        return Author(who="ann", at=self.now)

    def change(self, verb: Callable[[ServiceState], Change | None]) -> None:
        """Do it, if it is not refused; a refusal moves nothing by construction."""
        before = self.state
        try:
            change = verb(before)
        except Refusal:
            return
        if change is None:
            return
        self.offset = (self.offset + 17) % WHOLE
        self.state = drains.settle(before, change.state, RULES, now=self.now, offset=self.offset)
        was_split = WHOLE not in before.shares.values()
        if was_split and not before.is_removed:
            assert self.state.offset == before.offset
        for pool, share in self.state.shares.items():
            if before.shares.get(pool, 0) and not share and not self.state.is_removed:
                assert self.state.pool_drains[pool].is_running

    @rule(wanted=st.one_of(shares, ends), ttl=times)
    def set_weights(self, wanted: dict[str, int], ttl: float | None) -> None:
        until = None if ttl is None else self.now + ttl
        self.change(lambda state: verbs.set_weights(state, wanted, self.author(), until=until))

    @rule(to=pools, force=st.booleans())
    def switch(self, to: str, *, force: bool) -> None:
        self.change(lambda state: verbs.switch(state, to, self.author(), force=force))

    @rule(force=st.booleans())
    def rollback(self, *, force: bool) -> None:
        epochs = dict(self.state.epochs)
        self.change(lambda state: verbs.rollback(state, self.author(), force=force))
        assert all(self.state.epochs[pool] >= epoch for pool, epoch in epochs.items())

    @rule(pool=pools, filling=fillings)
    def set_pool(self, pool: str, filling: Filling) -> None:
        self.change(lambda state: verbs.set_pool(state, pool, filling, self.author()))

    @rule(pool=pools, endpoint=st.one_of(st.none(), st.sampled_from(ADDRESSES)))
    def drain(self, pool: str, endpoint: str | None) -> None:
        def work(state: ServiceState) -> Change:
            drains.named(state, pool, endpoint)
            return drains.drain(state, pool, endpoint, RULES, self.author())

        self.change(work)

    @rule(pool=pools, endpoint=st.one_of(st.none(), st.sampled_from(ADDRESSES)))
    def undo(self, pool: str, endpoint: str | None) -> None:
        def work(state: ServiceState) -> Change:
            drains.named(state, pool, endpoint)
            return drains.undo(state, pool, endpoint, self.author())

        self.change(work)

    @rule(ttl=times)
    def hold(self, ttl: float | None) -> None:
        until = None if ttl is None else self.now + ttl
        self.change(lambda state: hold.hold(state, self.author(), until=until))

    @rule(held=st.integers(0, 9), over_s=st.sampled_from([0.0, 5.0]))
    def release(self, held: int, over_s: float) -> None:
        self.change(lambda state: hold.release(state, self.author(), held=held, over_s=over_s))

    @rule(held=st.integers(0, 9))
    def let_holds_end(self, held: int) -> None:
        self.change(lambda state: hold.expire(state, self.now, held=held))
        assert hold.expire(self.state, self.now, held=held) is None
        self.state = hold.finish(self.state, self.now, held=held) or self.state

    @rule(file=files())
    def reload(self, file: Declared) -> None:
        if self.state.is_removed:
            self.change(lambda state: begin("shop", file, after=state))
            assert self.state.shares == {pool: file.shares.get(pool, 0) for pool in file.fillings}
        else:
            self.change(lambda state: reconcile_file(state, file))
        assert self.state.file == file

    @precondition(lambda self: not self.state.is_removed)
    @rule()
    def remove(self) -> None:
        self.change(remove)
        assert list(self.state.listed()) == []

    @rule(seconds=st.floats(0.1, 400.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.change(lambda state: verbs.expire(state, self.now))
        assert verbs.expire(self.state, self.now) is None

    @rule(count=st.integers(0, 2))
    def finish(self, count: int) -> None:
        finished = drains.finish(self.state, RULES, Busy(count), self.now)
        if finished:
            self.state = finished.state
        again = drains.finish(self.state, RULES, Busy(count), self.now)
        assert again is None

    @rule()
    def restart(self) -> None:
        self.state = codec.from_plain(json.loads(json.dumps(codec.to_plain(self.state))))

    @invariant()
    def weights_sum_to_the_whole(self) -> None:
        assert sum(self.state.shares.values()) == WHOLE
        assert min(self.state.shares.values()) >= 0

    @invariant()
    def the_pool_in_charge_exists(self) -> None:
        assert self.state.in_charge in self.state.pools
        assert self.state.previous_active in {None, *self.state.pools}
        assert self.state.previous_active != self.state.in_charge

    @invariant()
    def an_endpoint_is_listed_or_leaving(self) -> None:
        listed = set(self.state.listed())
        leaving = {(pool, a) for pool, drains in self.state.leaving.items() for a in drains}
        drained = {(p, a) for p, drains in self.state.endpoint_drains.items() for a in drains}
        assert not listed & leaving
        assert drained <= listed

    @invariant()
    def only_operators_drain_a_pool_with_traffic(self) -> None:
        for pool, drain in self.state.pool_drains.items():
            assert drain.by_operator or not self.state.shares[pool]
            assert self.state.shares[pool] < WHOLE

    @invariant()
    def every_drain_ends(self) -> None:
        last_s = RULES.streams_s + RULES.spread_s + CLOSE_GRACE_S
        much_later = self.now + last_s + GRACE_S
        finished = drains.finish(self.state, RULES, Busy(2), much_later)
        after = finished.state if finished else self.state
        assert not drains.running_drains(after)
        assert after.leaving == {}

    @invariant()
    def a_hold_with_an_end_and_every_release_ends(self) -> None:
        state = self.state
        for later_s in (1_000.0, 2_000.0):
            change = hold.expire(state, self.now + later_s, held=9)
            state = change.state if change else state
            state = hold.finish(state, self.now + later_s, held=9) or state
        assert state.hold is None or (state.hold.is_held and state.hold.until is None)

    @invariant()
    def overrides_say_something_else_than_the_file(self) -> None:
        if self.state.active and self.state.active.until is None:
            assert self.state.active.value != self.state.file.active
        assert all(
            each.value != self.state.file.fillings[pool]
            for pool, each in self.state.fillings.items()
        )


ServiceLife.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_service_life = ServiceLife.TestCase
