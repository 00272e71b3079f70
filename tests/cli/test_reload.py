"""reload: what changed, or every error."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Build = Callable[..., Any]
RELOAD = "POST /v1/config/reload"


def test_changes_are_listed(admin: Any, turnout: Build) -> None:
    changes = ["shop: weights blue 90 %, green 10 %", "listener 0.0.0.0:8081 added"]
    admin.set(RELOAD, 200, {"applied": True, "revision": 13, "errors": [], "changes": changes})
    ran = turnout("reload")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "configuration applied as revision 13: 2 changes",
        *(f"  {change}" for change in changes),
    ]


def test_an_unchanged_file_is_said_to_be_unchanged(admin: Any, turnout: Build) -> None:
    admin.set(RELOAD, 200, {"applied": True, "revision": 12, "errors": [], "changes": []})
    assert turnout("reload").out == "configuration unchanged (revision 12).\n"


def test_an_invalid_file_is_exit_2_with_every_error(
    admin: Any, turnout: Build, refusal: Build
) -> None:
    errors = ["c.yaml:3:1: a: unknown key", "c.yaml:9:5: b: wrong"]
    admin.set(RELOAD, 422, refusal(422, "c.yaml:3:1: a: unknown key (and 1 more)", errors=errors))
    ran = turnout("reload")
    assert ran.code == 2
    assert ran.err.splitlines() == [
        "turnout: the configuration is not valid; nothing was changed",
        *(f"  {error}" for error in errors),
    ]


def test_an_invalid_file_in_json_is_the_problem(admin: Any, turnout: Build, refusal: Build) -> None:
    admin.set(RELOAD, 422, refusal(422, "x", errors=["x"]))
    ran = turnout("reload", "--output", "json")
    assert ran.code == 2
    assert json.loads(ran.out)["errors"] == ["x"]
