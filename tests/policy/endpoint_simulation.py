"""A service in a box: endpoints that flap, slow down and die in groups, driven through the policy.

Nothing here is the proxy's but what is imported from it: the workers, the clock and the
endpoints are made up, the decisions are real. The same seed gives the same run.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from itertools import count
from typing import Literal

from proxy.model import WHOLE
from proxy.policy import slow_start
from proxy.policy.balance import Balancer, balancer
from proxy.policy.budget import WINDOW_S, RetryBudget, deal
from proxy.policy.ejection import Ejected, EjectionRules, PoolEjection, Seen, Standing
from proxy.policy.health import Outcome, Thresholds, checked
from proxy.policy.split import Sequence, Split
from tests.policy.troubled_endpoints import FAILS, MOODS, Endpoint, Member, Stretch

STEP_S = 0.1
CHECK_S = 0.5
UNREACHABLE_S = 1.0
STARVED_S = 20.0
ANSWER_S, SLOW_ANSWER_S = 0.03, 1.5


class ViolationError(AssertionError):
    pass


class Worker:
    def __init__(self, world: World, number: int) -> None:
        self.number = number
        self.balancer: Balancer = balancer(world.balance, world.draw.random)
        self.sequence = Sequence(world.draw.randrange(WHOLE))
        self.members = {
            pool: [Member(each, world.draw.getrandbits(64)) for each in listed]
            for pool, listed in world.pools.items()
        }
        self.may_retry = 0
        self.requests = 0
        self.decided: Counter[str] = Counter()
        self.stretches: dict[str, Stretch] = {pool: Stretch() for pool in world.pools}


class World:
    def __init__(self, seed: int) -> None:
        self.draw = draw = random.Random(seed)
        self.now = 0.0
        self.balance: Literal["least_requests", "round_robin", "hash"] = draw.choice(
            ("least_requests", "round_robin", "hash")
        )
        self.slow_start_s = draw.choice((0.0, 3.0))
        self.rules = EjectionRules(
            base_time_s=draw.choice((1.0, 3.0)),
            max_time_s=8.0,
            max_percent=draw.choice((10, 34, 50, 100)),
        )
        self.pools = {
            name: [
                Endpoint(f"{name}:{n}", name, draw.choice((1, 1, 2, 3)))
                for n in range(draw.choice((1, 2, 2, 3, 4, 6)))
            ]
            for name in ("blue", "green")
        }
        self.ejections = {name: PoolEjection(self.rules) for name in self.pools}
        self.workers = [Worker(self, n) for n in range(draw.choice((1, 2, 4)))]
        self.share, self.floor = 1000, 3
        self.budget = RetryBudget(self.share, self.floor)
        self.sent: deque[float] = deque()
        self.retried: deque[float] = deque()
        self.requests = self.retries = 0
        self.happened: Counter[str] = Counter()
        self._answers: list[tuple[float, int, Worker, Member, bool]] = []
        self._order = count()
        self._weigh(10_000)

    # ---- one step ----

    def step(self) -> None:
        self.now += STEP_S
        if self.draw.random() < 0.08:
            self._event()
        self._check()
        for pool in self.pools:
            self._eject(pool)
        self._start_slowly()
        self._deal()
        for _ in range(self.draw.randrange(30)):
            self._request(self.draw.choice(self.workers))
        self._answer()
        self._hold()

    def _event(self) -> None:
        what = self.draw.randrange(10)
        listed = [each for pool in self.pools.values() for each in pool]
        if what < 4:
            self.draw.choice(listed).mood = self.draw.choice(MOODS)
        elif what < 6:  # a group dies, or falls ill, at once
            mood = self.draw.choice(MOODS[1:])
            for each in self.draw.sample(listed, self.draw.randrange(1, len(listed) + 1)):
                each.mood = mood
        elif what < 8:
            for each in listed:
                each.mood = "well"
        elif what == 8:
            each = self.draw.choice(listed)
            each.is_draining = not each.is_draining
        else:
            self._weigh(self.draw.choice((0, 100, 5000, 9000, 10_000)))

    def _weigh(self, blue: int) -> None:
        if hasattr(self, "shares"):
            self._hold_split()
        self.shares = [blue, WHOLE - blue]
        self.split = Split(self.shares, self.draw.randrange(WHOLE))
        for worker in self.workers:
            worker.requests = 0
            worker.decided.clear()

    # ---- the control plane ----

    def _check(self) -> None:
        for each in (each for pool in self.pools.values() for each in pool):
            if self.now < each.next_check:
                continue
            each.next_check = self.now + CHECK_S * (0.9 + 0.2 * self.draw.random())
            before = each.health
            asks = each.mood != "dead" and self.draw.random() < 0.01
            passes = each.mood != "dead" and not (
                each.mood == "failing" and self.draw.random() < 0.5
            )
            told = Outcome(is_pass=passes, asks_to_drain=None if each.mood == "dead" else asks)
            each.health = checked(before, told, Thresholds())
            if each.health.verdict != before.verdict:
                self.happened[each.health.verdict] += 1
                if each.health.verdict == "up":
                    each.since = self.now

    def _eject(self, pool: str) -> None:
        seen = {}
        for each in self.pools[pool]:
            seen[each.name] = Seen(each.good, each.bad, each.trips, self._standing(each))
            each.good = each.bad = each.trips = 0
        by_name = {each.name: each for each in self.pools[pool]}
        for event in self.ejections[pool].observe(self.now, seen):
            each = by_name[event.address]
            each.is_ejected = isinstance(event, Ejected)
            if not each.is_ejected:
                each.readmitted_at = self.now
            self.happened["ejected" if each.is_ejected else "readmitted"] += 1
            if each.is_ejected:
                self._hold_limit(pool)
        self._hold_hope(pool)

    def _standing(self, each: Endpoint) -> Standing:
        if each.is_draining:
            return Standing.LEAVING
        if not each.is_up:
            return Standing.OUT
        marks = [
            member.unreachable_until
            for worker in self.workers
            for member in worker.members[each.pool]
            if member.endpoint is each
        ]
        return Standing.UNREACHABLE if min(marks) > self.now else Standing.AVAILABLE

    def _start_slowly(self) -> None:
        for worker in self.workers:
            for member in (each for listed in worker.members.values() for each in listed):
                each = member.endpoint
                member.weight = each.listed_weight * slow_start.part(
                    self.now,
                    since=each.since,
                    readmitted_at=each.readmitted_at,
                    slow_start_s=self.slow_start_s,
                )

    def _deal(self) -> None:
        self.budget.note(self.now, self.requests, self.retries)
        shares = deal(self.budget.remaining(self.now), [1.0] * len(self.workers))
        for worker, share in zip(self.workers, shares, strict=True):
            worker.may_retry = share

    # ---- the data plane ----

    def _request(self, worker: Worker) -> None:
        self.requests += 1
        self.sent.append(self.now)
        worker.requests += 1
        pool = ("blue", "green")[self.split.index(worker.sequence.next())]
        worker.decided[pool] += 1
        tried: list[Member] = []
        while (member := self._pick(worker, pool, tried)) is not None:
            tried.append(member)
            if member.endpoint.mood == "dead":  # refused: nothing was sent, the next one is free
                member.unreachable_until = self.now + UNREACHABLE_S
                self._outcome(member, is_good=False)
                continue
            if not self._send(worker, member) or len(tried) > 1 or not worker.may_retry:
                return
            worker.may_retry -= 1
            self.retries += 1
            self.retried.append(self.now)
            self.happened["retried"] += 1
        if not tried:
            self.happened["refused"] += 1

    def _pick(self, worker: Worker, pool: str, tried: list[Member]) -> Member | None:
        members = self._available(worker, pool, tried)
        is_ordinary = bool(members) and not tried
        if is_ordinary:
            self._note_stretch(worker, pool, members)
        if not members:
            other = "green" if pool == "blue" else "blue"
            weight = self.shares[("blue", "green").index(other)]
            members = self._available(worker, other, tried) if weight else []
            if members:
                self.happened["fallback"] += 1
        if not members:
            members = self._in_panic(worker, pool, tried)
            if members:
                self.happened["panic"] += 1
        if not members:
            return None
        member = worker.balancer.pick(members, self.draw.getrandbits(64))
        self._note_pick(worker, member, is_ordinary=is_ordinary)
        return member

    def _available(self, worker: Worker, pool: str, tried: list[Member]) -> list[Member]:
        return [
            each
            for each in worker.members[pool]
            if each.endpoint.is_available
            and each.unreachable_until <= self.now
            and each not in tried
        ]

    def _in_panic(self, worker: Worker, pool: str, tried: list[Member]) -> list[Member]:
        staying = [each for each in worker.members[pool] if not each.endpoint.is_draining]
        amiss = [
            each
            for each in staying
            if each.endpoint.is_ejected
            or each.endpoint.health.verdict == "down"
            or each.unreachable_until > self.now
        ]
        if len(amiss) * 2 <= len(staying):
            return []
        return [
            each
            for each in staying
            if each.endpoint.health.verdict != "unchecked"
            and not each.endpoint.health.asks_to_drain
            and each not in tried
        ]

    def _send(self, worker: Worker, member: Member) -> bool:
        """Send; whether it failed at once, so that it may be sent again."""
        mood = member.endpoint.mood
        if self.draw.random() < FAILS[mood]:
            self._outcome(member, is_good=False)
            return True
        member.busy += 1
        takes = SLOW_ANSWER_S if mood == "slow" else ANSWER_S
        heapq.heappush(self._answers, (self.now + takes, next(self._order), worker, member, False))
        return False

    def _answer(self) -> None:
        while self._answers and self._answers[0][0] <= self.now:
            _, _, _, member, _ = heapq.heappop(self._answers)
            member.busy -= 1
            self._outcome(member, is_good=True)

    def _outcome(self, member: Member, *, is_good: bool) -> None:
        each = member.endpoint
        if is_good:
            each.good += 1
            member.run = 0
            return
        each.bad += 1
        member.run += 1
        if member.run == self.rules.consecutive_failures:
            member.run = 0
            each.trips += 1

    # ---- what must hold ----

    def _note_pick(self, worker: Worker, member: Member, *, is_ordinary: bool) -> None:
        each = member.endpoint
        if each.is_draining or each.health.verdict == "unchecked" or each.health.asks_to_drain:
            raise ViolationError(f"{each.name} got a request although it is to get nothing new")
        for other in self.pools[each.pool]:
            other.pool_picks += 1
        each.pool_picks = 0
        each.picked_at = self.now
        if is_ordinary:
            worker.stretches[each.pool].picks[each.name] += 1
        else:  # who was picked for another reason has had a turn that was not counted
            self._hold_shares(worker.stretches[each.pool])
            worker.stretches[each.pool] = Stretch()

    def _note_stretch(self, worker: Worker, pool: str, members: list[Member]) -> None:
        signature = tuple((each.endpoint.name, each.weight) for each in members)
        stretch = worker.stretches[pool]
        if stretch.signature != signature:
            self._hold_shares(stretch)
            worker.stretches[pool] = Stretch(signature)

    def _hold_shares(self, stretch: Stretch) -> None:
        """The endpoints had their shares while nothing about them changed."""
        total = stretch.picks.total()
        if total < 200 or self.balance == "least_requests":
            return  # that one looks at who is busy, and not at shares alone
        whole = sum(weight for _, weight in stretch.signature)
        for name, weight in stretch.signature:
            part = weight / whole
            slack = 5 * (total * part * (1 - part)) ** 0.5 if self.balance == "hash" else 6
            if abs(stretch.picks[name] - total * part) > slack + 1:
                raise ViolationError(
                    f"{name} got {stretch.picks[name]} of {total}, not {100 * part:.1f} %"
                )
        self.happened["shares held"] += 1

    def _hold(self) -> None:
        for listed in self.pools.values():
            for each in listed:
                self._hold_no_starvation(each, len(listed))
        self._hold_budget()

    def _hold_limit(self, pool: str) -> None:
        """When one has just been ejected, no more are out than may be."""
        listed = [each for each in self.pools[pool] if not each.is_draining]
        out = sum(each.is_ejected for each in listed)
        if out > max(1, len(listed) * self.rules.max_percent // 100) or out >= len(listed):
            raise ViolationError(f"{out} of {len(listed)} endpoints of {pool} are ejected")

    def _hold_hope(self, pool: str) -> None:
        """Ejection never empties a pool."""
        usable = [each for each in self.pools[pool] if self._standing(each) is Standing.AVAILABLE]
        if usable and all(each.is_ejected for each in usable):
            raise ViolationError(f"ejection has emptied {pool}")

    def _hold_no_starvation(self, each: Endpoint, count: int) -> None:
        if not each.is_available or each.mood == "dead":
            each.available_since = None
            each.pool_picks = 0
            return
        if each.available_since is None:
            each.available_since = each.picked_at = self.now
        waited = self.now - max(each.picked_at, each.available_since)
        if waited > STARVED_S and each.pool_picks > 200 * count:
            raise ViolationError(f"{each.name} starves: {each.pool_picks} picks passed it by")

    def _hold_budget(self) -> None:
        horizon = self.now - WINDOW_S
        for times in (self.sent, self.retried):
            while times and times[0] <= horizon:
                times.popleft()
        allowed = max(self.floor, len(self.sent) * self.share / WHOLE)
        if self.retried and self.retried[-1] == self.now and len(self.retried) > allowed:
            raise ViolationError(f"{len(self.retried)} retries, only {allowed:g} are allowed")

    def _hold_split(self) -> None:
        for worker in self.workers:
            blue = worker.requests * self.shares[0] / WHOLE
            if worker.requests and abs(worker.decided["blue"] - blue) > 3:
                raise ViolationError(f"blue got {worker.decided['blue']} of {worker.requests}")
