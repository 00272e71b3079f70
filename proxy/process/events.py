"""How events are written: structured lines on stderr, readable ones on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import TextIO, cast

import structlog

from proxy.process.outlet import Outlet


def configure() -> Outlet:
    """JSON lines on stderr; on a terminal, columns for people. Returns where they go out."""
    outlet = Outlet()
    is_terminal = sys.stderr.isatty()
    renderer = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if is_terminal
        else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=not is_terminal),
    ]
    if not is_terminal:
        processors.append(structlog.processors.format_exc_info)
    processors.append(renderer)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", outlet)),
        cache_logger_on_first_use=True,
    )
    return outlet
