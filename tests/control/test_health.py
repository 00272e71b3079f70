from __future__ import annotations

import pytest

from proxy.clock import ManualClock
from proxy.control.health import Checked, HealthBook, Key, from_plain, to_plain
from proxy.control.prober import CheckSettings, Result
from proxy.control.slots import SlotBook
from proxy.policy.health import Health, Outcome, Thresholds
from proxy.stats import (
    ASKS_TO_DRAIN,
    B_SINCE_MS,
    B_VERSION,
    DOWN,
    EJECTED,
    UNCHECKED,
    Board,
    SlotTable,
)

ONE: Key = ("shop", "blue", "127.0.0.1:9001")
TWO: Key = ("shop", "blue", "127.0.0.1:9002")
SETTINGS = CheckSettings(limits=Thresholds(rise=1, fall=2))

PASS = Result(outcome=Outcome(is_pass=True, asks_to_drain=False), words="200 in 1 ms")
FAIL = Result(outcome=Outcome(is_pass=False, asks_to_drain=False), words="503 in 1 ms")
ASKS = Result(outcome=Outcome(is_pass=False, asks_to_drain=True), words="503 in 1 ms")


class Desk:
    """A book with its board and clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.board = Board(memoryview(bytearray(8 * 1000)).cast("q"), 1)
        self.slots = SlotBook(SlotTable())
        self.book = self.another()

    def another(self) -> HealthBook:
        return HealthBook(self.board, self.slots, self.clock)

    def bits(self, key: Key) -> int:
        return self.board.state(self.slots.endpoint(*key))

    def since_ms(self, key: Key) -> int:
        return int(self.board.words[self.slots.endpoint(*key) + B_SINCE_MS])

    @property
    def version(self) -> int:
        return int(self.board.words[B_VERSION])

    def note(self, key: Key, *results: Result) -> None:
        for result in results:
            self.book.note(key, result)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_new_endpoint_is_marked_before_anybody_hears_of_it(desk: Desk) -> None:
    desk.book.follow({ONE: SETTINGS, TWO: None})
    assert (desk.bits(ONE), desk.bits(TWO)) == (UNCHECKED, 0)
    assert desk.book[ONE].words is None
    assert desk.book.get(TWO) is None


def test_the_workers_are_told_of_every_change_and_of_nothing_else(desk: Desk) -> None:
    desk.book.follow({ONE: SETTINGS})
    told = desk.version
    desk.note(ONE, PASS)
    assert (desk.bits(ONE), desk.version) == (0, told + 1)
    desk.note(ONE, PASS, FAIL)
    assert (desk.bits(ONE), desk.version) == (0, told + 1)
    desk.note(ONE, FAIL)
    assert (desk.bits(ONE), desk.version) == (DOWN, told + 2)
    desk.note(ONE, ASKS)
    assert (desk.bits(ONE), desk.version) == (DOWN | ASKS_TO_DRAIN, told + 3)
    desk.note(ONE, PASS)
    assert (desk.bits(ONE), desk.version) == (0, told + 4)


def test_marks_of_others_are_left_alone(desk: Desk) -> None:
    desk.book.follow({ONE: SETTINGS})
    desk.board.mark(desk.slots.endpoint(*ONE), EJECTED, on=True)
    desk.note(ONE, PASS, FAIL, FAIL)
    assert desk.bits(ONE) == DOWN | EJECTED
    desk.book.follow({})
    assert desk.bits(ONE) == EJECTED


def test_what_is_kept_keeps_its_state_whatever_else_is_listed(desk: Desk) -> None:
    desk.book.follow({ONE: SETTINGS})
    desk.note(ONE, PASS, FAIL, FAIL)
    desk.book.follow({ONE: SETTINGS, TWO: SETTINGS})
    assert (desk.bits(ONE), desk.bits(TWO)) == (DOWN, UNCHECKED)


def test_who_has_served_without_checks_is_up_until_proven_down(desk: Desk) -> None:
    desk.book.follow({ONE: None})
    desk.book.follow({ONE: SETTINGS, TWO: SETTINGS})
    assert (desk.bits(ONE), desk.bits(TWO)) == (0, UNCHECKED)
    desk.note(ONE, FAIL, FAIL)
    assert desk.bits(ONE) == DOWN


def test_without_checks_no_mark_is_left(desk: Desk) -> None:
    desk.book.follow({ONE: SETTINGS, TWO: SETTINGS})
    desk.note(TWO, PASS, FAIL, FAIL)
    desk.book.follow({ONE: None, TWO: None})
    assert (desk.bits(ONE), desk.bits(TWO)) == (0, 0)
    assert desk.book.get(TWO) is None


def test_who_leaves_and_returns_is_new(desk: Desk) -> None:
    desk.book.follow({ONE: SETTINGS})
    desk.note(ONE, PASS)
    desk.book.follow({})
    desk.note(ONE, PASS)  # a check that was under way
    assert desk.book.get(ONE) is None
    desk.book.follow({ONE: SETTINGS})
    assert desk.bits(ONE) == UNCHECKED


def test_answers_to_other_questions_are_not_counted_together(desk: Desk) -> None:
    desk.book.follow({ONE: SETTINGS})
    desk.note(ONE, PASS, FAIL)
    desk.book.follow({ONE: CheckSettings(path="/other", limits=SETTINGS.limits)})
    desk.note(ONE, FAIL)
    assert desk.bits(ONE) == 0
    desk.note(ONE, FAIL)
    assert desk.bits(ONE) == DOWN


def test_only_who_comes_up_later_has_a_time_since_when(desk: Desk) -> None:
    desk.book.follow({ONE: SETTINGS, TWO: SETTINGS})
    desk.note(ONE, PASS)
    assert desk.since_ms(ONE) == 0  # it has been up all along, as far as we know
    desk.book.is_starting = False
    desk.clock.advance(5)
    desk.note(TWO, PASS)
    assert desk.since_ms(TWO) == desk.clock.monotonic() * 1000
    desk.clock.advance(5)
    desk.note(ONE, FAIL, FAIL, PASS)
    assert desk.since_ms(ONE) == desk.clock.monotonic() * 1000


def test_how_long_a_verdict_has_held_is_known(desk: Desk) -> None:
    desk.book.follow({ONE: SETTINGS})
    desk.clock.advance(5)
    desk.note(ONE, PASS)
    came_up = desk.clock.wall()
    desk.clock.advance(5)
    desk.note(ONE, FAIL)
    known = desk.book[ONE]
    assert (known.since, known.at, known.words) == (came_up, came_up + 5, "503 in 1 ms")


def test_checks_are_counted_by_result_also_of_those_who_left(desk: Desk) -> None:
    desk.book.follow({ONE: SETTINGS, TWO: SETTINGS})
    desk.note(ONE, PASS, FAIL)
    desk.note(TWO, PASS)
    desk.book.follow({})
    assert desk.book.counts == {("shop", "blue"): [2, 1]}


def test_only_changes_are_for_the_store(desk: Desk) -> None:
    desk.book.follow({ONE: SETTINGS})
    assert set(desk.book.take_unsaved()) == {"shop"}
    desk.note(ONE, PASS)
    assert desk.book.has_unsaved
    taken = desk.book.take_unsaved()["shop"]
    assert taken is not None
    assert taken[ONE].health.verdict == "up"
    desk.note(ONE, PASS, FAIL, PASS)
    assert not desk.book.has_unsaved
    desk.book.not_saved(iter(["shop"]))
    assert desk.book.has_unsaved
    desk.book.follow({})
    assert desk.book.take_unsaved() == {"shop": None}


def test_a_restart_goes_on_with_what_was_stored(desk: Desk) -> None:
    desk.book.follow({ONE: SETTINGS, TWO: SETTINGS})
    desk.note(ONE, PASS, FAIL, FAIL)
    stored = desk.book.take_unsaved()["shop"]
    assert stored is not None
    plain = to_plain(stored)
    desk.book = desk.another()
    desk.book.remember({"shop": from_plain("shop", plain), "gone": {}})
    desk.book.follow({ONE: SETTINGS, TWO: SETTINGS})
    assert (desk.bits(ONE), desk.bits(TWO)) == (DOWN, UNCHECKED)
    assert desk.book[ONE] == stored[ONE]
    assert desk.book.take_unsaved()["gone"] is None
    desk.book.follow({ONE: SETTINGS})
    desk.book.follow({ONE: SETTINGS, TWO: SETTINGS})
    assert desk.bits(TWO) == UNCHECKED


def test_a_verdict_that_nobody_gives_is_not_read() -> None:
    known = {ONE: Checked(health=Health(verdict="up"), since=1.0)}
    (plain,) = to_plain(known)
    with pytest.raises(ValueError, match="sideways"):
        from_plain("shop", [plain | {"verdict": "sideways"}])
