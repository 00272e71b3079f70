"""The guards: seconds for what is plainly broken, silence for what breaks on both sides."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.policy.judge.guards import Guards, Window, is_clearly_better


def _feed(guards: Guards, seconds: Sequence[tuple[int, int, int, int]]) -> tuple[int, str] | None:
    """Requests and errors of the candidate, and of the active pool, second by second."""
    for second, counts in enumerate(seconds, 1):
        row = (float(second), *(float(each) for each in counts))
        broken = guards.look(row, length_s=1.0, requests=counts[0], errors=counts[1])  # type: ignore[arg-type]
        if broken:
            return second, broken[0]
    return None


def test_eight_failures_in_a_row_turn_back_whatever_the_rate() -> None:
    assert _feed(Guards(0.3, 40), [(2, 2, 40, 0)] * 10) == (4, "guard: down")


def test_one_success_breaks_the_run() -> None:
    seconds = [(2, 2, 40, 0)] * 3 + [(2, 1, 40, 0)] + [(2, 2, 40, 0)] * 3
    assert _feed(Guards(0.3, 40), seconds) is None


def test_a_candidate_that_is_down_with_everything_else_is_not_turned_back() -> None:
    assert _feed(Guards(0.3, 40), [(5, 5, 95, 95)] * 60) is None


def test_half_of_the_answers_being_errors_turns_back_as_soon_as_there_are_enough() -> None:
    assert _feed(Guards(0.3, 40), [(20, 10, 380, 0)] * 10) == (2, "guard: rate")


def test_an_outage_of_both_pools_trips_nothing() -> None:
    assert _feed(Guards(0.3, 40), [(20, 8, 380, 120)] * 60) is None


def test_without_any_traffic_of_the_other_pool_it_is_absolute() -> None:
    assert _feed(Guards(0.3, 40), [(100, 40, 0, 0)] * 5) == (1, "guard: rate")


def test_a_little_traffic_of_the_other_pool_cannot_prove_much() -> None:
    assert not is_clearly_better((100, 40, 3, 1), is_longest=True)
    assert not is_clearly_better((100, 40, 5, 0), is_longest=True)
    assert is_clearly_better((100, 40, 12, 0), is_longest=True)


def test_a_baseline_far_above_its_long_run_is_degraded_until_it_is_the_new_normal() -> None:
    guards = Guards(0.3, 40)
    _feed(guards, [(5, 0, 95, 0)] * 200)
    assert guards.degraded_s == 0
    for second in range(201, 231):
        guards.look((float(second), 5, 1, 95, 30), length_s=1.0, requests=5, errors=1)
    assert guards.degraded_s > 20
    assert "in the last minute" in guards.degraded_in_words()


def test_a_window_forgets_what_is_too_old() -> None:
    window = Window(10.0)
    for second in range(1, 31):
        window.add((float(second), 2.0, 1.0, 4.0, 0.0))
    assert window.sums == [20.0, 10.0, 40.0, 0.0]


def test_saved_and_loaded_they_go_on_the_same() -> None:
    one, two = Guards(0.3, 40), Guards(0.3, 40)
    _feed(one, [(2, 2, 40, 0)] * 3)
    two.load(one.save())
    for guards in (one, two):
        broken = guards.look((4.0, 2.0, 2.0, 40.0, 0.0), length_s=1.0, requests=2, errors=2)
        assert broken is not None
        assert broken[0] == "guard: down"
