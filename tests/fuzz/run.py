"""Fuzz all targets for a while: `make fuzz FUZZ_S=3600`.

Each target runs in a process of its own, with atheris where that is installed, else with the
mutator of `engine.py`. What was interesting is kept in var/fuzz/TARGET for the next run, and a
finding in var/fuzz/findings. The exit code is 1 if there is one. Atheris sees which lines of
ours are reached, not what llhttp does inside.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz import engine

ROOT = Path(__file__).parents[2]
GRACE_S = 120
"""What a target may take longer than it was told: it starts, and it reads what was kept."""


@dataclass(frozen=True)
class Outcome:
    target: str
    executions: int
    coverage: str
    finding: str


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if options.child:
        return _child(options)
    targets = options.target or engine.names()
    share_s = options.seconds * options.jobs / len(targets)
    way = "atheris" if _takes_atheris(options) else "the seeded mutator"
    print(f"{way}, seed {options.seed}, {share_s:.0f} s for each of {len(targets)} targets")
    _findings(options).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(_fuzz, name, share_s, options) for name in targets]
        outcomes = [_told(each.result()) for each in running]
    print(f"{sum(each.executions for each in outcomes)} executions in sum")
    return 1 if any(each.finding for each in outcomes) else 0


def _takes_atheris(options: Any) -> bool:
    return options.engine != "own" and importlib.util.find_spec("atheris") is not None


def _findings(options: Any) -> Path:
    return Path(options.kept) / "findings"


def _options(arguments: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="in all, not for each")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", type=int, default=cores, help="targets side by side")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument("--target", action="append", choices=engine.names())
    parser.add_argument("--engine", choices=("atheris", "own"), default="atheris")
    parser.add_argument("--kept", default=str(ROOT / "var" / "fuzz"), help="what is found")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _fuzz(name: str, seconds: float, options: Any) -> Outcome:
    command = [sys.executable, "-m", "tests.fuzz.run", "--child", "--kept", options.kept]
    command += ["--target", name, "--seconds", f"{seconds:.0f}", "--seed", str(options.seed)]
    command += ["--engine", options.engine]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds + GRACE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(name, 0, "", f"stands still after {seconds + GRACE_S:.0f} s")
    said = done.stdout.decode(errors="replace")
    executions = re.findall(r"(?:stat::number_of_executed_units:|executions:)\s+(\d+)", said)
    coverage = re.findall(r"(cov: \d+ ft: \d+|shapes: \d+)", said)
    finding = ""
    if done.returncode:
        (_findings(options) / f"{name}.txt").write_text(said[-20_000:])
        finding = said[-3000:]
    return Outcome(
        name,
        int(executions[-1]) if executions else 0,
        coverage[-1] if coverage else "nothing",
        finding,
    )


def _told(outcome: Outcome) -> Outcome:
    verdict = "FINDING" if outcome.finding else "ok"
    print(
        f"{outcome.target:<28} {outcome.executions:>10} executions, {outcome.coverage}: {verdict}",
        flush=True,
    )
    if outcome.finding:
        print(outcome.finding, flush=True)
    return outcome


# ---- in the target's process ----


def _child(options: Any) -> int:
    (name,) = options.target
    if _takes_atheris(options):
        return _with_atheris(name, options)
    mutator = engine.Mutator(engine.load(name), options.seed)
    try:
        mutator.run(seconds=options.seconds)
    except engine.Finding as finding:
        (_findings(options) / f"{name}.bin").write_bytes(finding.data)
        print(finding)
        return 1
    finally:
        print(f"executions: {mutator.executions} shapes: {mutator.shapes}")
    return 0


def _with_atheris(name: str, options: Any) -> int:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["proxy.http1", "proxy.policy", "proxy.dataplane"]):
        target = engine.load(name)
    kept = Path(options.kept) / name
    kept.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(target.seeds()):
        (kept / f"seed-{index:03}").write_bytes(data)
    words = kept.with_suffix(".dict")
    words.write_text("".join(f'"{_escaped(token)}"\n' for token in target.TOKENS))

    def one(data: bytes) -> None:
        target.run(data)

    settings = {
        "max_total_time": f"{options.seconds:.0f}",
        "max_len": engine.LONGEST,
        "seed": options.seed,
        "dict": words,
        "artifact_prefix": f"{_findings(options)}/{name}-",
        "timeout": 20,
        "print_final_stats": 1,
    }
    flags = [f"-{name}={value}" for name, value in settings.items()]
    atheris.Setup([sys.argv[0], str(kept), *flags], one)
    atheris.Fuzz()  # ends the process
    return 0


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


if __name__ == "__main__":
    sys.exit(main())
