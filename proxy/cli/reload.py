"""`turnout reload`: the configuration's file is read and applied, whole or not at all."""

from __future__ import annotations

from typing import Any

import click

from proxy.cli import words
from proxy.cli.exits import CommandError, ExitCode
from proxy.cli.session import Session, with_session, write_body


@click.command()
@with_session
def reload(session: Session) -> int:
    """Read the configuration's file again and apply it; an invalid one changes nothing."""
    answer = session.client.post("/v1/config/reload", {})
    is_applied = bool(answer.value.get("applied", True))
    if session.is_json:
        write_body(answer.body)
        return ExitCode.DONE if is_applied else ExitCode.USAGE
    if not is_applied:
        raise not_applied(answer.value)
    click.echo(applied(answer.value))
    return ExitCode.DONE


def applied(view: dict[str, Any]) -> str:
    """What changed, one line each."""
    changes = [str(change) for change in view.get("changes", [])]
    if not changes:
        return f"configuration unchanged (revision {view.get('revision')})."
    head = f"configuration applied as revision {view.get('revision')}:"
    lines = [f"  {change}" for change in changes]
    return "\n".join([f"{head} {words.count(len(changes), 'change')}", *lines])


def not_applied(view: dict[str, Any]) -> CommandError:
    errors = tuple(str(error) for error in view.get("errors", []))
    return CommandError(
        ExitCode.USAGE, "the configuration is not valid; nothing was changed", errors
    )
