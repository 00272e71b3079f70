from __future__ import annotations

import json
import random
import zlib
from dataclasses import replace

import pytest

from proxy.control.guard import tape
from proxy.control.guard.tape import Mark, Taped
from proxy.control.rollout.machine import Phase, Rollout
from proxy.control.rollout.plan import Plan, Step
from proxy.policy.judge import Call, Counts, Knobs, Tick, Verdict
from proxy.stats import BINS, JUDGE_BUCKETS


def counts(draw: random.Random, requests: int) -> Counts:
    """As `guard.counts` makes them: whole numbers."""
    by = [0] * JUDGE_BUCKETS
    for _ in range(requests):
        by[draw.randrange(JUDGE_BUCKETS)] += 1
    latencies = [0] * BINS
    for _ in range(requests):
        latencies[min(BINS - 1, int(draw.lognormvariate(3.4, 0.25)))] += 1
    logs = [draw.randrange(1 << 20) if each else 0 for each in by]
    return Counts(
        requests=requests,
        errors=by[3],
        refused=by[4],
        requests_by=by,
        errors_by=[each if place == 3 else 0 for place, each in enumerate(by)],
        refused_by=[each if place == 4 else 0 for place, each in enumerate(by)],
        latencies=latencies,
        latency_counts=by,
        log_sums=logs,
        log_squares=[each * 2 for each in logs],
    )


def recorded(seed: int, requests: int = 100) -> Taped:
    draw = random.Random(seed)
    tick = Tick(
        at_s=12.5,
        length_s=1.0,
        candidate=counts(draw, requests // 10),
        active=counts(draw, requests),
    )
    return Taped(
        tick=tick,
        mark=Mark.STEP,
        candidate="green",
        old="blue",
        release="v42",
        phase=Phase.BAKING,
        step=1,
        weight=1_000,
        mode="observe",
        knobs=Knobs(tolerance=0.5, latency=False),
        call=Call.FAIL,
        reason="errors",
        words="errors: candidate 10 of 800 (1.2 %)",
    )


@pytest.mark.parametrize("requests", [0, 1, 10, 1_000])
@pytest.mark.parametrize("seed", range(3))
def test_what_was_written_is_read_again(seed: int, requests: int) -> None:
    each = recorded(seed, requests)
    assert tape.decode(tape.encode(each)) == each
    assert tape.from_plain(json.loads(json.dumps(tape.to_plain(each)))) == each


def test_counts_without_lists_stay_without() -> None:
    tick = Tick(at_s=1.0, length_s=1.0, candidate=Counts(requests=3, errors=1), active=Counts())
    each = replace(recorded(1), tick=tick, release=None)
    assert tape.decode(tape.encode(each)) == each


def test_a_tick_is_small() -> None:
    assert len(tape.encode(recorded(1, 0))) < 300
    assert len(tape.encode(recorded(1, 1_000))) < 1_500


def test_what_is_kept_of_a_tick_says_where_the_rollout_stood() -> None:
    rollout = Rollout(
        id=7,
        old="blue",
        candidate="green",
        release="v42",
        plan=Plan(steps=(Step(weight=500), Step(weight=10_000))),
        phase=Phase.BAKING,
    )
    tick = Tick(at_s=1.0, length_s=1.0, candidate=Counts(requests=5), active=Counts())
    for call, words in ((Call.HOLD, ""), (Call.FAIL, "5 of 5")):
        verdict = Verdict(call=call, reason="errors", words="5 of 5")
        each = tape.taped(
            rollout, tick, verdict, mark=Mark.ANEW, mode="off", knobs=Knobs(tolerance=0.4)
        )
        assert (each.candidate, each.old, each.release) == ("green", "blue", "v42")
        assert (each.phase, each.step, each.weight) == (Phase.BAKING, 0, 500)
        assert (each.mark, each.mode, each.knobs.tolerance) == (Mark.ANEW, "off", 0.4)
        assert (each.tick, each.call, each.reason) == (tick, call, "errors")
        assert each.words == words, "those of the others can be had again"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        zlib.compress(b"nonsense"),
        zlib.compress(b"[]"),
        zlib.compress(b'{"format":1}'),
        zlib.compress(b'{"format":99}'),
        zlib.compress(b" " * (tape.MOST_PLAIN + 1)),
        tape.encode(recorded(1))[:-8],
    ],
)
def test_what_is_no_tick_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a recorded tick|Expecting"):
        tape.decode(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("phase", "dancing"),
        ("call", None),
        ("counts", [{}]),
        ("counts", [{"sums": [1, 2, 3], "latencies": [500, 1]}] * 2),
        ("counts", [{"sums": [1, 2, 3], "latencies": [1]}] * 2),
        ("at_s", "soon"),
        ("knobs", None),
    ],
)
def test_a_tick_with_a_part_that_makes_no_sense_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        tape.from_plain(tape.to_plain(recorded(1)) | {key: value})


def test_knobs_of_a_later_version_are_passed_over() -> None:
    plain = tape.to_plain(recorded(1))
    plain["knobs"] = plain["knobs"] | {"patience": 3}
    assert tape.from_plain(plain).knobs == recorded(1).knobs
