"""`turnout check` and `turnout schema`: the configuration, without a running proxy."""

from __future__ import annotations

import json
import os

import click

from proxy.cli.exits import ExitCode
from proxy.cli.run import config_path
from proxy.cli.session import Output, local_options, write_json


@click.command()
@click.argument("config", required=False)
@click.option("--config", "option", metavar="FILE", help="The same, as an option.")
@local_options
def check(config: str | None, option: str | None, output: Output, **_unused: object) -> int:
    """Print ok, or every error of CONFIG (by default config/turnout.yaml) and exit 2."""
    errors = errors_of(config_path(config, option))
    if output == "json":
        write_json({"ok": not errors, "errors": errors})
    else:
        click.echo("\n".join(errors) if errors else "ok")
    return ExitCode.USAGE if errors else ExitCode.DONE


def errors_of(path: str) -> list[str]:
    """Every error of a configuration's file, each with its place."""
    from proxy.control.config.load import load_file  # noqa: PLC0415 - pydantic
    from proxy.control.config.problem import ConfigInvalid  # noqa: PLC0415 - the same

    try:
        load_file(path, os.environ)
    except ConfigInvalid as invalid:
        return [str(problem) for problem in invalid.problems]
    return []


@click.command()
@local_options
def schema(**_unused: object) -> int:
    """Print the JSON Schema of the configuration, for editors."""
    from proxy.control.config.schema import json_schema  # noqa: PLC0415 - pydantic

    click.echo(json.dumps(json_schema(), indent=2))
    return ExitCode.DONE
