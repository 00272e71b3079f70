"""The command as a whole: help, unknown verbs, exit codes, and what is imported at start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest

from proxy.cli.main import VERBS, VerbGroup

HEAVY = {"aiohttp", "uvloop", "pydantic", "yaml", "yamlcore", "asyncio", "httptools", "watchfiles"}

Turnout = Callable[..., Any]
Build = Callable[..., Any]


def imported_by(*argv: str) -> set[str]:
    code = (
        "import sys; from proxy.cli.main import main\n"
        f"code = main({list(argv)!r})\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=False
    )
    return set(done.stderr.splitlines()[-1].split())


def test_help_imports_nothing_heavy() -> None:
    assert not imported_by("--help") & (HEAVY | {"rich", "http"})


def test_a_switch_imports_nothing_heavy(admin: Any, service_view: Turnout) -> None:
    admin.set("GET /v1/services/shop", 200, service_view(100))
    admin.set("POST /v1/services/shop/switch", 200, service_view(0))
    assert not imported_by("switch", "shop", "--to", "green") & (HEAVY | {"rich"})
    assert admin.calls[-1].body["to"] == "green"


def test_a_status_imports_nothing_heavy_but_rich(admin: Any, status_view: Turnout) -> None:
    admin.set("GET /v1/status", 200, status_view())
    assert not imported_by("status") & HEAVY


def test_help_names_every_verb_and_the_exit_codes(turnout: Turnout) -> None:
    ran = turnout("--help")
    assert ran.code == 0
    assert all(f"  {verb} " in ran.out for verb in VERBS)
    assert "6 proxy not reachable" in ran.out


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help_and_takes_the_common_options(turnout: Turnout, verb: str) -> None:
    ran = turnout(verb, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: turnout {verb}")
    found = VerbGroup().get_command(None, verb)  # type: ignore[arg-type]
    assert found is not None
    below = found.commands.values() if isinstance(found, click.Group) else [found]
    for command in below:
        options = {name for parameter in command.params for name in parameter.opts}
        assert {"--admin", "--token", "--output"} <= options


@pytest.mark.parametrize("verb", ["upgrade", "events"])
def test_verbs_of_capabilities_that_do_not_exist_are_unknown(turnout: Turnout, verb: str) -> None:
    ran = turnout(verb, "shop")
    assert ran.code == 2
    assert f"there is no verb '{verb}'" in ran.err
    assert ran.out == ""


def test_an_unknown_verb_names_the_nearest_one(turnout: Turnout) -> None:
    ran = turnout("swich", "shop")
    assert ran.code == 2
    assert ran.err.startswith("turnout: there is no verb 'swich'; did you mean 'switch'?\n")


@pytest.mark.parametrize("verb", [(), ("rollout",), ("deploy",)])
def test_help_fits_into_80_columns_and_cuts_no_sentence_off(
    turnout: Turnout, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = turnout(*verb, "--help").out.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert [line for line in lines if line.endswith("...") and "ARGS" not in line] == []


def test_no_verb_at_all_shows_the_help_and_is_a_usage_error(turnout: Turnout) -> None:
    ran = turnout()
    assert ran.code == 2
    assert "Usage: turnout" in ran.err


def test_a_missing_option_is_a_sentence_that_says_where_help_is(turnout: Turnout) -> None:
    ran = turnout("switch", "shop")
    assert ran.code == 2
    assert ran.err.startswith("turnout: Missing option '--to'")
    assert "'turnout switch --help'" in ran.err


def test_the_version_is_printed(turnout: Turnout) -> None:
    ran = turnout("--version")
    assert ran.code == 0
    assert ran.out.startswith("turnout 0.")


def test_the_module_runs_as_a_program_with_its_exit_code() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxy.cli.main", "nothing"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_enough_is_no_failure(admin: Any, status_view: Turnout) -> None:
    services = status_view()["services"] * 2000
    admin.set("GET /v1/status", 200, status_view(services=services))
    program = [sys.executable, "-m", "proxy.cli.main", "status"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(90) == 0


def test_a_terminal_without_utf8_breaks_no_verb(admin: Any, status_view: Turnout) -> None:
    admin.set("GET /v1/status", 200, status_view())
    done = subprocess.run(
        [sys.executable, "-m", "proxy.cli.main", "status"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0
    assert b"Turnout 0.1.0 ? up 2h5m" in done.stdout


def test_an_error_that_is_alone_is_said_once(admin: Any, turnout: Turnout, refusal: Build) -> None:
    body = refusal(422, "ttl: is empty", errors=["ttl: is empty"])
    admin.set("POST /v1/services/shop/hold", 422, body)
    ran = turnout("hold", "shop")
    assert (ran.code, ran.err) == (2, "turnout: ttl: is empty\n")
