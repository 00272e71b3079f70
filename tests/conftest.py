"""What a run of the tests has to say besides whether they passed: tables, at its end."""

from __future__ import annotations

import pytest

TABLE = "table"
"""Name of a test's property (`record_property`) that is printed when all is over."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, text in getattr(report, "user_properties", ()):
                if name == TABLE and report.when == "call":
                    terminalreporter.write_line(text)
