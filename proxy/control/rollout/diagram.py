"""The picture and the table of docs/rollouts.md, generated from the machine's own table.

Usage: python -m proxy.control.rollout.diagram (part of `make docs`)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from proxy.control.rollout.machine import TABLE, Kind, Phase

ROOT = Path(__file__).parents[3]
PAGE = Path("docs/rollouts.md")
MARK = "<!-- generated from the table of the machine: {} -->"

TICKS: dict[Phase, dict[Phase, str]] = {
    Phase.BAKING: {
        Phase.BAKING: "baked, next step",
        Phase.PAUSED: "gate, starved, or FAIL and on_fail pause",
        Phase.PROMOTED: "last step baked",
        Phase.ROLLED_BACK: "FAIL",
        Phase.STUCK: "FAIL, old pool gone",
    },
    Phase.PAUSED: {Phase.ROLLED_BACK: "FAIL", Phase.STUCK: "FAIL, old pool gone"},
    Phase.MANUAL: {
        Phase.PAUSED: "FAIL and on_fail pause",
        Phase.ROLLED_BACK: "FAIL",
        Phase.STUCK: "FAIL, old pool gone",
    },
    Phase.PROMOTED: {
        Phase.ASKING: "FAIL",
        Phase.ROLLED_BACK: "FAIL and ask off",
        Phase.STUCK: "FAIL, old pool gone",
        Phase.STEADY: "keep_old over",
    },
    Phase.ASKING: {
        Phase.PROMOTED: "old pool no better",
        Phase.ROLLED_BACK: "old pool better, or 5 s over",
        Phase.STUCK: "old pool gone",
    },
    Phase.STUCK: {
        Phase.ROLLED_BACK: "old pool back",
        Phase.BAKING: "recovered",
        Phase.PAUSED: "recovered",
        Phase.MANUAL: "recovered",
        Phase.PROMOTED: "recovered",
    },
}
"""What a tick that leads from one phase to another has found."""

LEFT_OUT = frozenset({Kind.SUPERSEDED, Kind.PLAN_CHANGED, Kind.RESTARTED, Kind.REJUDGE})
"""Of the picture: these come from the file or a restart, and are told in words."""

VERBS = {
    Kind.PAUSE: "`turnout rollout pause`",
    Kind.RESUME: "`turnout rollout resume`",
    Kind.PROMOTE: "`turnout rollout promote`",
    Kind.ABORT: "`turnout rollout abort`",
    Kind.ROLL_BACK: "`turnout rollback`",
    Kind.WEIGHTS: "`turnout weights`",
    Kind.REJUDGE: "`turnout rollout rejudge`",
    Kind.UNLOCK: "`turnout unlock`",
}


def picture() -> str:
    """Every way from one phase to another, as a Mermaid diagram."""
    lines = ["stateDiagram-v2", "    [*] --> warming: start", "    [*] --> promoted: switch"]
    lines += [
        f"    {before.value} --> {after.value}: {' / '.join(words)}"
        for (before, after), words in _ways().items()
    ]
    lines += [f"    {phase.value} --> [*]" for phase in (Phase.STEADY, Phase.ROLLED_BACK)]
    return "```mermaid\n" + "\n".join(lines) + "\n```"


def _ways() -> dict[tuple[Phase, Phase], list[str]]:
    ways: dict[tuple[Phase, Phase], list[str]] = {}
    for (phase, kind), (_, targets) in TABLE.items():
        for target in targets:
            words = _words(phase, kind, target)
            if words and words not in ways.setdefault((phase, target), []):
                ways[phase, target].append(words)
    return {way: words for way, words in ways.items() if words}


def _words(phase: Phase, kind: Kind, target: Phase) -> str:
    if kind in LEFT_OUT:
        return ""
    if kind is Kind.TICK:
        return TICKS[phase].get(target, "")
    if kind is Kind.WEIGHTS and target is not Phase.MANUAL:
        return "weights 0" if target is Phase.STEADY else "weights 100"
    return "" if target is phase else kind.value


def verbs() -> str:
    """What a person may do in each phase, as a table."""
    phases = [phase for phase in Phase if phase is not Phase.STEADY]
    rows = ["| | " + " | ".join(phase.value.replace("_", " ") for phase in phases) + " |"]
    rows.append("| --- " * (len(phases) + 1) + "|")
    for kind, verb in VERBS.items():
        marks = ("yes" if (phase, kind) in TABLE else "-" for phase in phases)
        rows.append(f"| {verb} | " + " | ".join(marks) + " |")
    return "\n".join(rows)


def fresh(text: str) -> str:
    """The page with what is generated in it as it is now."""
    for name, part in (("picture", picture()), ("verbs", verbs())):
        begin, end = MARK.format(f"{name} begins"), MARK.format(f"{name} ends")
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n\n{part}\n\n{end}{after}"
    return text


def write(root: Path) -> None:
    page = root / PAGE
    page.write_text(fresh(page.read_text(encoding="utf-8")), encoding="utf-8")


def targets_of_ticks() -> Iterator[tuple[Phase, Phase]]:
    """Every way by which a tick leads to another phase."""
    for (phase, kind), (_, targets) in TABLE.items():
        if kind is Kind.TICK:
            yield from ((phase, target) for target in targets if target is not phase)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
