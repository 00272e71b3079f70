"""The token bucket: the rate holds over all workers, and the tokens are where the requests are."""

from __future__ import annotations

import random

import pytest

from proxy.policy.rate import TokenBucket

TURN_S = 0.1


class Workers:
    """Workers that are asked for so many requests a turn, and begin what they are granted."""

    def __init__(self, count: int, rate: float, burst: int) -> None:
        self.bucket = TokenBucket(count)
        self.rate, self.burst = rate, burst
        self.now = 100.0
        self.begun = [0] * count
        self.asked = [0] * count
        self.total = 0
        self.deal()

    def deal(self) -> None:
        self.granted = list(
            self.bucket.deal(self.now, self.rate, self.burst, self.begun, self.asked)
        )
        self.now += TURN_S
        self.asked = [0] * len(self.begun)

    def ask(self, worker: int, count: int) -> int:
        passed = min(count, max(0, self.granted[worker] - self.begun[worker]))
        self.begun[worker] += passed
        self.asked[worker] += count
        self.total += passed
        return passed


@pytest.mark.parametrize("seed", range(10))
def test_no_more_than_the_rate_and_the_burst_pass_however_the_requests_fall(seed: int) -> None:
    draw = random.Random(seed)
    workers = Workers(3, rate=50, burst=20)
    for _ in range(600):
        read = list(workers.begun)
        asked = list(workers.asked)
        for worker in range(3):  # what is begun between the reading and the writing
            workers.ask(worker, draw.choice((0, 0, 3, 40)))
        late = list(workers.begun)
        workers.begun, workers.asked = read, asked
        workers.deal()
        workers.begun = late
        for worker in range(3):
            workers.ask(worker, draw.choice((0, 0, 3, 40)))
    assert workers.total <= 50 * 60 + 20 + 15, f"seed {seed}: at most a turn's grants over"


def test_all_of_the_rate_is_had_by_the_one_worker_that_is_asked() -> None:
    workers = Workers(4, rate=50, burst=10)
    for _ in range(100):
        workers.ask(2, 30)
        workers.deal()
    assert 490 <= workers.total <= 510


def test_workers_asked_alike_get_alike() -> None:
    workers = Workers(3, rate=10, burst=3)
    for _ in range(300):
        for worker in range(3):
            workers.ask(worker, 5)
        workers.deal()
    assert workers.total == pytest.approx(300, abs=6)
    assert max(workers.begun) - min(workers.begun) <= 6


def test_a_lone_request_passes_wherever_it_comes() -> None:
    workers = Workers(8, rate=1, burst=0)
    for worker in (3, 7, 0):
        assert workers.ask(worker, 1) == 1
        for _ in range(50):
            workers.deal()


def test_a_burst_is_not_saved_up_beyond_its_size() -> None:
    workers = Workers(1, rate=50, burst=20)
    for _ in range(1000):
        workers.deal()
    assert workers.ask(0, 1000) == 20


def test_a_bucket_too_small_for_its_turns_still_gives_the_rate() -> None:
    workers = Workers(2, rate=100, burst=1)
    for _ in range(100):
        for worker in range(2):
            workers.ask(worker, 50)
        workers.deal()
    assert workers.total == pytest.approx(1000, abs=25)


def test_a_worker_that_counts_from_zero_again_gets_no_more_for_it() -> None:
    workers = Workers(2, rate=50, burst=10)
    for _ in range(100):
        workers.ask(0, 50)
        workers.deal()
    before = workers.total
    workers.begun[0] = 0
    workers.bucket.restarted(0)
    workers.deal()
    for _ in range(10):
        workers.ask(0, 50)
        workers.deal()
    assert workers.total - before <= 50 + 20
