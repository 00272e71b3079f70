"""`turnout reload`: the configuration's file is read and applied, whole or not at all."""

from __future__ import annotations

from typing import Any

import click

from proxy.cli import words
from proxy.cli.exits import CommandError, ExitCode
from proxy.cli.session import Session, with_session


@click.command()
@with_session
def reload(session: Session) -> int:
    """Read the configuration's file again and apply it; an invalid one changes nothing."""
    from proxy.cli.client import RefusedError  # noqa: PLC0415 - http.client

    try:
        answer = session.client.post("/v1/config/reload", {})
    except RefusedError as refusal:
        if session.is_json or not refusal.details:
            raise
        raise not_applied(refusal.code, refusal.details) from refusal
    session.tell(answer, applied)
    return ExitCode.DONE


def applied(view: dict[str, Any]) -> str:
    """What changed, one line each."""
    changes = [str(change) for change in view.get("changes", [])]
    if not changes:
        return f"configuration unchanged (revision {view.get('revision')})."
    head = f"configuration applied as revision {view.get('revision')}:"
    lines = [f"  {change}" for change in changes]
    return "\n".join([f"{head} {words.count(len(changes), 'change')}", *lines])


def not_applied(code: ExitCode, errors: tuple[str, ...]) -> CommandError:
    return CommandError(code, "the configuration is not valid; nothing was changed", errors)
