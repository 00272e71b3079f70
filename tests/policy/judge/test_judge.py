"""The judge as an operator meets it: what it turns back, what it holds, what it passes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proxy.policy.judge import Counts, Judge, Knobs, Tick
from proxy.policy.judge.verdict import Call
from proxy.stats import BINS, latency_bin

Run = Callable[[Judge, Iterator[Tick]], Any]


@pytest.mark.parametrize("seed", range(6))
def test_a_candidate_that_fails_every_request_is_found_in_seconds(
    traffic: Any, run: Run, seed: int
) -> None:
    ended = run(Judge(), traffic(rps=400, part=0.1, candidate=lambda _: 1.0).ticks(seed))
    assert ended.verdict.call is Call.FAIL
    assert ended.verdict.reason == "guard: down"
    assert ended.at_s <= 2


@pytest.mark.parametrize("seed", range(6))
def test_half_of_the_answers_being_errors_is_found_in_seconds(
    traffic: Any, run: Run, seed: int
) -> None:
    ended = run(Judge(), traffic(rps=400, part=0.1, candidate=lambda _: 0.5).ticks(seed))
    assert ended.verdict.call is Call.FAIL
    assert ended.at_s <= 4


@pytest.mark.parametrize("seed", range(6))
def test_a_tenth_of_the_answers_being_errors_is_found_in_a_dozen_seconds(
    traffic: Any, run: Run, seed: int
) -> None:
    ended = run(Judge(), traffic(rps=400, part=0.1, candidate=lambda _: 0.1).ticks(seed))
    assert ended.verdict.reason == "errors"
    assert ended.at_s <= 15
    assert "evidence" in ended.verdict.words
    assert "1 in 200" in ended.verdict.words


@pytest.mark.parametrize("seed", range(4))
def test_a_healthy_candidate_is_not_turned_back_and_passes(
    traffic: Any, run: Run, seed: int
) -> None:
    ended = run(Judge(), traffic(rps=400, part=0.1, seconds=400).ticks(seed))
    assert ended.verdict.call in {Call.CONTINUE, Call.PASS}
    assert ended.passed_at_s is not None


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_an_outage_of_both_is_held_and_not_turned_back(traffic: Any, part: float) -> None:
    def outage(second: float) -> float:
        return 0.3 if 100 < second <= 220 else 0.001

    judge = Judge()
    calls = set()
    for tick in traffic(rps=400, part=part, candidate=outage, active=outage, seconds=300).ticks(1):
        verdict = judge.observe(tick)
        calls.add(verdict.call)
        if 170 < tick.at_s < 220:
            assert verdict.reason == "baseline degraded", tick.at_s
    assert Call.FAIL not in calls
    assert Call.HOLD in calls


def test_a_candidate_that_is_twice_as_slow_is_found(traffic: Any, run: Run) -> None:
    slow = traffic(rps=100, part=0.1, slower=lambda second: 2.0 if second > 60 else 1.0)
    ended = run(Judge(), slow.ticks(2))
    assert ended.verdict.reason == "latency"
    assert 60 < ended.at_s < 180
    told = re.match(
        r"latency: candidate (\d+) of (\d+) \(.+ %\) slower than (\d+) ms, active (\d+) of ([\d,]+)"
        r" \(.+ %\) slower than (\d+) ms in the last half minute; evidence ",
        ended.verdict.words,
    )
    assert told is not None, ended.verdict.words
    late, timed, over_ms, active_late, active_timed, active_over_ms = (
        int(each.replace(",", "")) for each in told.groups()
    )
    assert late / timed > 1.5 * active_late / active_timed
    assert over_ms > 1.15 * active_over_ms


@pytest.mark.parametrize("active_s", [0.002, 0.050])
def test_a_candidate_that_finishes_nothing_is_warm_after_a_while_and_found(active_s: float) -> None:
    """What hangs ends with the timeout only, but is entered as slow before: that is traffic, too."""
    judge, place = Judge(Knobs(warmup_s=30.0)), latency_bin(active_s)
    for second in range(1, 120):
        hung = _timed(0, latency_bin(5.0), 40) if second > 6 else Counts()
        tick = Tick(
            at_s=float(second), length_s=1.0, candidate=hung, active=_timed(360, place, 360)
        )
        if judge.observe(tick).call is Call.FAIL:
            break
    verdict = judge.observe(tick)
    assert verdict.reason == "latency"
    assert second < 100
    assert "slower than" in verdict.words


def _timed(requests: int, place: int, answers: int) -> Counts:
    latencies = [0.0] * BINS
    latencies[place] = float(answers)
    return Counts(requests=requests, latencies=latencies)


def test_latency_is_not_judged_while_the_candidate_warms_up(traffic: Any) -> None:
    judge = Judge(Knobs(warmup_s=60.0))
    for tick in traffic(rps=200, part=0.2, slower=lambda _: 3.0, seconds=59).ticks(2):
        judge.observe(tick)
    (latency,) = (test for test in judge.tests() if test.name == "latency")
    assert latency.evidence == 0


def test_answers_of_class_4xx_are_compared_by_their_own_test(traffic: Any, run: Run) -> None:
    refusing = traffic(rps=100, part=0.1, refused=(0.02, 0.4))
    verdict = run(Judge(), refusing.ticks(1)).verdict
    assert verdict.reason == "4xx"
    told = re.match(
        r"4xx: candidate (\d+) of (\d+) \(.+ %\), active (\d+) of ([\d,]+) \(.+ %\); evidence ",
        verdict.words,
    )
    assert told is not None, verdict.words
    refused, of, active_refused, active_of = (int(each.replace(",", "")) for each in told.groups())
    assert refused / of == pytest.approx(0.4, abs=0.15)
    assert active_refused / active_of == pytest.approx(0.02, abs=0.015)
    lenient = Judge(Knobs(count_4xx=False))
    assert run(lenient, traffic(rps=100, part=0.1, refused=(0.02, 0.4)).ticks(1)).verdict.call in {
        Call.CONTINUE,
        Call.PASS,
    }


def test_no_traffic_on_the_candidate_is_no_verdict(traffic: Any, run: Run) -> None:
    ended = run(Judge(), traffic(part=0.0).ticks(1))
    assert ended.verdict.call is Call.CONTINUE


def test_a_fail_stays_a_fail(traffic: Any, run: Run) -> None:
    judge = Judge()
    ended = run(judge, traffic(rps=400, part=0.1, candidate=lambda _: 1.0).ticks(1))
    healthy = next(traffic(rps=400, part=0.1).ticks(1))
    assert judge.observe(healthy) is ended.verdict


def test_one_client_alone_does_not_turn_a_release_back(traffic: Any) -> None:
    judge = Judge()
    for tick in traffic(rps=100, part=0.1, seconds=300).ticks(4):
        counts = tick.candidate
        counts.requests += 1
        counts.errors += 1
        counts.requests_by[5] += 1
        counts.errors_by[5] += 1
        assert judge.observe(tick).call is not Call.FAIL, tick.at_s


def test_at_everything_the_record_stands_for_the_other_pool(traffic: Any, run: Run) -> None:
    for share, is_bad in ((0.001, False), (0.06, True)):
        judge = Judge()
        judge.watch(0.003)
        ended = run(judge, traffic(rps=200, part=1.0, candidate=lambda _, s=share: s).ticks(1))
        assert (ended.verdict.call is Call.FAIL) is is_bad
        if is_bad:
            assert ended.verdict.reason == "record"
            assert ended.at_s < 30


@pytest.mark.parametrize("cut", [5, 12, 17])
def test_after_a_restart_it_goes_on_from_what_it_knew(traffic: Any, run: Run, cut: int) -> None:
    """Only the block that was open is lost, so the same FAIL comes, a little later at most."""
    ticks = list(traffic(rps=400, part=0.1, candidate=lambda _: 0.012).ticks(3))
    whole = run(Judge(), iter(ticks))
    assert whole.verdict.call is Call.FAIL
    assert whole.at_s > cut, "or there is nothing to go on with"
    before = Judge()
    for tick in ticks[:cut]:
        before.observe(tick)
    restored = Judge.restored(json.loads(json.dumps(before.save())), Knobs())
    evidence = [test.evidence for test in before.tests()]
    assert [test.evidence for test in restored.tests()] == pytest.approx(evidence)
    assert restored.save() == json.loads(json.dumps(before.save()))
    ended = run(restored, iter(ticks[cut:]))
    assert ended.verdict.reason == whole.verdict.reason
    assert ended.at_s <= whole.at_s + 30


@pytest.mark.parametrize("saved", [{}, {"format": 99}, {"format": 1}, {"format": 1, "errors": 3}])
def test_a_state_that_cannot_be_read_is_refused(saved: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="state"):
        Judge.restored(saved, Knobs())


def test_counts_without_clients_are_judged_as_they_are() -> None:
    judge = Judge()
    bad = Tick(
        at_s=1.0,
        length_s=1.0,
        active=Counts(requests=380),
        candidate=Counts(requests=20, errors=20),
    )
    assert judge.observe(bad).call is Call.FAIL


def test_an_outage_of_both_is_not_turned_back_when_all_requests_come_from_one_address() -> None:
    judge = Judge()
    for second in range(1, 61):
        share = 0.3 if second > 20 else 0.0
        own, other = round(40 * share), round(360 * share)
        tick = Tick(
            at_s=float(second),
            length_s=1.0,
            candidate=_of_one_client(40, own),
            active=_of_one_client(360, other),
        )
        assert judge.observe(tick).call is not Call.FAIL, second


def _of_one_client(requests: int, errors: int) -> Counts:
    return Counts(
        requests=requests,
        errors=errors,
        requests_by=[float(requests)] + [0.0] * 31,
        errors_by=[float(errors)] + [0.0] * 31,
        refused_by=[0.0] * 32,
    )
