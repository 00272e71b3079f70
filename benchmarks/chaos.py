"""Failed requests of Turnout, nginx and HAProxy while their endpoints are tormented by one plan.

All of them stand before the same endpoints at the same time, under the same load: what
goes wrong goes wrong for each of them in the same moment. A seed gives the same plan and
the same load again. The table says what clients have seen.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.chaos import chaos, proxies
from tests.chaos.endpoint import Endpoints
from tests.chaos.report import Report
from tests.ports import free_port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=None, help="of plan and load (drawn)")
    parser.add_argument("--rate", type=float, default=80.0, help="requests a second to each (80)")
    parser.add_argument("--report-every", type=float, default=0.0, help="seconds between lines")
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    setting = chaos.Setting(
        seed, options.seconds, options.rate, report_every_s=options.report_every
    )
    print(f"seed {seed}", flush=True)
    report, complaints = _run(setting)
    print(report)
    sys.exit(f"seed {seed}: " + "; ".join(complaints) if complaints else 0)


def _run(setting: chaos.Setting) -> tuple[Report, list[str]]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        endpoints = Endpoints(free_port(), **chaos.POOLS)
        stack.callback(endpoints.end)
        endpoints.start()
        turnout, started = proxies.start(directory, endpoints, stack)
        before_kib = turnout.turnout.rss_kib()
        report = chaos.run(setting, endpoints, started)
        after_kib = turnout.turnout.rss_kib()
        print(f"Turnout's workers: {before_kib} KiB before, {after_kib} KiB after", flush=True)
        return report, report.complaints(turnout.name) + turnout.complaints()


if __name__ == "__main__":
    main()
