"""The mutator: finds what is there, shortens it, and does the same again with the same seed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import pytest

from tests.fuzz import engine


class Planted:
    """Fails where two marks stand in an input, which no seed has."""

    A_WHILE = 100

    def __init__(self) -> None:
        self.TOKENS: Sequence[bytes] = (b"\r\n", b"<a>", b"<b>")
        self.asked: list[bytes] = []

    def seeds(self) -> list[bytes]:
        return [b"one line\r\nand another\r\n", b""]

    def run(self, data: bytes) -> Hashable:
        self.asked.append(data)
        assert b"<a>" not in data or b"<b>" not in data, "both are there"
        return b"<a>" in data, b"<b>" in data, data.count(b"\r\n")


def test_a_failure_two_steps_away_is_found_and_shortened_to_what_makes_it() -> None:
    with pytest.raises(engine.Finding) as caught:
        engine.Mutator(Planted(), 1).run(executions=20_000)
    assert caught.value.data in {b"<a><b>", b"<b><a>"}
    assert "both are there" in str(caught.value)
    assert repr(caught.value.data) in str(caught.value)


def test_the_same_seed_gives_the_same_inputs_and_another_one_others() -> None:
    asked = []
    for seed in (7, 7, 8):
        target = Planted()
        target.TOKENS = (b"\r\n", b"<a>")
        engine.Mutator(target, seed).run(executions=50)
        asked.append(target.asked)
    assert asked[0] == asked[1] != asked[2]


def test_an_input_that_fails_elsewhere_is_not_what_a_finding_is_shortened_to() -> None:
    def run(data: bytes) -> None:
        if not data:
            raise ValueError("nothing")
        if b"x" in data:
            raise ValueError("x")

    with pytest.raises(ValueError, match="x") as caught:
        run(b"aaxaa")
    assert engine.shortened(run, b"aaxaa", caught.value) == b"x"


def test_every_target_has_seeds_words_and_its_part_of_a_minute() -> None:
    assert len(engine.names()) > 5
    for name in engine.names():
        target = engine.load(name)
        assert len(target.seeds()) > 3, name
        assert len(target.TOKENS) > 3, name
        assert target.A_WHILE > 1000, name
