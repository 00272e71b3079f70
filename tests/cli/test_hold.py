"""hold and release: what they send, and what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Build = Callable[..., Any]


@pytest.fixture
def hold_view() -> Build:
    def view(**more: Any) -> dict[str, Any]:
        return {
            "since": "2026-05-04T10:00:00.000Z",
            "by": "cli:ann@box",
            "reason": "",
            "until": None,
            "timeout_s": 30.0,
            "most": 1000,
            "held": 0,
            "held_bytes": 0,
            "releasing": False,
            "over_s": 0.0,
            "release_left_s": 0.0,
            **more,
        }

    return view


def test_a_hold_says_what_happens_to_requests_and_how_it_ends(
    admin: Any, turnout: Build, service_view: Build, hold_view: Build
) -> None:
    admin.set("POST /v1/services/shop/hold", 200, service_view(hold=hold_view()))
    ran = turnout("hold", "shop", "--reason", "database switch-over")
    assert ran.code == 0
    assert ran.out == (
        "shop: on hold; new requests wait (at most 1 000, 30s each), then get 503."
        " 'turnout release shop' lets them go.\n"
    )
    assert admin.calls[-1].body == {
        "timeout": "30s",
        "most": 1000,
        "reason": "database switch-over",
    }


def test_the_bounds_and_the_end_of_a_hold_are_passed_on(
    admin: Any, turnout: Build, service_view: Build, hold_view: Build
) -> None:
    held = hold_view(timeout_s=90.0, most=50)
    admin.set("POST /v1/services/shop/hold", 200, service_view(hold=held))
    ran = turnout("hold", "shop", "--timeout", "90s", "--most", "50", "--ttl", "10m")
    assert "(at most 50, 1m30s each)" in ran.out
    assert ran.out.endswith("By itself after 10m.\n")
    body = admin.calls[-1].body
    assert (body["timeout"], body["most"], body["ttl"]) == ("90s", 50, "10m")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (57, "57 requests are let go over 5s."),
        (1, "1 request is let go over 5s."),
        (0, "nothing is waiting."),
    ],
)
def test_a_release_says_how_many_are_let_go(
    admin: Any, turnout: Build, service_view: Build, hold_view: Build, *, held: int, said: str
) -> None:
    view = hold_view(held=held, releasing=True, over_s=5.0) if held else None
    admin.set("POST /v1/services/shop/release", 200, service_view(hold=view))
    ran = turnout("release", "shop")
    assert (ran.code, ran.out) == (0, f"shop: no longer on hold; {said}\n")
    assert admin.calls[-1].body == {"over": "5s", "reason": ""}


def test_what_is_not_held_is_refused_with_exit_1(
    admin: Any, turnout: Build, refusal: Build
) -> None:
    why = "shop is not on hold; nothing waits to be released"
    admin.set("POST /v1/services/shop/release", 409, refusal(409, why))
    ran = turnout("release", "shop", "--over", "0s")
    assert (ran.code, ran.err) == (1, f"turnout: {why}\n")


@pytest.mark.parametrize(
    "argv",
    [
        ("hold", "shop", "--timeout", "30"),
        ("hold", "shop", "--ttl", "soon"),
        ("hold", "shop", "--most", "many"),
        ("hold",),
        ("release", "shop", "--over", "fast"),
    ],
)
def test_wrong_usage_exits_2_and_asks_nobody(
    admin: Any, turnout: Build, argv: tuple[str, ...]
) -> None:
    assert turnout(*argv).code == 2
    assert admin.calls == []


def test_json_is_the_answer_as_it_came(
    admin: Any, turnout: Build, service_view: Build, hold_view: Build
) -> None:
    view = service_view(hold=hold_view())
    admin.set("POST /v1/services/shop/hold", 200, view)
    assert json.loads(turnout("hold", "shop", "--output", "json").out) == view


def test_the_status_shows_a_hold_where_nobody_overlooks_it(
    admin: Any, turnout: Build, status_view: Build, service_view: Build, hold_view: Build
) -> None:
    held = hold_view(held=57, reason="migration")
    admin.set("GET /v1/status", 200, status_view(services=[service_view(hold=held)]))
    lines = turnout("status").out.splitlines()
    assert "shop  ON HOLD  active blue" in lines
    note = next(line for line in lines if line.startswith("  ! "))
    assert note.startswith("  ! on hold by cli:ann@box ")
    assert note.endswith(": migration; 57 requests wait (at most 1 000, 30s each)")
    releasing = hold_view(held=1, releasing=True, release_left_s=2.4)
    admin.set("GET /v1/status", 200, status_view(services=[service_view(hold=releasing)]))
    lines = turnout("status").out.splitlines()
    assert "shop  RELEASING  active blue" in lines
    assert "  ! being released: 1 request waits for a turn, 2s left" in lines
