"""`turnout hold` and `release`: new requests of a service wait, and are let go again."""

from __future__ import annotations

from typing import Any

import click

from proxy.cli import words
from proxy.cli.exits import ExitCode
from proxy.cli.session import Session, seconds, with_session

_reason = click.option("--reason", default="", metavar="TEXT", help="Why; kept with the decision.")


@click.command()
@click.argument("service")
@click.option(
    "--timeout",
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long a request waits; then 503.",
)
@click.option(
    "--most",
    default=1000,
    show_default=True,
    metavar="NUMBER",
    help="How many wait; further ones get 503.",
)
@click.option("--ttl", metavar="DURATION", help="Released by itself after this long (10m).")
@_reason
@with_session
def hold(
    session: Session, service: str, *, timeout: str, most: int, ttl: str | None, reason: str
) -> int:
    """Have new requests of SERVICE wait, for a database switch-over or a restart of its only pool.

    What is in flight goes on, and health checks are answered. On a service that holds already
    it changes how long and how many; in the middle of a release it stops that.
    """
    from proxy.cli.client import service_path  # noqa: PLC0415 - http.client

    for option, text in (("--timeout", timeout), ("--ttl", ttl)):
        if text is not None:
            seconds(option, text)
    body: dict[str, Any] = {"timeout": timeout, "most": most, "reason": reason}
    if ttl is not None:
        body["ttl"] = ttl
    answer = session.client.post(service_path(service, "hold"), body)
    session.tell(answer, lambda view: on_hold(view, ttl))
    return ExitCode.DONE


@click.command()
@click.argument("service")
@click.option(
    "--over",
    default="5s",
    show_default=True,
    metavar="DURATION",
    help="They are let go at a steady pace for so long; 0s: all at once.",
)
@_reason
@with_session
def release(session: Session, service: str, over: str, reason: str) -> int:
    """Let what is held of SERVICE go, at a steady pace, where its traffic goes at that moment.

    New requests do not wait any more.
    """
    from proxy.cli.client import service_path  # noqa: PLC0415 - http.client

    seconds("--over", over)
    answer = session.client.post(service_path(service, "release"), {"over": over, "reason": reason})
    session.tell(answer, released)
    return ExitCode.DONE


def on_hold(view: dict[str, Any], ttl: str | None) -> str:
    """Say what happens to new requests now, and how it ends."""
    name, found = view["name"], view.get("hold") or {}
    itself = f" By itself after {ttl}." if ttl else ""
    return (
        f"{name}: on hold; new requests wait ({words.hold_bounds(found)}),"
        f" then get 503. 'turnout release {name}' lets them go.{itself}"
    )


def released(view: dict[str, Any]) -> str:
    """`shop: no longer on hold; 57 requests are let go over 5s`, or that nothing waits."""
    found = view.get("hold") or {}
    waiting = int(found.get("held") or 0)
    if not waiting:
        return f"{view['name']}: no longer on hold; nothing is waiting."
    over = words.duration(float(found.get("over_s") or 0))
    are = "is" if waiting == 1 else "are"
    return f"{view['name']}: no longer on hold; {words.count(waiting, 'request')} {are} let go over {over}."
