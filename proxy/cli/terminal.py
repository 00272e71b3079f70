"""The terminal: colour and lines only where a person looks and did not ask for plain text."""

from __future__ import annotations

import os
import sys

from rich import box
from rich.console import Console
from rich.table import Table

PLAIN_WIDTH = 200
"""Where nobody looks, nothing is wrapped that a script may want to read by line."""


def is_plain() -> bool:
    """Not a terminal, or the person asked for no colour (NO_COLOR), or the terminal has none."""
    return (
        not sys.stdout.isatty()
        or bool(os.environ.get("NO_COLOR"))
        or os.environ.get("TERM") == "dumb"
    )


def console() -> Console:
    plain = is_plain()
    return Console(
        no_color=plain,
        color_system=None if plain else "auto",
        width=None if sys.stdout.isatty() else PLAIN_WIDTH,
        highlight=False,
        emoji=False,
        markup=False,
        soft_wrap=False,
    )


def table(*, plain: bool) -> Table:
    """A table with a line under its head, or with nothing but spaces."""
    return Table(
        box=None if plain else box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        header_style="" if plain else "dim",
        padding=(0, 2, 0, 0) if plain else (0, 1),
    )
