"""replay: a rollout out of a real store, judged again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.control.decision import Decision
from proxy.control.guard import tape
from proxy.control.guard.tape import Mark, Taped
from proxy.control.guard.ticks import Row
from proxy.control.rollout.machine import Phase
from proxy.control.store import Store, Write
from proxy.policy.judge import Call, Counts, Judge, Knobs, Sides, Tick

Turnout = Callable[..., Any]
BEGAN = 1_700_000_000.0


def recorded(rollout: int, *, errors_every: int, mode: str = "enforce") -> list[Row]:
    """Half a minute at 5 %, then at 50 % with errors on the candidate every so many seconds."""
    judge, rows = Judge(sides=Sides(candidate="green", active="blue")), []
    for second in range(1, 121):
        step = int(second > 30)
        mark = Mark.STEP if second in {1, 31} else Mark.NONE
        if mark is Mark.STEP:
            judge.step()
        errors = int(bool(step) and second % errors_every == 0)
        tick = Tick(
            at_s=float(second),
            length_s=1.0,
            candidate=Counts(requests=20, errors=errors),
            active=Counts(requests=180),
        )
        verdict = judge.observe(tick)
        taped = Taped(
            tick=tick,
            mark=mark,
            candidate="green",
            old="blue",
            release="v42",
            phase=Phase.BAKING,
            step=step,
            weight=(500, 5_000)[step],
            mode=mode,
            knobs=Knobs(),
            call=verdict.call,
            reason=verdict.reason,
            words=verdict.words if verdict.call is Call.FAIL else "",
        )
        at = BEGAN + second
        rows.append(Row(service="shop", rollout=rollout, at=at, data=tape.encode(taped)))
    return rows


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Rollout 1 was healthy, rollout 2 was turned back."""

    async def fill() -> Path:
        made = Store(tmp_path / "state")
        await made.open()
        await made.write_ticks(recorded(1, errors_every=1_000))
        await made.write_ticks(recorded(2, errors_every=2))
        back = Decision(
            what="rollout",
            who="guard",
            service="shop",
            after={"phase": "rolled_back"},
            why="errors: too many",
            numbers={"rollout": 2},
        )
        await made.write(Write(revision=1, decisions=[back.record(at=BEGAN + 60, revision=1)]))
        await made.close()
        return made.path

    return str(asyncio.run(fill()))


def test_the_last_rollout_is_judged_again_and_told_in_words(turnout: Turnout, store: str) -> None:
    ran = turnout("replay", "--service", "shop", store)
    assert (ran.code, ran.err) == (0, "")
    head, would, truth, last, *table = ran.out.splitlines()
    assert head == "rollout 2 of shop to green (v42): 2m recorded."
    assert would.startswith("would have rolled back ")
    assert " after the start of step 2 (50 %), at " in would
    assert ": errors: green " in would
    assert truth.removeprefix("in truth the judge said FAIL ") == would.removeprefix(
        "would have rolled back "
    )
    assert last.startswith("its last record: rolled back at ")
    assert last.endswith(": errors: too many")
    assert table[0].split() == ["test", "highest", "evidence", "bar", "after"]
    assert [line.split()[0] for line in table[1:]] == ["errors", "latency", "4xx"]


def test_another_rollout_and_other_knobs_are_taken_where_they_are_given(
    turnout: Turnout, store: str
) -> None:
    ran = turnout("replay", "--service", "shop", "--rollout", "1", store)
    assert "rollout 1 of shop" in ran.out
    assert "would not have rolled back." in ran.out
    assert "in truth the judge never said FAIL." in ran.out
    ran = turnout("replay", "--service", "shop", "--tolerance-abs", "10%", store)
    assert "would not have rolled back." in ran.out
    assert "in truth the judge said FAIL " in ran.out


def test_scripts_get_the_same_as_json(turnout: Turnout, store: str) -> None:
    given = ("--false-alarm", "0.1%", "--tolerance", "30%", "--latency", "off", "--warmup", "5s")
    more = ("--latency-floor", "9ms", "--latency-tolerance", "40%", "--hard-rate", "60%")
    last = ("--min-requests", "50", "--count-4xx", "false", "--output", "json")
    ran = turnout("replay", "--service", "shop", *given, *more, *last, store)
    assert ran.code == 0
    plain = json.loads(ran.out)
    assert plain["knobs"] == {
        "false_alarm": 0.001,
        "tolerance": 0.3,
        "tolerance_abs": 0.0005,
        "latency": False,
        "latency_tolerance": 0.4,
        "latency_floor_s": 0.009,
        "hard_rate": 0.6,
        "min_requests": 50,
        "warmup_s": 5.0,
        "count_4xx": False,
    }
    (would,), (really,) = plain["would"], plain["really"]
    assert would["at_s"] > really["at_s"], "a tenth of the false alarms needs more evidence"
    assert (would["step"], would["weight"], would["phase"]) == (2, 50.0, "baking")
    assert would["since_step_s"] == would["at_s"] - 30
    assert [test["name"] for test in plain["tests"]] == ["errors"]
    assert (plain["ticks"], plain["recorded_s"]) == (120, 120.0)
    assert sum(plain["verdicts"].values()) == would["at_s"]
    assert [each["to"]["phase"] for each in plain["decisions"]] == ["rolled_back"]


def test_the_settings_of_a_configuration_are_taken_and_options_stand_above_them(
    turnout: Turnout, store: str, tmp_path: Path
) -> None:
    (tmp_path / "turnout.yaml").write_text(
        """\
listeners: [{bind: "127.0.0.1:8080"}]
services:
  shop:
    routes: [{path: /}]
    pools: {blue: {endpoints: ["127.0.0.1:9001"]}, green: {endpoints: ["127.0.0.1:9101"]}}
    active: blue
    guard: {tolerance_abs: 10%, min_requests: 70}
"""
    )
    config = ("--config", "turnout.yaml", "--output", "json")
    plain = json.loads(turnout("replay", "--service", "shop", *config, store).out)
    assert plain["would"] == []
    assert (plain["knobs"]["tolerance_abs"], plain["knobs"]["min_requests"]) == (0.1, 70)
    over = ("--tolerance-abs", "0.05%")
    plain = json.loads(turnout("replay", "--service", "shop", *config, *over, store).out)
    assert len(plain["would"]) == 1
    ran = turnout("replay", "--service", "web", "--config", "turnout.yaml", store)
    assert (ran.code, ran.out) == (2, "")


def test_an_export_is_judged_as_the_store_is(turnout: Turnout, store: str) -> None:
    ran = turnout("replay", "--service", "shop", "--export", "out.jsonl", store)
    assert (ran.code, ran.out) == (0, "241 lines in out.jsonl.\n")
    from_store = turnout("replay", "--service", "shop", "--output", "json", store).out
    assert turnout("replay", "--service", "shop", "--output", "json", "out.jsonl").out == from_store
    again = turnout("replay", "--service", "shop", "--export", "out.jsonl", store)
    assert (again.code, "File exists" in again.err) == (2, True)
    ran = turnout("replay", "--service", "shop", "--rollout", "1", "--export", "one.jsonl", store)
    assert ran.out == "120 lines in one.jsonl.\n"


def test_what_was_only_observed_says_so(turnout: Turnout, tmp_path: Path) -> None:
    async def fill() -> None:
        made = Store(tmp_path / "state")
        await made.open()
        await made.write_ticks(recorded(1, errors_every=2, mode="observe"))
        await made.close()

    asyncio.run(fill())
    ran = turnout("replay", "--service", "shop", "state/turnout.db")
    assert "in truth the judge said FAIL (and was not obeyed: observe) " in ran.out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--tolerance", "20"), '--tolerance is "20" (expected a share'),
        (("--false-alarm", "0%"), "--false-alarm is 0"),
        (("--warmup", "soon"), "--warmup is"),
        (("--rollout", "9"), "no rollout 9 of shop (it has 1, 2)"),
        (("--config", "nowhere.yaml"), "nowhere.yaml is not valid"),
    ],
)
def test_what_makes_no_sense_is_exit_code_2_and_a_sentence(
    turnout: Turnout, store: str, options: tuple[str, str], says: str
) -> None:
    ran = turnout("replay", "--service", "shop", *options, store)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err


def test_a_file_that_is_no_recording_is_exit_code_2(turnout: Turnout, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    for name, says in (("notes.txt", "is no recording"), ("gone.db", "No such file")):
        ran = turnout("replay", "--service", "shop", name)
        assert ran.code == 2
        assert says in ran.err
