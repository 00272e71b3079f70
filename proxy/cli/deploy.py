"""`turnout deploy`: the one command of a pipeline, whose exit code says what became of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from proxy.cli.exits import CommandError, ExitCode
from proxy.cli.rollout import begun, parse_steps
from proxy.cli.session import Session, seconds, with_session

if TYPE_CHECKING:
    from proxy.cli.following import Teller

EVERYTHING = 100

EPILOG = """\b
Exit codes: 0 the new release has everything and the old pool is empty,
1 refused, 2 usage, 3 not ready (nothing has changed),
4 rolled back or aborted, 5 timed out while waiting (the rollout goes on),
6 proxy not reachable."""


@click.command(epilog=EPILOG)
@click.argument("service")
@click.option("--endpoints", required=True, metavar="A,B", help="Where the new release runs.")
@click.option("--release", metavar="NAME", help="What it is called.")
@click.option("--pool", metavar="POOL", help="The pool to fill; else the one that is not active.")
@click.option("--to", "to", metavar="100", help="Everything in one step; no others than 100.")
@click.option(
    "--steps", metavar="STEPS", help="Instead of the configured ones, as in 1:2m,10:5m:pause,100."
)
@click.option("--now", is_flag=True, help="As soon as it is ready, everything at once.")
@click.option(
    "--ready-timeout",
    default="60s",
    show_default=True,
    metavar="DURATION",
    help="How long it may take to be ready; else exit 3, and nothing has changed.",
)
@click.option(
    "--min-ready",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="So many endpoints have to be up, not all.",
)
@click.option("--timeout", metavar="DURATION", help="Wait no longer than this: exit 5 (30m).")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Return at its end, or at once."
)
@click.option("--force", is_flag=True, help="Even if the release is locked out.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept with the decision.")
@with_session
def deploy(
    session: Session, /, service: str, *, timeout: str | None, wait: bool, **options: Any
) -> int:
    """Fill the idle pool of SERVICE with a release, move the traffic there, wait for the end.

    It waits until all endpoints are up, goes by the rollout's steps, and ends when the old pool
    is empty. Ctrl-C leaves the rollout going on.
    """
    from proxy.cli.client import service_path  # noqa: PLC0415 - http.client

    body = body_of(**options)
    if timeout is not None and not wait:
        raise click.UsageError("--timeout bounds the waiting: leave out --no-wait")
    limit_s = None if timeout is None else seconds("--timeout", timeout)
    answer = session.client.post(service_path(service, "deploy"), body)
    if not wait:
        session.tell(answer, begun)
        return ExitCode.DONE
    return _follow(session, answer.value, limit_s)


def body_of(
    *,
    endpoints: str,
    release: str | None,
    pool: str | None,
    to: str | None,
    steps: str | None,
    now: bool,
    ready_timeout: str,
    min_ready: int | None,
    force: bool,
    reason: str,
) -> dict[str, Any]:
    """What is asked of the API; an option that was not given is not there."""
    _exclude({"--to": to, "--steps": steps})
    _exclude({"--now": now, "--steps": steps})
    seconds("--ready-timeout", ready_timeout)
    given = {"release": release, "pool": pool, "min_ready": min_ready}
    body: dict[str, Any] = {
        "endpoints": parse_endpoints(endpoints),
        **{key: value for key, value in given.items() if value is not None},
        "now": now,
        "ready_timeout": ready_timeout,
        "force": force,
        "reason": reason,
    }
    if to is not None:
        body["to"] = _everything(to)
    if steps is not None:
        body["steps"] = parse_steps(steps)
    return body


def parse_endpoints(text: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise click.UsageError("--endpoints names no endpoint, as in 10.0.0.1:8000,10.0.0.2:8000")
    return found


def _everything(text: str) -> int:
    if text.removesuffix("%") != str(EVERYTHING):
        raise click.UsageError(f"--to {text}: it is 100 or nothing; smaller shares are --steps")
    return EVERYTHING


def _exclude(options: dict[str, Any]) -> None:
    if all(options.values()):
        one, other = options
        raise click.UsageError(f"{one} and {other} exclude each other")


def _follow(session: Session, view: dict[str, Any], limit_s: float | None) -> int:
    from proxy.cli.following import Following, goes_on  # noqa: PLC0415 - only who waits

    following = Following(session, view, limit_s=limit_s)
    teller = _teller(session)
    try:
        ending = following.until_over(teller)
    except KeyboardInterrupt as interrupt:
        said = f"{view['name']}: {goes_on(view['name'])}"
        raise CommandError(ExitCode.INTERRUPTED, said) from interrupt
    finally:
        teller.close(following.view)
    if ending.code is not ExitCode.DONE:
        raise CommandError(ending.code, ending.sentence, ending.details)
    if not session.is_json:
        click.echo(ending.sentence)
    return ending.code


def _teller(session: Session) -> Teller:
    from proxy.cli.progress import JsonTeller, LineTeller  # noqa: PLC0415 - only who waits

    if session.is_json:
        return JsonTeller()
    if not sys.stdout.isatty():
        return LineTeller()
    from proxy.cli.progress_view import LiveTeller  # noqa: PLC0415 - rich
    from proxy.cli.terminal import is_plain  # noqa: PLC0415 - rich

    return LineTeller() if is_plain() else LiveTeller()
