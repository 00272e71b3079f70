"""What another configuration file means for everything that is in force.

Pure. Services come, go and change; each keeps the run-time values that its file does not
contradict (`reconcile`), and every key that changed leaves a decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from proxy.control import hold, reconcile, verbs
from proxy.control.config import files
from proxy.control.config.load import Loaded
from proxy.control.config.schema import Config, ServiceConfig
from proxy.control.decision import Author, Decision
from proxy.control.declared import declared, drain_rules, plan
from proxy.control.drains import settle
from proxy.control.guard.clerk import resumed
from proxy.control.keys import Ring, derive, rotate
from proxy.control.rollout.change import happen, running_in_words, superseded
from proxy.control.rollout.machine import Event, Kind, Phase
from proxy.control.rollout.reload import keep_locked_out, reload_rollout
from proxy.control.setup import Setup, Step
from proxy.control.state import Change, ServiceState

_OWN_RECORDS = frozenset({"active", "weights", "pools"})
"""Keys of a service whose changes `reconcile` records, value by value."""

_LIVE = ("listeners", "shutdown_timeout", "access_log")
"""Keys beside the services that may change while we run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What a reload needs from outside."""

    now: float
    """Wall seconds."""
    draw_offset: Callable[[], int]
    secret: str
    """Of the state store, for services that give none."""


def fixed_keys_changed(old: Config, new: Config) -> list[str]:
    """A sentence for each key that cannot change while we run."""
    pairs = {
        "state": (old.state, new.state),
        "workers": (old.workers, new.workers),
        "admin.bind": (old.admin.bind, new.admin.bind),
        "admin.token": (old.admin.token, new.admin.token),
        "admin.read_token": (old.admin.read_token, new.admin.read_token),
    }
    return [
        f"{key} changed: needs a restart; nothing of the new file is in force"
        for key, (was, is_now) in pairs.items()
        if was != is_now
    ]


def adopt(setup: Setup, loaded: Loaded, around: Circumstances) -> Step:
    """Put the file `loaded` in the place of the setup's; its revision is not counted up here."""
    old, new = setup.loaded.config, loaded.config
    states: dict[str, ServiceState] = {}
    decisions = list(_changed_keys(None, old, new, _LIVE))
    decisions += _changed_files(setup.loaded, loaded)
    touched = set()
    for name, state in setup.states.items():
        if name not in new.services:
            states[name], records = _without(state, setup.services[name], around)
            decisions += records
    for name, service in new.services.items():
        states[name], records = _with(
            setup.states.get(name), name, service, around, setup.services.get(name)
        )
        decisions += records
        if name in setup.services and setup.services[name] != service:
            touched.add(name)
            decisions += _changed_service(name, setup.services[name], service)
    after = replace(
        setup,
        loaded=loaded,
        services={**_leaving(setup, new), **new.services},
        states=states,
        rings=_rings(setup, new, around),
    )
    return Step(setup=after, decisions=tuple(decisions), touched=frozenset(touched))


def rollout_conflicts(states: Mapping[str, ServiceState], new: Config) -> list[str]:
    """A sentence for each pool that the new file takes away from a rollout under way."""
    found = []
    for name, state in states.items():
        rollout, service = state.rolling, new.services.get(name)
        if rollout is None or service is None or rollout.phase is Phase.PROMOTED:
            continue
        found += [
            f"services.{name}.pools.{pool} is gone, and {running_in_words(rollout)};"
            " nothing of the new file is in force"
            for pool in (rollout.old, rollout.candidate)
            if pool not in service.pools
        ]
    return found


def resume(
    stored: Setup, around: Circumstances, progress: Mapping[str, Mapping[str, Any]] | None = None
) -> Step:
    """Go on after a restart: what the store remembers, under the file as it is now.

    A service the file has lost meanwhile is gone at once: the workers that served its
    endpoints are gone, too.
    """
    config = stored.loaded.config
    gone = [state for name, state in stored.states.items() if name not in config.services]
    kept: dict[str, ServiceState] = {}
    restarted: list[Decision] = []
    for name, state in stored.states.items():
        if name in config.services:
            after = _after_restart(state, (progress or {}).get(name), around)
            kept[name] = after.state
            restarted += after.decisions
    rings = {name: ring for name, ring in stored.rings.items() if name in config.services}
    step = adopt(replace(stored, states=kept, rings=rings), stored.loaded, around)
    decisions = [
        each for state in gone if not state.is_removed for each in reconcile.remove(state).decisions
    ]
    states = dict(step.setup.states)
    for name, service in config.services.items():
        if change := verbs.expire(states[name], around.now):
            states[name], records = _settled(states[name], change, service, around)
            decisions += records
        if change := hold.expire(states[name], around.now, held=0):
            states[name] = change.state
            decisions += change.decisions
    whole = replace(step.setup, states=states)
    return Step(setup=whole, decisions=(*restarted, *step.decisions, *decisions))


def refilled(
    before: Mapping[str, ServiceState], after: Mapping[str, ServiceState]
) -> Iterator[str]:
    """Services with a rollout under way whose pools have others endpoints, or another plan."""
    for name, state in after.items():
        was, rollout = before.get(name), state.rolling
        if was is None or rollout is None or was.rollout is None:
            continue
        pools = [pool for pool in (rollout.old, rollout.candidate) if pool in was.pools]
        is_refilled = any(was.filling(pool) != state.filling(pool) for pool in pools)
        if is_refilled or was.rollout.weight != rollout.weight:
            yield name


def _with(
    state: ServiceState | None,
    name: str,
    service: ServiceConfig,
    around: Circumstances,
    old: ServiceConfig | None,
) -> tuple[ServiceState, tuple[Decision, ...]]:
    if state is None or state.is_removed:
        change = reconcile.begin(name, declared(service), after=state, offset=around.draw_offset())
    else:
        change = reconcile.reconcile_file(state, declared(service))
        change = reload_rollout(
            state, change, was=plan(old or service), plan=plan(service), now=around.now
        )
        change = keep_locked_out(state, change, now=around.now)
    return _settled(state or change.state, change, service, around)


def _after_restart(
    state: ServiceState, progress: Mapping[str, Any] | None, around: Circumstances
) -> Change:
    """Its rollout goes on where it was; time while we were down is no bake."""
    if state.rolling is None:
        return Change(state=state)
    was = resumed(state.rolling, progress)
    change, outcome = happen(
        replace(state, rollout=was), Event(kind=Kind.RESTARTED, now=around.now)
    )
    is_news = outcome.rollout.phase is not was.phase
    return change if is_news else replace(change, decisions=())


def _without(
    state: ServiceState, service: ServiceConfig, around: Circumstances
) -> tuple[ServiceState, tuple[Decision, ...]]:
    if state.is_removed:
        return state, ()
    author = Author(who=reconcile.BY_FILE, at=around.now)
    change = superseded(reconcile.remove(state), "the file has the service no longer", author)
    return _settled(state, change, service, around)


def _settled(
    before: ServiceState, change: Change, service: ServiceConfig, around: Circumstances
) -> tuple[ServiceState, tuple[Decision, ...]]:
    after = settle(
        before, change.state, drain_rules(service), now=around.now, offset=around.draw_offset()
    )
    return after, change.decisions


def _leaving(setup: Setup, new: Config) -> Mapping[str, ServiceConfig]:
    return {name: setup.services[name] for name in setup.states if name not in new.services}


def _rings(setup: Setup, new: Config, around: Circumstances) -> dict[str, Ring]:
    rings = dict(setup.rings)
    for name, service in new.services.items():
        sticky = service.sticky
        if sticky.by == "none":
            continue
        old = setup.services.get(name, service).sticky
        rings[name] = rotate(
            rings.get(name, ()),
            derive(sticky.secret.get_secret_value() or around.secret, name),
            max_age_s=max(sticky.max_age, old.max_age),
            now=around.now,
        )
    return rings


def _changed_files(old: Loaded, new: Loaded) -> Iterator[Decision]:
    """Files that are named as before, and hold something else now; pages that came or went."""
    was, is_now = old.files.contents, new.files.contents
    folders = _folders(old.config) & _folders(new.config)
    for name in sorted(set(was) | set(is_now)):
        before, after = was.get(name), is_now.get(name)
        is_named = name.rpartition("/")[0] in folders or (before is not None and after is not None)
        if before != after and is_named:
            what = "is new" if before is None else "is gone" if after is None else "changed"
            yield Decision(
                what="reload",
                who=reconcile.BY_FILE,
                service=None,
                before=_digest(before),
                after=_digest(after),
                why=f"the file {name} {what}",
                numbers={"key": name},
            )


def _folders(config: Config) -> set[str]:
    """Folders that the configuration names."""
    return {each.written.rstrip("/") for each in files.named(config) if each.is_folder}


def _digest(content: bytes | None) -> str | None:
    return None if content is None else f"sha256 {sha256(content).hexdigest()[:16]}"


def _changed_service(name: str, old: ServiceConfig, new: ServiceConfig) -> Iterator[Decision]:
    keys = [key for key in new.model_dump() if key not in _OWN_RECORDS]
    return _changed_keys(name, old, new, keys)


def _changed_keys(
    service: str | None, old: Any, new: Any, keys: list[str] | tuple[str, ...]
) -> Iterator[Decision]:
    changed = [key for key in keys if getattr(old, key) != getattr(new, key)]
    if not changed:
        return
    # The plain form has secrets as ***, so that no decision ever holds one.
    was, is_now = (each.model_dump(mode="json", by_alias=True) for each in (old, new))
    for key in changed:
        yield Decision(
            what="reload",
            who=reconcile.BY_FILE,
            service=service,
            before=was[key],
            after=is_now[key],
            why="the file changed",
            numbers={"key": key},
        )
