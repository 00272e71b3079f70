"""`turnout decisions`: the durable records of who changed what, when and why."""

from __future__ import annotations

import time
from typing import Any

import click

from proxy.cli import words
from proxy.cli.exits import ExitCode
from proxy.cli.polling import POLL_S, Poll
from proxy.cli.session import Session, with_session, write_body, write_json

PAGE = 100
"""Records of one call while following."""


@click.command()
@click.argument("service", required=False)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--follow", is_flag=True, help="Go on with new ones until Ctrl-C.")
@with_session
def decisions(session: Session, service: str | None, limit: int, follow: bool) -> int:
    """Show the last decisions of SERVICE, or of all services, oldest first."""
    answer = session.client.get(_path(service, limit))
    records = records_of(answer.value)
    if session.is_json and not follow:
        write_body(answer.body)
        return ExitCode.DONE
    if not records and not follow:
        click.echo("no decisions yet.")
    _show(session, records)
    if follow:
        _follow(session, service, records)
    return ExitCode.DONE


def _path(service: str | None, limit: int, since: int = 0) -> str:
    from proxy.cli.client import service_path  # noqa: PLC0415 - http.client

    base = "/v1/decisions" if service is None else service_path(service, "decisions")
    return f"{base}?limit={limit}" + (f"&since={since}" if since else "")


def records_of(value: Any) -> list[dict[str, Any]]:
    """The records, oldest first, whichever way round the API lists them."""
    found = value.get("decisions", []) if isinstance(value, dict) else value
    return sorted(found, key=lambda record: int(record["id"]))


def _show(session: Session, records: list[dict[str, Any]]) -> None:
    for record in records:
        if session.is_json:
            write_json(record)
        else:
            click.echo(line(record))


def _follow(session: Session, service: str | None, shown: list[dict[str, Any]]) -> None:
    """Show what comes after `shown`; a restart of the proxy is waited for."""
    last, poll = int(shown[-1]["id"]) if shown else 0, Poll(session.client)
    try:
        while True:
            time.sleep(POLL_S)
            answer = poll.ask(_path(service, PAGE, last))
            found = records_of(answer.value) if answer is not None else []
            fresh = [record for record in found if int(record["id"]) > last]
            _show(session, fresh)
            last = int(fresh[-1]["id"]) if fresh else last
    except KeyboardInterrupt:
        return


def line(record: dict[str, Any]) -> str:
    """`12  2026-05-04 10:12:01  shop  switch  blue 100 % -> green 100 %  by api: reason`."""
    at = words.moment(record.get("at", ""))
    when = at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else str(record.get("at"))
    why = f": {record['why']}" if record.get("why") else ""
    change = _change(record)
    parts = [
        f"{record['id']:>4}",
        when,
        str(record.get("service") or "-"),
        str(record.get("what")),
        *([change] if change else []),
        f"by {record.get('who')}{why}",
    ]
    return "  ".join(parts)


def _change(record: dict[str, Any]) -> str:
    before, after = record.get("from"), record.get("to")
    if before is None and after is None:
        return ""
    if (
        isinstance(before, dict)
        and isinstance(after, dict)
        and "phase" in before
        and "phase" in after
    ):
        return _move(before, after)
    if before is None:
        return words.setting(after)
    return f"{words.setting(before)} -> {words.setting(after)}"


def _move(before: dict[str, Any], after: dict[str, Any]) -> str:
    """`warming -> baking: blue 90 %, green 10 %`; a phase or weights that stay are said once."""
    phases = dict.fromkeys((str(before["phase"]), str(after["phase"])))
    moved = " -> ".join(phases)
    if before.get("weights") == after.get("weights"):
        return moved
    return f"{moved}: {words.setting(after.get('weights'))}"
