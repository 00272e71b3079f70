"""status: one page, for people and for scripts, on a terminal and elsewhere."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.cli.pseudo_terminal import Terminal

Build = Callable[..., Any]


def test_the_page_shows_every_pool_with_what_it_carries(
    admin: Any, turnout: Build, status_view: Build
) -> None:
    admin.set("GET /v1/status", 200, status_view())
    ran = turnout("status")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "Turnout 0.1.0 · up 2h5m · revision 12 · 2 workers",
        "config/turnout.yaml",
        "",
        "shop  active blue",
        "  pool   weight  release  endpoints  in flight  requests",
        "  blue    100 %  v41            2/2         12    10 220",
        "  green     0 %  v42            0/1          1     1 103",
    ]


def test_one_service_is_shown_with_its_endpoints(
    admin: Any, turnout: Build, service_view: Build
) -> None:
    admin.set("GET /v1/services/shop", 200, service_view(90))
    lines = turnout("status", "shop").out.splitlines()
    assert lines[0] == "shop  active blue, candidate green"
    assert lines[-1].split() == [
        *("unix:/run/g.sock", "green", "not", "reachable", "1", "2", "1", "103", "3")
    ]


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        (("expired", -3), "expired 3d ago: renew it"),
        (("expiring", 3), "expires in 2d23h: renew it"),
        (("not_yet_valid", 90), "is not valid before 2020-01-01T00:00:00.000Z"),
    ],
)
def test_a_certificate_that_ends_is_pointed_at(
    admin: Any, turnout: Build, status_view: Build, certificate: tuple[str, int], words: str
) -> None:
    state, days = certificate
    end = datetime.now(UTC) + timedelta(days=days, seconds=-5)
    shown = {
        "listener": "0.0.0.0:443",
        "certificate": "tls/site.crt",
        "not_before": "2020-01-01T00:00:00.000Z",
        "not_after": end.isoformat(),
        "state": state,
    }
    fine = {**shown, "certificate": "tls/fine.crt", "state": "valid"}
    admin.set("GET /v1/status", 200, status_view(certificates=[fine, shown]))
    lines = turnout("status").out.splitlines()
    assert lines[2] == f"! the certificate tls/site.crt of 0.0.0.0:443 {words}"
    assert "fine.crt" not in "".join(lines)


def test_a_failed_reload_stays_visible_with_every_error(
    admin: Any, turnout: Build, status_view: Build
) -> None:
    config = {
        "path": "c.yaml",
        "last_error": "bad",
        "last_errors": ["c.yaml:1:1: a", "c.yaml:2:1: b"],
    }
    admin.set("GET /v1/status", 200, status_view(config=config))
    lines = turnout("status").out.splitlines()
    assert lines[2:5] == [
        "! the last reload failed; the configuration before it still serves:",
        "  c.yaml:1:1: a",
        "  c.yaml:2:1: b",
    ]


def test_a_damaged_state_and_a_missing_worker_are_visible(
    admin: Any, turnout: Build, status_view: Build
) -> None:
    state = {"path": "var", "problem": "turnout.db was damaged and set aside"}
    workers = [{"up": True}, {"up": False}]
    admin.set("GET /v1/status", 200, status_view(state=state, workers=workers, services=[]))
    out = turnout("status").out
    assert "! state: turnout.db was damaged" in out
    assert "1 of 2 workers up" in out
    assert "no services configured" in out


def test_what_differs_from_the_file_says_by_whom_and_since_when(
    admin: Any, turnout: Build, service_view: Build, drain_view: Build
) -> None:
    override = {
        "key": "weights",
        "value": {"blue": 90, "green": 10},
        "file_value": {"blue": 100, "green": 0},
        "who": "cli:ann@host",
        "reason": "canary",
        "at": time.time() - 192.2,
        "until": time.time() + 7000,
    }
    view = service_view(90, overrides=[override], drain=drain_view(2))
    admin.set("GET /v1/services/shop", 200, view)
    out = turnout("status", "shop").out
    assert (
        "weights blue 90 %, green 10 % by cli:ann@host 3m12s ago (file: blue 100 %): canary;"
        " for 1h56m more"
    ) in out
    assert "blue drains: 2 requests, 4m58s left." in out


def test_a_finished_drain_is_no_news(
    admin: Any, turnout: Build, service_view: Build, drain_view: Build
) -> None:
    admin.set("GET /v1/services/shop", 200, service_view(0, drain=drain_view()))
    assert "empty" not in turnout("status", "shop").out


def test_json_is_the_apis_body(admin: Any, turnout: Build, status_view: Build) -> None:
    admin.set("GET /v1/status", 200, status_view())
    assert json.loads(turnout("status", "--output", "json").out) == status_view()


def _on_a_terminal(*argv: str, **environ: str) -> str:
    terminal = Terminal(*argv, **environ)
    shown = terminal.until(None)
    assert terminal.end() == 0
    return shown


def test_a_terminal_gets_colour_and_lines(admin: Any, status_view: Build) -> None:
    admin.set("GET /v1/status", 200, status_view())
    shown = _on_a_terminal("status")
    assert "\x1b[" in shown
    assert "━━━━" in shown
    assert "────" in shown


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colour_gets_no_lines_either(
    admin: Any, status_view: Build, environ: dict[str, str]
) -> None:
    admin.set("GET /v1/status", 200, status_view())
    shown = _on_a_terminal("status", **environ)
    assert "\x1b[" not in shown
    assert "━" not in shown
    assert "─" not in shown
    assert "10 220" in shown


def test_watching_without_a_terminal_prints_page_after_page(admin: Any, status_view: Build) -> None:
    admin.set("GET /v1/status", 200, status_view())
    command = [
        sys.executable,
        "-u",
        "-m",
        "proxy.cli.main",
        "status",
        "--watch",
        "--output",
        "json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pages = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert pages == [status_view(), status_view()]


def test_the_pool_that_was_left_is_not_called_down_while_it_drains(
    admin: Any, turnout: Build, service_view: Build
) -> None:
    view = service_view(0)
    blue = view["pools"]["blue"]
    blue["draining"] = True
    for endpoint in blue["endpoints"]:
        endpoint.update(available=False, draining=True, state="draining")
    admin.set("GET /v1/services/shop", 200, view)
    out = turnout("status", "shop").out
    assert "2/2" in out
    assert re.search(r"127\.0\.0\.1:9001 +blue +draining ", out)


def test_an_ejected_endpoint_is_called_so(admin: Any, turnout: Build, service_view: Build) -> None:
    view = service_view(0)
    view["pools"]["blue"]["endpoints"][0].update(
        available=False, state="ejected", ejected=True, ejected_why="5 failures in a row"
    )
    admin.set("GET /v1/services/shop", 200, view)
    out = turnout("status", "shop").out
    assert "127.0.0.1:9001 ejected: 5 failures in a row" in out
    assert "1/2" in out
    assert re.search(r"127\.0\.0\.1:9001 +blue +ejected ", out)


def test_watching_on_a_terminal_keeps_the_page_while_nobody_answers(
    admin: Any, status_view: Build, refusal: Build
) -> None:
    admin.set("GET /v1/status", 200, status_view())
    terminal = Terminal("status", "--watch")
    terminal.until("Ctrl-C ends this")
    admin.set("GET /v1/status", 503, refusal(503, "going down"))
    terminal.until("! going down")
    admin.set("GET /v1/status", 200, status_view(revision=99))
    terminal.until("revision 99")
    terminal.process.send_signal(signal.SIGINT)
    terminal.until(None)
    assert terminal.end() == 0


def ailing(view: dict[str, Any], count: int = 1) -> dict[str, Any]:
    """The view with so many endpoints of blue that fail their checks, and one that asks to drain."""
    at = datetime.fromtimestamp(time.time() - 2.4, UTC).isoformat()
    blue = view["pools"]["blue"]["endpoints"]
    first = blue[0] | {"available": False, "last_check_at": at}
    blue[1] |= {"last_check": "200 in 1.2 ms", "checked": True}
    blue += [
        first
        | {
            "address": f"10.0.0.{number}:9001",
            "up": False,
            "state": "down",
            "last_check": "503 in 3 ms",
        }
        for number in range(count)
    ]
    asks = {"asks_to_drain": True, "state": "draining", "last_check": "503 in 4 ms"}
    blue[0] = first | asks
    return view


def test_an_endpoint_that_fails_its_checks_is_told_with_what_the_last_one_said(
    admin: Any, turnout: Build, service_view: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    admin.set("GET /v1/services/shop", 200, ailing(service_view()))
    lines = turnout("status", "shop").out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines]
    assert ["10.0.0.0:9001", "blue", "down", "6", "2", "5", "110", "0"] in rows
    assert ["127.0.0.1:9001", "blue", "asks", "to", "drain", "6", "2", "5", "110", "0"] in rows
    assert lines[-2:] == [
        "  blue 127.0.0.1:9001 asks to drain: 503 in 4 ms, 2s ago",
        "  blue 10.0.0.0:9001 down: 503 in 3 ms, 2s ago",
    ]


def test_the_page_of_everything_names_some_troubles_and_counts_the_others(
    admin: Any, turnout: Build, status_view: Build, service_view: Build
) -> None:
    admin.set("GET /v1/status", 200, status_view(services=[ailing(service_view(), 10)]))
    lines = turnout("status").out.splitlines()
    assert sum("503 in" in line for line in lines) == 5
    assert lines[-1] == "  and 6 more: turnout status shop"


def test_a_rollout_is_told_with_its_step_its_evidence_and_what_it_waits_for(
    admin: Any, turnout: Build, rollout_view: Build
) -> None:
    admin.set("GET /v1/services/shop", 200, rollout_view(rollout={"requests": 12}))
    lines = turnout("status", "shop").out.splitlines()
    step = "step 2 of 3: green 10 %, 3m12s of 5m left; waits for 88 of 100 requests"
    assert lines[-2:] == [
        f"  rollout 12 to green (v42): {step}",
        "  12 requests in this step; evidence 0.3 of 5.3 (errors)",
    ]


def test_a_verdict_is_told_once(admin: Any, turnout: Build, rollout_view: Build) -> None:
    held = {"verdict": "HOLD", "reason": "suspicion", "words": "errors: 3 of 40"}
    admin.set("GET /v1/services/shop", 200, rollout_view(guard=held))
    assert turnout("status", "shop").out.count("suspicion") == 1
    paused = rollout_view("paused", guard={**held, "verdict": "FAIL", "reason": "errors"})
    admin.set("GET /v1/services/shop", 200, paused)
    assert "  guard says FAIL: errors: 3 of 40" in turnout("status", "shop").out


def test_a_rollback_and_its_lockout_stay_visible_and_a_finished_rollout_does_not(
    admin: Any, turnout: Build, rollout_view: Build
) -> None:
    why = "errors: candidate 23 of 412 (5.6 %)"
    locked = {"release": "v42", "since": None, "until": None, "reason": why, "rollout": 12}
    view = rollout_view("rolled_back", 0, rollout={"reason": why}, lockout=locked)
    admin.set("GET /v1/services/shop", 200, view)
    assert turnout("status", "shop").out.splitlines()[-2:] == [
        f"  rollout 12 to green (v42): rolled back: blue has everything: {why}",
        "  v42 is locked out; 'turnout unlock shop' lifts it",
    ]
    admin.set("GET /v1/services/shop", 200, rollout_view("steady", 100))
    assert "rollout" not in turnout("status", "shop").out
