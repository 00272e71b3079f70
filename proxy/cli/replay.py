"""`turnout replay`: a recorded rollout judged again, with other settings of the guard."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli import words
from proxy.cli.exits import CommandError, ExitCode
from proxy.cli.rollout_words import told
from proxy.cli.session import Output, local_options, seconds, write_json

if TYPE_CHECKING:
    from proxy.control.guard.recording import Recording
    from proxy.control.guard.replay import Highest, Moment, Replayed
    from proxy.policy.judge import Knobs


def knob_options(verb: Callable[..., int]) -> Callable[..., int]:
    """An option for every knob of the judge."""
    for option in reversed(
        (
            click.option("--false-alarm", metavar="SHARE", help="Such as 1%."),
            click.option("--tolerance", metavar="SHARE", help="Such as 20%."),
            click.option("--tolerance-abs", metavar="SHARE", help="Such as 0.05%."),
            click.option("--latency", type=click.Choice(["on", "off"])),
            click.option("--latency-tolerance", metavar="SHARE", help="Such as 20%."),
            click.option("--latency-floor", metavar="DURATION", help="Such as 5ms."),
            click.option("--hard-rate", metavar="SHARE", help="Such as 30%."),
            click.option("--min-requests", type=click.IntRange(1, 1_000_000)),
            click.option("--warmup", metavar="DURATION", help="Such as 30s."),
            click.option("--count-4xx", type=click.Choice(["true", "false"])),
        )
    ):
        verb = option(verb)
    return verb


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--service", required=True, metavar="SERVICE")
@click.option("--rollout", type=click.IntRange(1), help="Which one, by its number.  [the last]")
@click.option("--config", metavar="CONFIG", help="Take the guard's settings from this file.")
@click.option(
    "--export",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Judge nothing; write what is recorded to OUT, as lines of JSON.",
)
@knob_options
@local_options
def replay(
    file: Path,
    *,
    service: str,
    rollout: int | None,
    config: str | None,
    export: Path | None,
    output: Output,
    **options: Any,
) -> int:
    """Judge a rollout of SERVICE again that is recorded in FILE.

    FILE is the state store (turnout.db), which may be in use, or what --export wrote. Settings
    that are not given are those that were in force then.
    """
    found = _load(file, service, rollout, is_export=export is not None)
    if export is not None:
        return _export(found, export)
    from proxy.control.guard.replay import replay as judge_again  # noqa: PLC0415 - the judge

    recording = found[-1]
    change = _change(options, config, service)
    replayed = judge_again(recording.ticks, change)
    if output == "json":
        write_json(_plain(recording, replayed, change))
    else:
        click.echo("\n".join(_sentences(recording, replayed)))
        _show_tests(replayed)
    return ExitCode.DONE


def _load(file: Path, service: str, rollout: int | None, *, is_export: bool) -> list[Recording]:
    from proxy.control.guard.recording import Unreadable, load  # noqa: PLC0415 - sqlite3

    try:
        found = load(file, service)
    except Unreadable as problem:
        raise CommandError(ExitCode.USAGE, str(problem)) from problem
    if rollout is None:
        return found if is_export else found[-1:]
    chosen = [each for each in found if each.rollout == rollout]
    if not chosen:
        known = ", ".join(str(each.rollout) for each in found)
        sentence = f"{file} has no rollout {rollout} of {service} (it has {known})"
        raise CommandError(ExitCode.USAGE, sentence)
    return chosen


def _export(found: list[Recording], out: Path) -> int:
    from proxy.control.guard.recording import lines  # noqa: PLC0415 - sqlite3

    count = 0
    try:
        with out.open("x", encoding="utf-8") as file:
            for count, line in enumerate(lines(found), 1):  # noqa: B007 - it is told at the end
                file.write(f"{line}\n")
    except OSError as error:
        reason = error.strerror or error
        raise CommandError(ExitCode.USAGE, f"cannot write {out}: {reason}") from error
    click.echo(f"{words.count(count, 'line')} in {out}.")
    return ExitCode.DONE


# ---- the knobs ----

Change = Callable[["Knobs"], "Knobs"]


def _change(options: Mapping[str, Any], config: str | None, service: str) -> Change:
    """What makes the knobs of the replay of those that were in force then."""
    given = {key: value for key, value in _given(options).items() if value is not None}
    base = _of_file(config, service) if config else None
    return lambda then: replace(base or then, **given)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    shares = ("false_alarm", "tolerance", "tolerance_abs", "latency_tolerance", "hard_rate")
    given: dict[str, Any] = {name: _share(name, options[name]) for name in shares}
    given["latency_floor_s"] = _seconds("latency_floor", options["latency_floor"])
    given["warmup_s"] = _seconds("warmup", options["warmup"])
    given["min_requests"] = options["min_requests"]
    given["latency"] = {"on": True, "off": False, None: None}[options["latency"]]
    given["count_4xx"] = {"true": True, "false": False, None: None}[options["count_4xx"]]
    if given["false_alarm"] == 0:
        raise click.UsageError("--false-alarm is 0, with which nothing is ever turned back")
    return given


def _share(name: str, text: str | None) -> float | None:
    from proxy.control.config.problem import Wrong  # noqa: PLC0415 - few verbs take one
    from proxy.control.config.values import share  # noqa: PLC0415 - the same

    if text is None:
        return None
    try:
        return share(text) / 10_000
    except Wrong as wrong:
        raise click.UsageError(f"--{name.replace('_', '-')} {wrong}") from wrong


def _seconds(name: str, text: str | None) -> float | None:
    return None if text is None else seconds(f"--{name.replace('_', '-')}", text)


def _of_file(config: str, service: str) -> Knobs:
    from proxy.control.config.load import load_file  # noqa: PLC0415 - pydantic
    from proxy.control.config.problem import ConfigInvalid  # noqa: PLC0415 - the same
    from proxy.control.declared import guard_rules  # noqa: PLC0415 - the same

    try:
        services = load_file(config, os.environ).config.services
    except ConfigInvalid as invalid:
        problems = tuple(str(each) for each in invalid.problems)
        raise CommandError(ExitCode.USAGE, f"{config} is not valid", problems) from invalid
    if service not in services:
        raise CommandError(ExitCode.USAGE, f"{config} has no service {service}")
    return guard_rules(services[service]).knobs


# ---- in words ----


def _sentences(recording: Recording, replayed: Replayed) -> list[str]:
    first = recording.ticks[0][1]
    release = f" ({first.release})" if first.release else ""
    recorded = words.duration(replayed.recorded_s)
    missed = ""
    if replayed.missed_s >= 2:
        missed = f", from {words.duration(replayed.missed_s)} after its first step on"
    whose = f"rollout {recording.rollout} of {recording.service} to {first.candidate}{release}"
    said = [f"{whose}: {recorded} recorded{missed}."]
    said += [f"would have rolled back {_moment(each)}" for each in replayed.would]
    if not replayed.would:
        said.append("would not have rolled back.")
    said += [
        f"in truth the judge said FAIL{_mode(each)} {_moment(each)}" for each in replayed.really
    ]
    if not replayed.really:
        said.append("in truth the judge never said FAIL.")
    if recording.decisions:
        last = recording.decisions[-1]
        said.append(f"its last record: {_phase(last)} at {_when(last)}: {last.get('why')}")
    return said


def _mode(moment: Moment) -> str:
    return "" if moment.mode == "enforce" else f" (and was not obeyed: {moment.mode})"


def _moment(moment: Moment) -> str:
    """`14s after the start of step 2 (10 %), at 10:14:10: errors: ...`."""
    after = words.duration(moment.since_step_s)
    clock = datetime.fromtimestamp(moment.at, UTC).astimezone().strftime("%H:%M:%S")
    return f"{after} after {_place(moment)}, at {clock}: {told(moment.reason, moment.words)}"


def _place(moment: Moment) -> str:
    if moment.phase.value == "promoted":
        return "it got everything"
    if moment.phase.value == "asking":
        return "the old pool was asked"
    return f"the start of step {moment.step + 1} ({words.percent(moment.weight / 100)})"


def _when(record: Mapping[str, Any]) -> str:
    at = words.moment(str(record.get("at", "")))
    return at.astimezone().strftime("%H:%M:%S") if at else "?"


def _phase(record: Mapping[str, Any]) -> str:
    after = record.get("to")
    return str(after.get("phase")).replace("_", " ") if isinstance(after, dict) else "-"


def _show_tests(replayed: Replayed) -> None:
    from proxy.cli import terminal  # noqa: PLC0415 - rich

    out = terminal.console()
    table = terminal.table(terminal.paper(out))
    for head in ("test", "highest evidence", "bar", "after"):
        table.add_column(head)
    for each in replayed.highest.values():
        numbers = (f"{each.test.evidence:.1f}", f"{each.test.bar:.1f}")
        table.add_row(each.test.name, *numbers, words.duration(each.at_s))
    terminal.show([table], out)


# ---- for scripts ----


def _plain(recording: Recording, replayed: Replayed, change: Change) -> dict[str, Any]:
    first = recording.ticks[0][1]
    return {
        "service": recording.service,
        "rollout": recording.rollout,
        "candidate": first.candidate,
        "release": first.release,
        "ticks": replayed.ticks,
        "recorded_s": round(replayed.recorded_s, 3),
        "missed_s": round(replayed.missed_s, 3),
        "knobs": asdict(change(first.knobs)),
        "would": [_moment_plain(each) for each in replayed.would],
        "really": [_moment_plain(each) for each in replayed.really],
        "verdicts": {call.value: count for call, count in replayed.verdicts.items()},
        "tests": [_test_plain(each) for each in replayed.highest.values()],
        "decisions": list(recording.decisions),
    }


def _moment_plain(moment: Moment) -> dict[str, Any]:
    return {
        "at": datetime.fromtimestamp(moment.at, UTC).isoformat(timespec="milliseconds"),
        "at_s": round(moment.at_s, 3),
        "phase": moment.phase.value,
        "step": moment.step + 1,
        "weight": moment.weight / 100,
        "mode": moment.mode,
        "since_step_s": round(moment.since_step_s, 3),
        "reason": moment.reason,
        "words": moment.words,
    }


def _test_plain(highest: Highest) -> dict[str, Any]:
    return {
        "name": highest.test.name,
        "evidence": round(highest.test.evidence, 3),
        "bar": round(highest.test.bar, 3),
        "at_s": round(highest.at_s, 3),
    }
