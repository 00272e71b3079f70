"""`turnout drain`: begin or undo a drain, and wait for its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from proxy.cli import words
from proxy.cli.exits import CommandError, ExitCode
from proxy.cli.session import Session, seconds, with_session, write_body

SLICE_S = 20.0
"""Longest wait of one call; a drain takes many calls, so that no connection stands idle for long."""
GRACE_S = 30.0
"""How long after its deadline a drain may still be cutting (the spread of its tunnels)."""
PAUSE_S = 0.5
"""Between calls that answer at once though something is left: the cutting has begun."""


@click.command()
@click.argument("target", metavar="SERVICE[/POOL[/ENDPOINT]]")
@click.option("--wait", is_flag=True, help="Return when it is empty, or at its deadline.")
@click.option("--timeout", metavar="DURATION", help="With --wait: exit 5 after this long (5m).")
@click.option("--undo", is_flag=True, help="Let new traffic in again.")
@with_session
def drain(session: Session, target: str, wait: bool, timeout: str | None, undo: bool) -> int:
    """Send nothing new to a pool or an endpoint; what is in flight finishes.

    Without a pool it is the idle one. Ctrl-C while waiting leaves the drain going on.
    """
    from proxy.cli.client import service_path  # noqa: PLC0415 - http.client

    if undo and wait:
        raise click.UsageError("--undo ends a drain, so there is nothing to --wait for")
    if timeout is not None and not wait:
        raise click.UsageError("--timeout bounds the waiting: give it with --wait")
    limit_s = None if timeout is None else seconds("--timeout", timeout)
    service, body = parse_target(target)
    answer = session.client.post(service_path(service, "drain"), {**body, "undo": undo})
    if undo:
        session.tell(answer, lambda _view: f"{target}: takes new traffic again.")
        return ExitCode.DONE
    if not wait:
        session.tell(answer, lambda view: sentence(service, view))
        return ExitCode.DONE
    begun = drain_of(answer.value)
    if not session.is_json and not (begun is None or is_over(begun)):
        click.echo(sentence(service, answer.value))
    try:
        return Waiting(session, service, drain_of(answer.value), limit_s).until_empty()
    except KeyboardInterrupt as interrupt:
        raise CommandError(ExitCode.INTERRUPTED, f"{service}: the drain goes on") from interrupt


def parse_target(text: str) -> tuple[str, dict[str, Any]]:
    """Service and body of `shop/green/unix:/run/x.sock`: an endpoint may have slashes itself."""
    service, _, below = text.partition("/")
    pool, _, endpoint = below.partition("/")
    if not service or ("/" in text and not pool):
        raise click.UsageError(f"'{text}' is not SERVICE, SERVICE/POOL or SERVICE/POOL/ENDPOINT")
    body: dict[str, Any] = {}
    if pool:
        body["pool"] = pool
    if endpoint:
        body["endpoint"] = endpoint
    return service, body


def sentence(service: str, view: Any) -> str:
    found = drain_of(view)
    return (
        f"{service}: nothing drains." if not found else f"{service}: {words.drain_sentence(found)}"
    )


def drain_of(view: Any) -> dict[str, Any] | None:
    """The drain object, whether the API sent it bare, inside `drain`, or as null."""
    if isinstance(view, dict) and "remaining" not in view:
        view = view.get("drain")
    return view if isinstance(view, dict) else None


class Waiting:
    """Asks until a drain is empty, its deadline is long over, or `limit_s` has gone by."""

    def __init__(
        self,
        session: Session,
        service: str,
        begun: dict[str, Any] | None,
        limit_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._service = service
        self._subject = None if begun is None else _subject(begun)
        self._clock = clock
        self._limit_at = None if limit_s is None else clock() + limit_s
        self._overdue_since: float | None = None

    def until_empty(self) -> int:
        while True:
            asked_at = self._clock()
            answer = self._ask()
            found = drain_of(answer.value)
            if found is not None and _subject(found) != self._subject:
                answer, found = self._look_aside()
            if found is None or is_over(found):
                return self._finish(answer, found)
            if self._is_too_late(found):
                return self._give_up(answer.body, found)
            self._pause(asked_at)

    def _finish(self, answer: Any, found: dict[str, Any] | None) -> int:
        self._session.tell(answer, lambda _view: sentence(self._service, found))
        return ExitCode.DONE

    def _ask(self) -> Any:
        from proxy.cli.client import service_path  # noqa: PLC0415 - http.client

        wait_s = SLICE_S
        if self._limit_at is not None:
            wait_s = min(wait_s, max(0.0, self._limit_at - self._clock()))
        path = f"{service_path(self._service, 'drain')}?wait={wait_s * 1000:.0f}ms"
        return self._session.client.get(path, timeout_s=wait_s + 10)

    def _look_aside(self) -> tuple[Any, dict[str, Any] | None]:
        """Another drain of the service has begun since, and the API shows that one: count ours."""
        from proxy.cli.client import service_path  # noqa: PLC0415 - http.client

        answer = self._session.client.get(service_path(self._service))
        pool, address = self._subject or (None, None)
        view = answer.value["pools"].get(pool)
        if view is None:
            return answer, None
        remaining = dict(view["in_flight"])
        if address is not None:
            listed = {each["address"]: each["in_flight"] for each in view["endpoints"]}
            remaining = {"request": listed.get(address, 0)}
        # Its deadline is not in this view; it does not pass before the proxy cuts what is left.
        found = {"pool": pool, "endpoint": address, "remaining": remaining, "deadline_s": 1.0}
        return answer, found

    def _is_too_late(self, found: dict[str, Any]) -> bool:
        now = self._clock()
        if float(found.get("deadline_s") or 0) > 0:
            self._overdue_since = None
        elif self._overdue_since is None:
            self._overdue_since = now
        overdue = self._overdue_since is not None and now - self._overdue_since >= GRACE_S
        return overdue or (self._limit_at is not None and now >= self._limit_at)

    def _pause(self, asked_at: float) -> None:
        if self._clock() - asked_at < PAUSE_S:
            left = PAUSE_S if self._limit_at is None else self._limit_at - self._clock()
            time.sleep(max(0.0, min(PAUSE_S, left)))

    def _give_up(self, body: bytes, found: dict[str, Any]) -> int:
        if self._session.is_json:
            write_body(body)
            return ExitCode.TIMED_OUT
        items = tuple(words.item_line(item) for item in found.get("items", []))
        raise CommandError(
            ExitCode.TIMED_OUT,
            f"{self._service}: {words.drained(found)} is not empty yet:"
            f" {words.remaining(found['remaining'])} left; the drain goes on",
            items,
        )


def _subject(found: dict[str, Any]) -> tuple[str | None, str | None]:
    return found.get("pool"), found.get("endpoint")


def is_over(found: dict[str, Any]) -> bool:
    """Empty for good: under `on_zero: finish` bound clients may still come until its deadline."""
    return words.is_empty(found) and bool(found.get("done", True))
