"""The `turnout` command: finds the verb, imports it alone, and turns every end into an exit code."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import click

from proxy import __version__
from proxy.cli.exits import CommandError, ExitCode


class Verb(NamedTuple):
    """Where a verb lives (module and function have to be imported to run it) and its line of help."""

    module: str
    function: str
    summary: str


VERBS = {
    "run": Verb("run", "run", "Start the proxy on a configuration."),
    "check": Verb("config", "check", "Say whether a configuration is valid, with every error."),
    "schema": Verb("config", "schema", "Print the JSON Schema of the configuration."),
    "status": Verb("status", "status", "Show services, pools, weights and drains."),
    "deploy": Verb("deploy", "deploy", "Fill the idle pool, move the traffic, wait for the end."),
    "rollout": Verb("rollout", "rollout", "Start, pause, resume, promote or abort a rollout."),
    "weights": Verb("traffic", "weights", "Set the shares of a service's pools by hand."),
    "switch": Verb("traffic", "switch", "Move all traffic of a service to one pool, guarded."),
    "rollback": Verb("traffic", "rollback", "Everything back to the pool that was active before."),
    "unlock": Verb("rollout", "unlock", "Let a release start again that was rolled back."),
    "drain": Verb("drain", "drain", "Send nothing new to a pool or an endpoint; wait for its end."),
    "hold": Verb("hold", "hold", "Have new requests of a service wait."),
    "release": Verb("hold", "release", "Let what is held go, at a steady pace."),
    "reload": Verb("reload", "reload", "Read the configuration's file again."),
    "decisions": Verb("decisions", "decisions", "Show who changed what, when and why."),
    "replay": Verb("replay", "replay", "Judge a recorded rollout again, with other settings."),
    "demo": Verb("demo", "demo", "See it work: a good release, a bad one, an outage, under load."),
}

EPILOG = """\b
Exit codes: 0 done, 1 refused or failed, 2 usage or configuration,
3 not ready, 4 rolled back, 5 timed out while waiting (the work goes on),
6 proxy not reachable."""


class VerbGroup(click.Group):
    """A group whose verbs are imported one at a time, when asked for."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        module = importlib.import_module(f"proxy.cli.{verb.module}")
        command = getattr(module, verb.function)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(_unknown(args[0]), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.summary) for name, verb in VERBS.items()])


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"there is no verb '{name}'{hint}"


@click.group(
    cls=VerbGroup,
    epilog=EPILOG,
    subcommand_metavar="VERB [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="turnout", message="%(prog)s %(version)s")
def turnout() -> None:
    """Turnout splits traffic between two pools of a service, without downtime."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 must not break a verb
            stream.reconfigure(errors="replace")
    try:
        return _run(argv)
    except CommandError as error:
        _complain(error.sentence, error.details)
        return error.code
    except click.UsageError as error:
        return _usage(error)
    except click.ClickException as error:
        _complain(error.format_message())
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # `turnout status | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE


def _run(argv: Sequence[str] | None) -> int:
    code = turnout.main(
        args=None if argv is None else list(argv), prog_name="turnout", standalone_mode=False
    )
    sys.stdout.flush()
    return code if isinstance(code, int) else ExitCode.DONE


def _usage(error: click.UsageError) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return ExitCode.USAGE
    path = error.ctx.command_path if error.ctx else "turnout"
    _complain(error.format_message().rstrip("."), (f"'{path} --help' shows how it is written",))
    return ExitCode.USAGE


def _complain(sentence: str, details: tuple[str, ...] = ()) -> None:
    click.echo(f"turnout: {sentence}", err=True)
    if details != (sentence,):  # the only detail may be all that is said
        for line in details:
            click.echo(f"  {line}", err=True)


if __name__ == "__main__":
    sys.exit(main())
