"""Events: one JSON object a line on stderr."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import structlog
from proxy.process import events
events.configure()
log = structlog.get_logger("x")
log.debug("not told")
log.info("started", workers=2, name="\\u00fc\\nline")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
"""


def test_an_event_is_one_json_line_with_its_level_and_time() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    assert done.stdout == b""
    started, failed = (json.loads(line) for line in done.stderr.splitlines())
    assert started["event"] == "started"
    assert started["level"] == "info"
    assert started["workers"] == 2
    assert started["name"] == "ü\nline"
    assert started["timestamp"].endswith("Z")
    assert "ZeroDivisionError" in failed["exception"]
