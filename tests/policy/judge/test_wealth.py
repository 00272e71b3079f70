"""Wealth: no money out of nothing, quick on what lasts, and a memory that forgets slowly."""

from __future__ import annotations

from math import exp, log

import pytest

from proxy.policy.judge.wealth import TwoSpeeds, Wealth


def test_fair_bets_neither_win_nor_lose() -> None:
    wealth = Wealth(3)
    for _ in range(50):
        wealth.bet([0.0, 0.0, 0.0], 1.0)
    assert wealth.log == pytest.approx(0.0)


def test_half_of_it_is_cash_so_one_lost_bet_costs_half_at_most() -> None:
    wealth = Wealth(2)
    wealth.bet([-1000.0, -1000.0], 1.0)
    assert wealth.log == pytest.approx(log(0.5))


def test_the_mean_over_a_fair_coin_is_what_it_was() -> None:
    before = Wealth(2)
    before.bet([0.4, -0.3], 5.0)
    outcomes = []
    for evidence in ([log(1.5), log(1.9)], [log(0.5), log(0.1)]):
        after = Wealth(2)
        after.load(before.save())
        after.bet(evidence, 5.0)
        outcomes.append(exp(after.log))
    assert sum(outcomes) / 2 == pytest.approx(exp(before.log))


def test_no_single_block_adds_more_than_the_cap() -> None:
    wealth = Wealth(1, cap=1.5)
    wealth.bet([50.0], 1.0)
    assert wealth.log == pytest.approx(log(0.5 + 0.5 * exp(1.5)))


def test_a_restart_puts_money_back_on_what_had_lost_it() -> None:
    tired, fresh = Wealth(1), Wealth(1)
    for wealth in (tired, fresh):
        for _ in range(100):
            wealth.bet([-2.0], 0.01)
    fresh.restart()
    gains = []
    for wealth in (tired, fresh):
        before = wealth.log
        wealth.bet([3.0], 0.01)
        gains.append(wealth.log - before)
    assert gains[1] > gains[0]


def test_two_speeds_are_worth_their_mean() -> None:
    both = TwoSpeeds(Wealth(1), Wealth(1))
    both.fast.bet([4.0], 1.0)
    assert exp(both.log) == pytest.approx((exp(both.fast.log) + 1.0) / 2)


def test_saved_and_loaded_it_goes_on_the_same() -> None:
    one, two = Wealth(2), Wealth(2)
    one.bet([0.5, -0.5], 3.0)
    two.load(one.save())
    for wealth in (one, two):
        wealth.bet([0.2, 0.7], 2.0)
    assert one.save() == two.save()


def test_another_number_of_alternatives_is_refused() -> None:
    with pytest.raises(ValueError, match="another number"):
        Wealth(3).load(Wealth(2).save())
