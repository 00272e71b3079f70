"""`turnout rollout ...` and `turnout unlock`: moving a service by steps, and what a person may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from proxy.cli import rollout_words, words
from proxy.cli.exits import ExitCode
from proxy.cli.session import Session, seconds, with_session
from proxy.cli.traffic import parse_percent

_reason = click.option("--reason", default="", metavar="TEXT", help="Why; kept with the decision.")


@click.group(subcommand_metavar="VERB SERVICE")
def rollout() -> None:
    """Move a service from its active pool to the other one by steps, judged on live traffic.

    'turnout status SERVICE --watch' shows where it is; 'turnout deploy' does all of it, and waits.
    """


@rollout.command()
@click.argument("service")
@click.option("--to", "to", required=True, metavar="POOL", help="The candidate.")
@click.option(
    "--steps", metavar="STEPS", help="Instead of the configured ones, as in 1:2m,10:5m:pause,100."
)
@click.option(
    "--ready-timeout",
    default="60s",
    show_default=True,
    metavar="DURATION",
    help="How long the candidate may take to be ready; nothing is sent before.",
)
@click.option("--force", is_flag=True, help="Even if its release is locked out.")
@_reason
@with_session
def start(
    session: Session,
    service: str,
    *,
    to: str,
    steps: str | None,
    ready_timeout: str,
    force: bool,
    reason: str,
) -> int:
    """Begin a rollout of SERVICE to the pool as it is filled now. Does not wait.

    A step is WEIGHT[:BAKE][:pause]: percent of the traffic, how long it is judged at that
    weight, and whether a person then has to say resume. Weights rise, the last one is 100.
    """
    from proxy.cli.client import service_path  # noqa: PLC0415 - http.client

    seconds("--ready-timeout", ready_timeout)
    body: dict[str, Any] = {"to": to, "ready_timeout": ready_timeout, "force": force}
    if steps is not None:
        body["steps"] = parse_steps(steps)
    answer = session.client.post(service_path(service, "rollout"), {**body, "reason": reason})
    session.tell(answer, begun)
    return ExitCode.DONE


@rollout.command()
@click.argument("service")
@_reason
@with_session
def pause(session: Session, service: str, reason: str) -> int:
    """Keep the weight as it is; the judge goes on and may turn back."""
    return _move(session, service, "pause", reason)


@rollout.command()
@click.argument("service")
@_reason
@with_session
def resume(session: Session, service: str, reason: str) -> int:
    """Go on after a pause, a gate, or weights set by hand."""
    return _move(session, service, "resume", reason)


@rollout.command()
@click.argument("service")
@_reason
@with_session
def promote(session: Session, service: str, reason: str) -> int:
    """Give the candidate everything now. It skips the steps, not the judge."""
    return _move(session, service, "promote", reason)


@rollout.command()
@click.argument("service")
@_reason
@click.option("--force", is_flag=True, help="Also when the old pool has nothing available.")
@with_session
def abort(session: Session, service: str, reason: str, *, force: bool) -> int:
    """End it with everything on the old pool. The release may start again."""
    return _move(session, service, "abort", reason, {"force": True} if force else None)


@rollout.command()
@click.argument("service")
@_reason
@with_session
def rejudge(session: Session, service: str, reason: str) -> int:
    """Forget the evidence so far and judge anew. The settings of `guard` are the present ones."""
    return _move(session, service, "rejudge", reason)


@click.command()
@click.argument("service")
@_reason
@with_session
def unlock(session: Session, service: str, reason: str) -> int:
    """Let the release of SERVICE start again that was rolled back and locked out."""
    from proxy.cli.client import service_path  # noqa: PLC0415 - http.client

    was = None if session.is_json else session.client.get(service_path(service)).value
    answer = session.client.post(service_path(service, "unlock"), {"reason": reason})
    locked = ((was or {}).get("lockout") or {}).get("release")
    session.tell(answer, lambda view: f"{view['name']}: {unlocked(locked)}")
    return ExitCode.DONE


def unlocked(release: str | None) -> str:
    return f"{release} may start again." if release else "nothing is locked out."


def parse_steps(text: str) -> list[dict[str, Any]]:
    """`1:2m,10:5m:pause,100` as the API's steps; whether they rise, the proxy says."""
    return [_step(part.strip(), text) for part in text.split(",")]


def _step(part: str, whole: str) -> dict[str, Any]:
    weight, *more = part.split(":")
    step: dict[str, Any] = {"weight": parse_percent(weight.removesuffix("%"), part)}
    if more and more[-1] == "pause":
        step["pause"] = True
        more = more[:-1]
    if len(more) > 1:
        raise click.UsageError(f"--steps '{whole}': '{part}' is not WEIGHT[:BAKE][:pause]")
    if more:
        seconds(f"--steps '{part}':", more[0])
        step["bake"] = more[0]
    return step


def begun(view: dict[str, Any]) -> str:
    """`shop: rollout 12 to green (v42) has begun: warming: ...`, and how to see it."""
    name, found = view["name"], view["rollout"]
    return (
        f"{name}: {rollout_words.title(found)} has begun: {rollout_words.sentence(view)}."
        f" 'turnout status {name} --watch' shows it."
    )


def _move(
    session: Session, service: str, verb: str, reason: str, more: Mapping[str, Any] | None = None
) -> int:
    from proxy.cli.client import service_path  # noqa: PLC0415 - http.client

    path = service_path(service, "rollout", verb)
    answer = session.client.post(path, {**(more or {}), "reason": reason})
    session.tell(answer, moved)
    return ExitCode.DONE


def moved(view: dict[str, Any]) -> str:
    """`shop: rollout 12 to green (v42): paused at step 1 of 4: green 10 %`, and what drains."""
    found = view["rollout"]
    said = f"{view['name']}: {rollout_words.title(found)}: {rollout_words.sentence(view)}."
    if found["phase"] in rollout_words.ENDED and not rollout_words.is_finished(view):
        said += f" Now {words.traffic(view['weights']['in_force'])}."
    drain = view.get("drain")
    return said if not drain else f"{said} {words.drain_sentence(drain)}"
