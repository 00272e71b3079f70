"""`turnout run`: the proxy itself."""

from __future__ import annotations

import click

from proxy.cli.address import DEFAULT_CONFIG
from proxy.cli.session import local_options


def config_path(argument: str | None, option: str | None) -> str:
    """The configuration named by the argument or by --config; by both is an error."""
    if argument and option:
        raise click.UsageError("give the configuration once: as CONFIG or with --config")
    return argument or option or DEFAULT_CONFIG


@click.command()
@click.argument("config", required=False)
@click.option("--config", "option", metavar="FILE", help="The same, as an option.")
@local_options
def run(config: str | None, option: str | None, **_unused: object) -> int:
    """Start the proxy on CONFIG (by default config/turnout.yaml).

    SIGTERM ends it gracefully, SIGHUP reads the configuration again.
    """
    path = config_path(config, option)
    from proxy.process.supervisor import main  # noqa: PLC0415 - the whole program

    return main(path)
