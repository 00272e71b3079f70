"""`turnout weights`, `switch` and `rollback`: who gets the traffic."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from proxy.cli import words
from proxy.cli.exits import ExitCode
from proxy.cli.session import Session, with_session

_reason = click.option("--reason", default="", metavar="TEXT", help="Why; kept with the decision.")


@click.command()
@click.argument("service")
@click.argument("shares", nargs=-1, required=True, metavar="POOL=PERCENT...")
@click.option("--ttl", metavar="DURATION", help="Back to what was before after this long (2h).")
@_reason
@with_session
def weights(
    session: Session, service: str, shares: Sequence[str], ttl: str | None, reason: str
) -> int:
    """Set the shares of SERVICE's pools by hand, as in: turnout weights shop blue=90 green=10.

    Percent with at most two decimals; they sum to 100.
    """
    body: dict[str, Any] = {"weights": parse_shares(shares), "reason": reason}
    if ttl is not None:
        body["ttl"] = ttl
    until = f" Back again after {ttl}." if ttl else ""
    return _change(session, service, "weights", body, after=until)


@click.command()
@click.argument("service")
@click.option("--to", "to", required=True, metavar="POOL", help="The pool that gets everything.")
@click.option("--force", is_flag=True, help="Even if it has fewer endpoints than it should.")
@_reason
@with_session
def switch(session: Session, service: str, to: str, force: bool, reason: str) -> int:
    """Move all traffic of SERVICE to one pool at once.

    Refused, with the reason, when that pool cannot carry it.
    """
    body = {"to": to, "force": force, "reason": reason}
    return _change(session, service, "switch", body)


@click.command()
@click.argument("service")
@click.option("--force", is_flag=True, help="Even if nothing of that pool is available.")
@click.option("--lock", is_flag=True, help="The release may not start again until unlocked.")
@_reason
@with_session
def rollback(session: Session, service: str, *, reason: str, force: bool, lock: bool) -> int:
    """Send everything of SERVICE back to the pool that was active before.

    Also in the middle of a rollout, and while the old pool is still kept after one.
    """
    body = {"reason": reason, "force": force, "lock": lock}
    return _change(session, service, "rollback", body)


def parse_shares(texts: Sequence[str]) -> dict[str, float | int]:
    """`blue=90` or `blue=37.5%` as JSON numbers; whether they make sense, the proxy says."""
    shares: dict[str, float | int] = {}
    for text in texts:
        pool, equals, number = text.partition("=")
        if not pool or not equals:
            raise click.UsageError(f"'{text}' is not POOL=PERCENT, as in blue=90")
        if pool in shares:
            raise click.UsageError(f"pool '{pool}' is given twice")
        shares[pool] = parse_percent(number.removesuffix("%"), text)
    return shares


def parse_percent(text: str, whole: str) -> float | int:
    """A weight of 0 to 100 percent, `text`, out of the `whole` that was written."""
    try:
        value = Decimal(text.strip())
    except InvalidOperation as error:
        raise click.UsageError(f"'{whole}': '{text}' is not a number of percent") from error
    if not value.is_finite() or not 0 <= value <= 100:
        raise click.UsageError(f"'{whole}': a weight is between 0 and 100 percent")
    return int(value) if value == int(value) else float(value)


def _change(
    session: Session, service: str, verb: str, body: dict[str, Any], *, after: str = ""
) -> int:
    from proxy.cli.client import service_path  # noqa: PLC0415 - http.client

    # The sentence says what was before; a script that wants JSON does not pay for that call.
    was = None if session.is_json else session.client.get(service_path(service)).value
    call = session.client.put if verb == "weights" else session.client.post
    answer = call(service_path(service, verb), body)
    session.tell(answer, lambda view: changed(view, was) + after)
    return ExitCode.DONE


def changed(view: dict[str, Any], was: dict[str, Any] | None) -> str:
    """`shop: all traffic to green (was blue 90 %, green 10 %). blue drains: 3 requests, ...`."""
    now = in_force(view)
    before = in_force(was) if was else now
    past = f"was {words.shares(before)}" if before != now else "as before"
    sentence = f"{view['name']}: {words.traffic(now)} ({past})."
    drain = view.get("drain")
    return sentence if not drain else f"{sentence} {words.drain_sentence(drain)}"


def in_force(view: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = view["weights"]["in_force"]
    return found
