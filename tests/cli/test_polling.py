"""Polling: a proxy that is away for a moment is waited for, one that is gone is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from proxy.cli.address import parse_address
from proxy.cli.client import AdminClient
from proxy.cli.exits import CommandError, ExitCode
from proxy.cli.polling import PATIENCE_S, Poll

Build = Callable[..., Any]
PATH = "/v1/services/shop"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def poll_of(url: str, clock: Clock) -> Poll:
    return Poll(AdminClient(parse_address(url), None), clock)


def test_who_is_away_for_a_moment_is_waited_for(admin: Any, refusal: Build, clock: Clock) -> None:
    poll = poll_of(admin.url, clock)
    admin.then(f"GET {PATH}", 503, refusal(503, "starting"))
    admin.then(f"GET {PATH}", 200, {"name": "shop"})
    assert (poll.ask(PATH), poll.trouble) == (None, "starting")
    answer = poll.ask(PATH)
    assert answer is not None
    assert (answer.value, poll.trouble) == ({"name": "shop"}, "")


def test_patience_ends_and_begins_anew_with_each_answer(
    admin: Any, refusal: Build, clock: Clock
) -> None:
    poll = poll_of(admin.url, clock)
    for _ in range(3):
        admin.set(f"GET {PATH}", 503, refusal(503, "starting"))
        assert poll.ask(PATH) is None
        clock.now += PATIENCE_S - 0.1
        assert poll.ask(PATH) is None
        admin.set(f"GET {PATH}", 200, {})
        assert poll.ask(PATH) is not None


def test_who_is_not_reachable_for_long_is_exit_6(clock: Clock) -> None:
    poll = poll_of("http://127.0.0.1:1", clock)
    assert poll.ask(PATH) is None
    assert "does not answer" in poll.trouble
    clock.now += PATIENCE_S
    with pytest.raises(CommandError) as raised:
        poll.ask(PATH)
    assert raised.value.code is ExitCode.UNREACHABLE


@pytest.mark.parametrize("status", [401, 404])
def test_a_refusal_is_not_waited_for(admin: Any, refusal: Build, clock: Clock, status: int) -> None:
    admin.set(f"GET {PATH}", status, refusal(status, "no"))
    with pytest.raises(CommandError):
        poll_of(admin.url, clock).ask(PATH)
