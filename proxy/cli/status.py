"""`turnout status`: one page, once or kept up to date."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from proxy.cli.exits import CommandError, ExitCode
from proxy.cli.session import Session, with_session, write_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from proxy.cli.client import Answer
    from proxy.cli.terminal import Paper

WATCH_S = 1.0


@click.command()
@click.argument("service", required=False)
@click.option("--watch", is_flag=True, help="Show it anew every second until Ctrl-C.")
@with_session
def status(session: Session, service: str | None, watch: bool) -> int:
    """Show everything on one page, or one SERVICE with its endpoints."""
    page = Page(session, service)
    answer = page.ask()
    try:
        if not watch:
            page.show(answer)
        elif session.is_json or not sys.stdout.isatty():
            _repeat(page, answer)
        else:
            _live(page, answer)
    except KeyboardInterrupt:
        return ExitCode.DONE if watch else ExitCode.INTERRUPTED
    return ExitCode.DONE


class Page:
    """What is asked of the admin, and how its answer is shown."""

    def __init__(self, session: Session, service: str | None) -> None:
        from proxy.cli.client import service_path  # noqa: PLC0415 - http.client

        self._session = session
        self._service = service
        self._path = "/v1/status" if service is None else service_path(service)

    def ask(self) -> Answer:
        return self._session.client.get(self._path)

    def show(self, answer: Answer) -> None:
        from proxy.cli.terminal import console, paper, show  # noqa: PLC0415 - rich

        if self._session.is_json:
            self._session.tell(answer, str)
            return
        out = console()
        show(self.parts(answer.value, paper(out)), out)

    def show_line(self, answer: Answer) -> None:
        """For a stream of pages: one line of JSON each, or pages with a line between."""
        if self._session.is_json:
            write_json(answer.value)
        else:
            self.show(answer)
            click.echo()

    def parts(self, view: Any, paper: Paper) -> Iterator[RenderableType]:
        from proxy.cli.status_view import service_page, status_page  # noqa: PLC0415 - rich

        now = datetime.now(UTC)
        if self._service is None:
            return status_page(view, now, paper)
        return service_page(view, now, paper, with_endpoints=True)


def _repeat(page: Page, answer: Answer) -> None:
    while True:
        page.show_line(answer)
        time.sleep(WATCH_S)
        answer = page.ask()


def _live(page: Page, answer: Answer) -> None:
    """A page that stays in its place; while nobody answers, the last one and why."""
    from rich.console import Group  # noqa: PLC0415 - rich
    from rich.live import Live  # noqa: PLC0415 - rich
    from rich.text import Text  # noqa: PLC0415 - rich

    from proxy.cli.terminal import console, paper  # noqa: PLC0415 - rich

    out, trouble = console(), ""
    with Live(console=out, auto_refresh=False, screen=True) as live:
        while True:
            foot = Text(f"\n{trouble}", style="bold red") if trouble else Text("\nCtrl-C ends this")
            live.update(Group(*page.parts(answer.value, paper(out)), foot), refresh=True)
            time.sleep(WATCH_S)
            try:
                answer, trouble = page.ask(), ""
            except CommandError as error:
                trouble = f"! {error.sentence}"
