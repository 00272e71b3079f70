"""Ejection: who goes, for how long, who never, and what brings them back; in no time at all."""

from __future__ import annotations

import pytest

from proxy.policy.ejection import (
    Ejected,
    EjectionRules,
    Event,
    PoolEjection,
    Readmitted,
    Seen,
    Standing,
)

TWO = ("a", "b")
BEAT = 0.1


class Pool:
    """A pool's ejection and a clock; endpoints nobody speaks of are quiet."""

    def __init__(self, *addresses: str, **rules: float) -> None:
        self.policy = PoolEjection(EjectionRules(**rules))  # type: ignore[arg-type]
        self.addresses = addresses
        self.now = 100.0
        self.standing: dict[str, Standing] = {}

    def beat(self, pass_s: float = BEAT, /, **seen: Seen) -> list[Event]:
        self.now += pass_s
        told = {
            each: seen.get(each, Seen())._replace(
                standing=self.standing.get(each, Standing.AVAILABLE)
            )
            for each in self.addresses
        }
        return self.policy.observe(self.now, told)

    def fail(self, address: str, times: int = 5) -> list[Event]:
        return self.beat(BEAT, **{address: Seen(bad=times)})


# ---- consecutive failures ----


@pytest.mark.parametrize("steps", [[5], [1, 1, 1, 1, 1], [2, 0, 3]])
def test_failures_in_a_row_over_all_workers_and_looks_eject(steps: list[int]) -> None:
    pool = Pool(*TWO)
    events = [pool.beat(a=Seen(bad=bad), b=Seen(good=9)) for bad in steps]
    assert events[:-1] == [[]] * (len(steps) - 1)
    (event,) = events[-1]
    assert event == Ejected("a", pool.now + 10.0, 10.0, 1, "5 failures in a row")


def test_a_success_between_ends_the_run() -> None:
    pool = Pool(*TWO)
    assert pool.fail("a", 4) == []
    assert pool.beat(a=Seen(good=1, bad=1)) == []
    assert pool.fail("a", 4) == []
    assert pool.fail("a", 1) != []


def test_a_run_that_one_worker_saw_whole_counts_although_others_saw_successes() -> None:
    pool = Pool(*TWO)
    (event,) = pool.beat(a=Seen(good=50, bad=6, trips=1))
    assert isinstance(event, Ejected)


def test_the_rule_can_be_off() -> None:
    pool = Pool(*TWO, consecutive_failures=0, failure_share=0)
    assert pool.fail("a", 1000) == []


# ---- the failure share ----


def test_a_large_enough_share_of_a_large_enough_sample_ejects() -> None:
    pool = Pool(*TWO)
    for _ in range(3):
        assert pool.beat(1.0, a=Seen(good=3, bad=3), b=Seen(good=6)) == []
    (event,) = pool.beat(1.0, a=Seen(good=1, bad=1), b=Seen(good=2))
    assert isinstance(event, Ejected)
    assert event.why == "10 of 20 requests failed within 10 s"


def test_the_share_forgets_what_is_older_than_the_window() -> None:
    pool = Pool(*TWO)
    assert pool.beat(a=Seen(good=4, bad=15), b=Seen(good=20)) == []
    assert pool.beat(10.0, a=Seen(good=1, bad=1)) == []


def test_a_share_below_the_bar_stays() -> None:
    pool = Pool(*TWO)
    for _ in range(50):
        assert pool.beat(a=Seen(good=6, bad=4), b=Seen(good=10)) == []


def test_where_all_fail_alike_the_share_ejects_nobody() -> None:
    pool = Pool(*TWO)
    for _ in range(50):
        assert pool.beat(a=Seen(good=4, bad=6), b=Seen(good=5, bad=5)) == []


# ---- who may go ----


def test_of_two_endpoints_one_may_go_and_the_last_one_stays() -> None:
    pool = Pool(*TWO)
    assert len(pool.beat(a=Seen(bad=9), b=Seen(bad=5))) == 1
    assert pool.policy.ejected == ["a"], "the worse one"
    assert pool.fail("b", 100) == []


def test_one_endpoint_alone_is_never_ejected() -> None:
    pool = Pool("a")
    assert pool.fail("a", 100) == []


@pytest.mark.parametrize(
    ("count", "max_percent", "most"), [(4, 50, 2), (5, 50, 2), (5, 100, 4), (3, 10, 1), (4, 0, 0)]
)
def test_at_most_max_percent_are_out_at_once(count: int, max_percent: int, most: int) -> None:
    addresses = [f"e{n}" for n in range(count)]
    pool = Pool(*addresses, max_percent=max_percent)
    events = pool.beat(BEAT, **dict.fromkeys(addresses, Seen(bad=5)))
    assert len(events) == len(pool.policy.ejected) == most


@pytest.mark.parametrize("standing", [Standing.OUT, Standing.LEAVING, Standing.UNREACHABLE])
def test_an_endpoint_that_is_not_available_is_no_reason_to_eject_the_last_one(
    standing: Standing,
) -> None:
    pool = Pool(*TWO)
    pool.standing["b"] = standing
    assert pool.fail("a") == []


def test_an_unreachable_endpoint_is_ejected_and_a_down_one_need_not_be() -> None:
    pool = Pool(*TWO)
    pool.standing["a"] = Standing.OUT
    assert pool.fail("a") == []
    pool.standing["a"] = Standing.UNREACHABLE
    assert len(pool.fail("a")) == 1


@pytest.mark.parametrize("standing", [Standing.OUT, Standing.LEAVING, Standing.UNREACHABLE])
def test_when_the_others_become_unavailable_the_ejected_one_returns(standing: Standing) -> None:
    pool = Pool("a", "b", "c", max_percent=100)
    assert len(pool.fail("a")) == 1
    assert len(pool.fail("b")) == 1
    assert pool.beat() == []
    pool.standing["c"] = standing
    assert pool.beat() == [Readmitted("a", "nothing else of its pool is available")]
    assert pool.beat() == [], "one is enough"


def test_one_that_had_to_stay_goes_with_its_next_failure_when_there_is_room() -> None:
    pool = Pool(*TWO)
    pool.beat(a=Seen(bad=9), b=Seen(bad=5))
    assert pool.beat(10.0) == [Readmitted("a", "its time is over")]
    assert pool.beat() == [], "without a new failure nobody goes"
    (event,) = pool.beat(a=Seen(good=1), b=Seen(bad=1))
    assert event.address == "b"


# ---- for how long ----


def test_time_grows_by_repetition_up_to_its_limit() -> None:
    pool = Pool(*TWO, base_time_s=10.0, max_time_s=25.0)
    times = []
    for _ in range(4):
        (event,) = pool.fail("a")
        assert isinstance(event, Ejected)
        times.append(event.time_s)
        assert pool.beat(event.time_s - 0.01) == []
        assert pool.beat(0.02) == [Readmitted("a", "its time is over")]
    assert times == [10.0, 20.0, 25.0, 25.0]


def test_time_in_service_makes_the_next_ejection_shorter_again() -> None:
    pool = Pool(*TWO)
    for time_s in (10.0, 20.0, 30.0):
        (event,) = pool.fail("a")
        assert isinstance(event, Ejected)
        assert event.time_s == time_s
        pool.beat(time_s)
    pool.beat(10.0, a=Seen(good=1))
    pool.beat(10.0, a=Seen(good=1))
    (event,) = pool.fail("a")
    assert isinstance(event, Ejected)
    assert event.time_s == 20.0


def test_after_the_longest_ejection_good_behaviour_counts_at_once() -> None:
    pool = Pool(*TWO, base_time_s=10.0, max_time_s=20.0)
    for _ in range(10):
        (event,) = pool.fail("a")
        assert isinstance(event, Ejected)
        pool.beat(event.time_s)
    for _ in range(2):
        pool.beat(10.0, a=Seen(good=1))
    (event,) = pool.fail("a")
    assert isinstance(event, Ejected)
    assert event.time_s == 10.0


# ---- coming back ----


def test_back_on_trial_one_failure_is_enough_until_the_first_success() -> None:
    pool = Pool(*TWO)
    pool.fail("a")
    pool.beat(10.0)
    (event,) = pool.fail("a", 1)
    assert isinstance(event, Ejected)
    assert event.why == "failed again at once after its return"
    pool.beat(20.0)
    assert pool.beat(a=Seen(good=1)) == []
    assert pool.fail("a", 4) == []
    assert len(pool.fail("a", 1)) == 1


def test_what_an_ejected_endpoint_still_finishes_changes_nothing() -> None:
    pool = Pool(*TWO)
    pool.fail("a")
    for _ in range(20):
        assert pool.beat(a=Seen(good=3, bad=20, trips=2)) == []
    assert pool.beat(8.1) == [Readmitted("a", "its time is over")]
    assert pool.beat() == []


def test_an_endpoint_that_is_listed_no_more_is_forgotten() -> None:
    pool = Pool(*TWO)
    pool.fail("a")
    pool.addresses = ("b", "c")
    pool.beat()
    assert pool.policy.ejected == []
    pool.addresses = ("a", "b")
    assert pool.fail("a", 4) == []


def test_all_can_be_readmitted_at_once() -> None:
    pool = Pool("a", "b", "c", "d")
    pool.fail("a")
    pool.fail("b")
    back = pool.policy.readmit_all(pool.now, "ejection is off")
    assert [each.address for each in back] == ["a", "b"]
    assert pool.policy.ejected == []
