from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.health import Health, Outcome, Thresholds, Verdict, checked

PASS = Outcome(is_pass=True, asks_to_drain=False)
FAIL = Outcome(is_pass=False, asks_to_drain=False)
NO_ANSWER = Outcome(is_pass=False)
ASKS = Outcome(is_pass=True, asks_to_drain=True)
FAILS_AND_ASKS = Outcome(is_pass=False, asks_to_drain=True)
WORDS = {"p": PASS, "f": FAIL, "-": NO_ANSWER, "d": ASKS, "x": FAILS_AND_ASKS}

LIMITS = Thresholds(rise=2, fall=3)

outcomes = st.sampled_from(sorted(WORDS))


def after(history: str, verdict: Verdict = "unchecked", limits: Thresholds = LIMITS) -> Health:
    health = Health(verdict=verdict)
    for letter in history:
        health = checked(health, WORDS[letter], limits)
    return health


@pytest.mark.parametrize(
    ("verdict", "history", "then"),
    [
        ("unchecked", "", "unchecked"),
        ("unchecked", "p", "up"),
        ("unchecked", "ffff--", "unchecked"),
        ("unchecked", "ffffp", "up"),
        ("up", "ff", "up"),
        ("up", "ffpff", "up"),
        ("up", "fff", "down"),
        ("up", "f-f", "down"),
        ("down", "p", "down"),
        ("down", "pfp", "down"),
        ("down", "pp", "up"),
    ],
)
def test_a_verdict_changes_by_results_in_a_row(
    verdict: Verdict, history: str, then: Verdict
) -> None:
    assert after(history, verdict).verdict == then


@pytest.mark.parametrize(
    ("verdict", "history", "then", "asks"),
    [
        ("up", "d", "up", True),
        ("up", "dp", "up", False),
        ("up", "df", "up", False),
        ("up", "xxxxxx", "up", True),
        ("up", "xxxp", "up", False),
        ("up", "fx", "up", True),
        ("up", "fxff", "down", False),
        ("up", "x--", "up", True),  # no answer tells nothing of what it asks
        ("up", "x---", "down", True),
        ("unchecked", "x", "unchecked", True),
        ("unchecked", "d", "up", True),
        ("down", "dd", "up", True),
        ("down", "xx", "down", True),
    ],
)
def test_asking_to_be_drained_is_a_fact_of_its_own(
    verdict: Verdict, history: str, then: Verdict, *, asks: bool
) -> None:
    now = after(history, verdict)
    assert (now.verdict, now.asks_to_drain) == (then, asks)


@given(history=st.text(alphabet=outcomes, max_size=40), rise=st.integers(1, 5))
def test_nothing_but_a_pass_ever_brings_an_endpoint_up(history: str, rise: int) -> None:
    has_passed = bool({"p", "d"} & set(history))
    assert (after(history, limits=Thresholds(rise=rise, fall=3)).verdict != "unchecked") == (
        has_passed
    )


@given(history=st.text(alphabet=outcomes, max_size=40), fall=st.integers(1, 5))
def test_an_endpoint_goes_down_only_after_as_many_failures_as_were_asked_for(
    history: str, fall: int
) -> None:
    limits = Thresholds(rise=1, fall=fall)
    failures, health = 0, Health(verdict="up")
    for letter in history:
        before, health = health, checked(health, WORDS[letter], limits)
        if letter in "pd":
            failures = 0
        elif letter in "f-":
            failures += 1
        if before.verdict == "up":
            assert (health.verdict == "down") == (failures >= fall)
        assert health.against < max(limits.rise, limits.fall)


@given(history=st.text(alphabet=outcomes, max_size=40))
def test_the_last_answer_says_whether_a_drain_is_asked_for(history: str) -> None:
    answers = [letter for letter in history if letter != "-"]
    assert after(history).asks_to_drain == bool(answers and answers[-1] in "dx")
