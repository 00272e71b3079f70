"""What `turnout status` shows: pure renderings of the API's status and service views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from proxy.cli import rollout_words, words
from proxy.cli.terminal import Paper, table

WIDE = 100
"""Columns from which the bars are long and a release has room."""
COLOURS = ("cyan", "magenta")
"""Of a service's pools in the order of their names, where the names are no colours themselves."""
STYLES = {
    "available": "green",
    "draining": "yellow",
    "asks to drain": "yellow",
    "unchecked": "yellow",
}
"""Of an endpoint's state; the others are troubles."""
MOST_TROUBLES = 5
"""Endpoints of one service whose trouble is told on the page of all services."""
PHASE_STYLES = {
    "warming": "cyan",
    "baking": "cyan",
    "promoted": "green",
    "rolled_back": "bold red",
    "stuck": "bold red",
}
"""Of a rollout's line; in the other phases somebody waits for somebody."""
VERDICT_STYLES = {"FAIL": "bold red", "PASS": "green"}
NAMED = {"blue": "bright_blue", "green": "bright_green"}

View = Mapping[str, Any]


def status_page(status: View, now: datetime, paper: Paper) -> Iterator[RenderableType]:
    """Everything on one page: the proxy, its troubles, its services."""
    yield _headline(status, now)
    yield from _troubles(status, now)
    for service in status.get("services", []):
        yield Text()
        yield from service_page(service, now, paper)
    if not status.get("services"):
        yield Text("\nno services configured.")


def service_page(
    service: View, now: datetime, paper: Paper, *, with_endpoints: bool = False
) -> Iterator[RenderableType]:
    """One service: its pools, what differs from the file, its drain."""
    yield _title(service)
    yield _indented(_pools(service, paper))
    if with_endpoints:
        yield Text()
        yield _indented(_endpoints(service, paper))
    for line in _endpoint_troubles(service, now, None if with_endpoints else MOST_TROUBLES):
        yield _indented(line)
    for line in _notes(service, now):
        yield _indented(line)


def _indented(inner: RenderableType) -> Padding:
    return Padding(inner, (0, 0, 0, 2), expand=False)


def _headline(status: View, now: datetime) -> Text:
    workers = status.get("workers", [])
    up = sum(1 for worker in workers if worker.get("up", True))
    config = status.get("config") or {}
    loaded = words.ago(config.get("loaded_at"), now)
    parts = [
        f"Turnout {status.get('version', '')}".strip(),
        f"up {words.duration(float(status.get('uptime_s') or 0))}",
        f"revision {status.get('revision')}",
        words.count(len(workers), "worker")
        if up == len(workers)
        else f"{up} of {words.count(len(workers), 'worker')} up",
    ]
    text = Text(parts[0], style="bold")
    text.append(" · " + " · ".join(parts[1:]), style="not bold")
    where = f"\n{config.get('path', '')}" + (f", loaded {loaded}" if loaded else "")
    return text.append(where, style="not bold dim")


def _troubles(status: View, now: datetime) -> Iterator[RenderableType]:
    config = status.get("config") or {}
    errors = [str(error) for error in config.get("last_errors") or []]
    if not errors and config.get("last_error"):
        errors = [str(config["last_error"])]
    if errors:
        head = "the last reload failed; the configuration before it still serves:"
        yield Text(f"! {head}", style="bold red")
        yield from (_indented(Text(error, style="red")) for error in errors)
    for certificate in status.get("certificates") or []:
        if certificate.get("state") != "valid":
            yield Text(f"! {_of_certificate(certificate, now)}", style="bold red")
    if problem := status.get("problem"):
        yield Text(f"! {problem}", style="bold red")
    if problem := (status.get("state") or {}).get("problem"):
        yield Text(f"! state: {problem}", style="bold red")


def _of_certificate(certificate: View, now: datetime) -> str:
    where = f"the certificate {certificate.get('certificate')} of {certificate.get('listener')}"
    end = words.moment(str(certificate.get("not_after")))
    if certificate.get("state") == "expired":
        return f"{where} expired {words.ago(certificate.get('not_after'), now)}: renew it"
    if certificate.get("state") == "not_yet_valid":
        return f"{where} is not valid before {certificate.get('not_before')}"
    left = "" if end is None else f" in {words.duration((end - now).total_seconds())}"
    return f"{where} expires{left}: renew it"


def _title(service: View) -> Text:
    text = Text(str(service["name"]), style="bold")
    if hold := service.get("hold"):
        text.append("  RELEASING" if hold.get("releasing") else "  ON HOLD", style="red")
    active = f"active {service.get('active')}"
    if service.get("candidate"):
        active += f", candidate {service['candidate']}"
    if service.get("is_leaving"):
        active += ", removed from the configuration: ends what is in flight"
    return text.append(f"  {active}", style="not bold dim")


def _pools(service: View, paper: Paper) -> RenderableType:
    shown = table(paper)
    shown.add_column("pool", no_wrap=True, overflow="ellipsis", max_width=16)
    shown.add_column("weight", justify="right", no_wrap=True)
    if not paper.plain:
        shown.add_column("", no_wrap=True)
    release_width = 24 if paper.width >= WIDE else 12
    shown.add_column("release", no_wrap=True, overflow="ellipsis", max_width=release_width)
    for head in ("endpoints", "in flight", "requests"):
        shown.add_column(head, justify="right", no_wrap=True)
    for name, pool, colour in _coloured(service):
        shown.add_row(*_pool_row(service, name, pool, colour, paper))
    return shown


def _coloured(service: View) -> Iterator[tuple[str, View, str]]:
    pools = service.get("pools") or {}
    for index, name in enumerate(sorted(pools)):
        yield name, pools[name], colour_of(name, index)


def colour_of(pool: str, index: int) -> str:
    return NAMED.get(pool) or COLOURS[index % len(COLOURS)]


def _pool_row(
    service: View, name: str, pool: View, colour: str, paper: Paper
) -> list[RenderableType]:
    weight = float(service["weights"]["in_force"].get(name, 0))
    row: list[RenderableType] = [
        Text(name, style=colour if weight else "dim"),
        Text(words.percent(weight), style="bold" if weight else "dim"),
    ]
    if not paper.plain:
        row.append(bar(weight, 20 if paper.width >= WIDE else 10, colour))
    return [
        *row,
        str(pool.get("release") or "-"),
        _availability(pool),
        words.number(in_flight(pool)),
        words.number(requests(service, name)),
    ]


def bar(percent: float, cells: int, colour: str) -> Text:
    """A share as a bar; a share above zero is never drawn as nothing."""
    filled = round(percent / 100 * cells)
    if percent > 0:
        filled = max(1, filled)
    if percent < 100:
        filled = min(cells - 1, filled)
    return Text("━" * filled, style=colour).append("╌" * (cells - filled), style="bright_black")


def _availability(pool: View) -> Text:
    # A pool that was left drains, so nothing of it is available; whether it is up still matters.
    key = "up" if pool.get("draining") else "available"
    endpoints = pool.get("endpoints") or []
    good = sum(1 for endpoint in endpoints if endpoint.get(key))
    style = "" if good == len(endpoints) else ("yellow" if good else "red")
    return Text(f"{good}/{len(endpoints)}", style=style)


def in_flight(pool: View) -> int:
    """Exchanges of a pool in flight, of all classes."""
    return sum(int(value) for value in (pool.get("in_flight") or {}).values())


def requests(service: View, pool: str) -> int:
    """Requests a pool has answered since the counters began."""
    counts = (service.get("counts") or {}).get(pool) or {}
    return int(counts.get("requests") or 0)


def _endpoints(service: View, paper: Paper) -> RenderableType:
    shown = table(paper)
    shown.add_column("endpoint", no_wrap=True, overflow="ellipsis")
    shown.add_column("pool", no_wrap=True)
    shown.add_column("state", no_wrap=True)
    for head in ("in flight", "idle", "requests", "failures"):
        shown.add_column(head, justify="right", no_wrap=True)
    for name, pool, colour in _coloured(service):
        for endpoint in pool.get("endpoints") or []:
            numbers = (endpoint.get(key) or 0 for key in ("in_flight", "idle", "requests"))
            failures = endpoint.get("failures") or 0
            shown.add_row(
                str(endpoint["address"]),
                Text(name, style=colour),
                _state(endpoint),
                *(words.number(int(number)) for number in numbers),
                Text(words.number(int(failures)), style="red" if failures else ""),
            )
    return shown


def _state(endpoint: View) -> Text:
    if endpoint.get("leaving"):
        return Text("leaving", style="yellow")
    state = str(endpoint.get("state") or "unreachable")
    if state == "draining" and endpoint.get("asks_to_drain"):
        state = "asks to drain"
    return Text(state.replace("unreachable", "not reachable"), style=STYLES.get(state, "red"))


def _endpoint_troubles(service: View, now: datetime, most: int | None) -> Iterator[Text]:
    """A line for each endpoint that is kept away from traffic: what its last check said, or why."""
    troubled = [
        (name, endpoint, trouble)
        for name, pool, _ in _coloured(service)
        for endpoint in pool.get("endpoints") or []
        if (trouble := _trouble(endpoint))
    ]
    for name, endpoint, (said, at) in troubled[:most]:
        ago = words.ago(at, now)
        state = _state(endpoint)
        yield Text.assemble(
            f"{name} {endpoint['address']} ",
            (str(state), state.style),
            f": {said}{f', {ago}' if ago else ''}",
        )
    if most is not None and len(troubled) > most:
        yield Text(f"and {len(troubled) - most} more: turnout status {service['name']}")


def _trouble(endpoint: View) -> tuple[str, str | None] | None:
    """What keeps it away, and since when that is known; None if it is nothing but a drain of ours."""
    if endpoint.get("available"):
        return None
    is_up = endpoint.get("up", True) and not endpoint.get("asks_to_drain")
    if not is_up and endpoint.get("last_check"):
        return endpoint["last_check"], endpoint.get("last_check_at")
    why = endpoint.get("ejected_why")
    return (why, None) if why else None


def _rollout(service: View, now: datetime) -> Iterator[Text]:
    """The rollout unless it is over and done with, what the guard says, what is locked out."""
    rollout, guard = service.get("rollout"), service.get("guard")
    is_over = rollout is None or rollout["phase"] == "steady"
    if rollout is not None and not is_over:
        said = f"{rollout_words.title(rollout)}: {rollout_words.sentence(service)}"
        yield Text(said, style=PHASE_STYLES.get(rollout["phase"], "yellow"))
    if rollout is not None and rollout["phase"] == "baking":
        parts = [
            words.count(int(rollout.get("requests") or 0), "request") + " in this step",
            rollout_words.evidence(guard),
        ]
        yield Text("; ".join(filter(None, parts)), style="dim")
    if not is_over and (verdict := _verdict(service)):
        yield Text(verdict, style=VERDICT_STYLES.get((guard or {})["verdict"], "yellow"))
    if locked := rollout_words.lockout(service, now):
        yield Text(locked, style="red")


def _verdict(service: View) -> str:
    """What the guard says beside what the rollout's own line tells already."""
    guard = service.get("guard") or {}
    is_told = guard.get("verdict") == "HOLD" and rollout_words.held(guard) in (
        rollout_words.waiting(service)
    )
    is_over = service["rollout"]["phase"] == "rolled_back"
    return "" if is_told or is_over else rollout_words.verdict(guard)


def _notes(service: View, now: datetime) -> Iterator[Text]:
    yield from _rollout(service, now)
    if hold := service.get("hold"):
        yield Text(f"! {words.hold_sentence(hold, now)}", style="bold red")
    for override in service.get("overrides") or []:
        yield Text(_override(override, now), style="yellow")
    drain = service.get("drain")
    if drain and not (words.is_empty(drain) and drain.get("done", True)):
        yield Text(words.drain_sentence(drain), style="yellow")


def _override(override: View, now: datetime) -> str:
    ago = words.ago(override.get("at"), now)
    until = None if override.get("until") is None else words.moment(override["until"])
    parts = [
        f"{override.get('key')} {words.setting(override.get('value'))}",
        f" by {override.get('who')}",
        f" {ago}" if ago else "",
        f" (file: {words.setting(override.get('file_value'))})",
        f": {override['reason']}" if override.get("reason") else "",
        f"; for {words.duration((until - now).total_seconds())} more" if until else "",
    ]
    return "".join(parts)
