"""Heartbeats: who stands still is found by looks, and nobody is blamed for a machine that slept."""

from __future__ import annotations

from proxy.process.heartbeat import PATIENCE, PATIENCE_AT_START, Heartbeats


def test_who_beats_is_never_stuck() -> None:
    hearts: Heartbeats[str] = Heartbeats()
    assert not any(hearts.look({"a": beat}) for beat in range(1, 100))


def test_who_stands_still_is_stuck_after_so_many_looks() -> None:
    hearts: Heartbeats[str] = Heartbeats()
    looks = [hearts.look({"frozen": 5, "well": beat}) for beat in range(1, PATIENCE + 2)]
    assert looks == [[]] * PATIENCE + [["frozen"]]


def test_a_beat_in_time_starts_the_count_anew() -> None:
    hearts: Heartbeats[str] = Heartbeats()
    for beat in (1, 2, 3):
        assert not any(hearts.look({"slow": beat}) for _ in range(PATIENCE))


def test_however_old_a_beat_is_one_look_is_not_enough() -> None:
    hearts: Heartbeats[str] = Heartbeats()
    assert hearts.look({"a": 1}) == []
    assert hearts.look({"a": 1}) == []


def test_a_start_takes_longer() -> None:
    hearts: Heartbeats[str] = Heartbeats()
    looks = [hearts.look({"a": 0}) for _ in range(PATIENCE_AT_START + 1)]
    assert looks == [[]] * PATIENCE_AT_START + [["a"]]


def test_who_has_died_is_forgotten() -> None:
    hearts: Heartbeats[str] = Heartbeats()
    for _ in range(PATIENCE):
        hearts.look({"a": 1})
    hearts.look({})
    assert hearts.look({"a": 1}) == []
