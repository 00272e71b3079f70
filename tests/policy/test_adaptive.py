"""The adaptive limit: it finds what a server can take, follows it, and never acts on silence."""

from __future__ import annotations

import pytest

from proxy import stats
from proxy.policy.adaptive import INITIAL, LEAST, MOST, Gradient, median_s


class Server:
    """So many slots, so long for each: by Little's law more in flight only wait for each other."""

    def __init__(self, slots: int, service_s: float) -> None:
        self.slots = slots
        self.service_s = service_s

    def latency_s(self, in_flight: int) -> float:
        return self.service_s * max(1.0, in_flight / self.slots)


def _run(gradient: Gradient, server: Server, offered: int, windows: int) -> list[int]:
    """Windows with `offered` clients that always have a request; the limit after each."""
    limits = []
    for _ in range(windows):
        in_flight = min(offered, gradient.limit)
        gradient.window(server.latency_s(in_flight), in_flight)
        limits.append(gradient.limit)
    return limits


def _warm(server: Server) -> Gradient:
    gradient = Gradient()
    _run(gradient, server, offered=server.slots // 2, windows=300)
    return gradient


@pytest.mark.parametrize(("slots", "service_s"), [(60, 0.05), (300, 0.2), (1000, 0.01)])
def test_it_finds_a_server_of_known_capacity(slots: int, service_s: float) -> None:
    server = Server(slots, service_s)
    limits = _run(_warm(server), server, offered=10 * slots, windows=120)[-30:]
    assert min(limits) >= slots, "the server is kept busy"
    assert max(limits) <= 2.2 * slots, "and its queue is about as short as its work"


def test_it_follows_a_server_that_loses_capacity_and_finds_it_again() -> None:
    server = Server(200, 0.05)
    gradient = _warm(server)
    _run(gradient, server, offered=2000, windows=120)
    before = gradient.limit
    server.slots = 100
    _run(gradient, server, offered=2000, windows=60)
    assert gradient.limit < 0.75 * before
    assert gradient.limit >= 100
    server.slots = 200
    _run(gradient, server, offered=2000, windows=120)
    assert gradient.limit >= 200


def test_it_recovers_soon_from_a_time_when_everything_was_slow() -> None:
    slow, server = Server(200, 2.0), Server(200, 0.05)
    gradient = Gradient()
    _run(gradient, slow, offered=2000, windows=600)
    _run(gradient, server, offered=110, windows=600)
    limits = _run(gradient, server, offered=2000, windows=120)
    assert 200 <= limits[-1] <= 2.5 * 200


def test_it_does_not_move_while_it_is_not_used() -> None:
    gradient = Gradient()
    for latency_s in (0.01, 5.0, 0.01):
        for _ in range(200):
            gradient.window(latency_s, INITIAL // 2 - 1)
    assert gradient.limit == INITIAL


def test_it_keeps_within_its_bounds() -> None:
    gradient = Gradient()
    for step in range(200):
        gradient.window(0.01 * 1.2 ** min(step, 100), gradient.limit)
    assert gradient.limit >= LEAST
    gradient = Gradient()
    for _ in range(5000):
        gradient.window(0.01, gradient.limit)
    assert gradient.limit == MOST


def test_it_begins_above_what_is_in_flight_already() -> None:
    assert Gradient(700).limit == 1400
    assert Gradient(3).limit == INITIAL


def test_the_median_of_a_histogram_is_within_a_bin_of_the_truth() -> None:
    bins = [0] * stats.BINS
    for ms in range(1, 2002):
        bins[stats.latency_bin(ms / 1000)] += 1
    assert median_s(bins) == pytest.approx(1.001, rel=0.05)


def test_one_endless_stream_does_not_move_the_median() -> None:
    bins = [0] * stats.BINS
    bins[stats.latency_bin(0.02)] = 99
    bins[stats.latency_bin(7200.0)] = 1
    assert median_s(bins) == pytest.approx(0.02, rel=0.1)


def test_an_empty_histogram_has_no_median() -> None:
    assert median_s([0] * stats.BINS) == 0.0
