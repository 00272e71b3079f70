"""What every verb takes: where the admin is, the token, and how to answer."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

import click

if TYPE_CHECKING:  # http.client is half of the start: only verbs that call the admin import it
    from proxy.cli.client import AdminClient, Answer

Output = Literal["table", "json"]
Arguments = ParamSpec("Arguments")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Session:
    """One verb's talk with one admin API."""

    client: AdminClient
    output: Output

    @property
    def is_json(self) -> bool:
        return self.output == "json"

    def tell(self, answer: Answer, words: Callable[[Any], str]) -> None:
        """The answer's body as it came, or in words."""
        if self.is_json:
            write_body(answer.body)
        else:
            click.echo(words(answer.value))


def write_body(body: bytes) -> None:
    """The API's body, byte for byte; a line end is added so that a shell's prompt is not behind it."""
    sys.stdout.write(body.decode("utf-8", "replace"))
    if not body.endswith(b"\n"):
        sys.stdout.write("\n")
    sys.stdout.flush()


def write_json(value: Any) -> None:
    click.echo(json.dumps(value))


def with_session(
    verb: Callable[Concatenate[Session, Arguments], int],
) -> Callable[..., int]:
    """Give a verb its session, and the options that make it."""

    @functools.wraps(verb)
    def run(
        *args: Any,
        admin: str | None,
        token: str | None,
        output: Output,
        config: str | None,
        **options: Any,
    ) -> int:
        from proxy.cli.address import default_address, parse_address  # noqa: PLC0415 - see above
        from proxy.cli.client import AdminClient, RefusedError  # noqa: PLC0415 - see above

        address = parse_address(admin) if admin else default_address(config)
        session = Session(AdminClient(address, token), output)
        try:
            return verb(session, *args, **options)
        except RefusedError as refusal:
            if not session.is_json:
                raise
            write_body(refusal.answer.body)
            return refusal.code

    config_option = click.option(
        "--config", metavar="FILE", help="Configuration that says where the admin API is."
    )
    return _options(config_option(run), hidden=False)


def local_options(verb: Decorated) -> Decorated:
    """The same options on a verb that asks no admin: a script may give them to every verb."""
    return _options(verb, hidden=True)


def _options(verb: Decorated, *, hidden: bool) -> Decorated:
    for option in (
        click.option(
            "--output",
            type=click.Choice(["table", "json"]),
            default="table",
            show_default=True,
            help="Words for people, or the API's answer for scripts.",
        ),
        click.option(
            "--token",
            envvar="TURNOUT_ADMIN_TOKEN",
            metavar="TOKEN",
            hidden=hidden,
            help="Admin token (or TURNOUT_ADMIN_TOKEN, which no process list shows).",
        ),
        click.option(
            "--admin",
            envvar="TURNOUT_ADMIN",
            metavar="URL",
            hidden=hidden,
            help="Admin API, http://HOST:PORT or unix:/path (or TURNOUT_ADMIN;"
            " else the configuration's admin bind).",
        ),
    ):
        verb = option(verb)
    return verb


def seconds(option: str, text: str) -> float:
    """Seconds of a duration given to `option`, such as `30s`, `5m` or `1h30m`."""
    from proxy.control.config.problem import Wrong  # noqa: PLC0415 - few verbs take a duration
    from proxy.control.config.values import duration  # noqa: PLC0415 - the same

    try:
        return duration(text)
    except Wrong as wrong:
        raise click.UsageError(f"{option} {wrong}") from wrong
