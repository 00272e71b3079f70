"""The terminal: colour and lines only where a person looks and did not ask for plain text."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from rich import box
from rich.console import Console, RenderableType
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


@dataclass(frozen=True, slots=True)
class Paper:
    """What a page is drawn on: plain has no colour, lines or bars."""

    plain: bool
    width: int


def console() -> Console:
    plain = is_plain()
    return Console(
        no_color=plain,
        color_system=None if plain else "auto",
        width=None if sys.stdout.isatty() else PLAIN_WIDTH,
        highlight=False,
        emoji=False,
        markup=False,
    )


def paper(out: Console) -> Paper:
    return Paper(plain=is_plain(), width=out.width)


def show(parts: Iterable[RenderableType], out: Console) -> None:
    """Print the parts; plain text without the spaces that fill a table's lines."""
    with out.capture() as captured:
        for part in parts:
            out.print(part)
    text = captured.get()
    if is_plain():
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    sys.stdout.write(text)
    sys.stdout.flush()


def table(paper: Paper) -> Table:
    """A table with a line under its head, or with nothing but spaces."""
    return Table(
        box=None if paper.plain else box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        header_style="" if paper.plain else "dim",
        padding=(0, 2, 0, 0) if paper.plain else (0, 1, 0, 0),
    )
