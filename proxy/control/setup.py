"""Everything that is in force: the file, the run-time states over it, the keys; swapped at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.control.config.load import Loaded
from proxy.control.config.schema import ServiceConfig
from proxy.control.decision import Decision
from proxy.control.keys import Rings
from proxy.control.state import ServiceState


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One consistent whole; a change makes another one."""

    loaded: Loaded
    services: Mapping[str, ServiceConfig] = field(default_factory=dict)
    """Those of the file, and the last words on those that are still leaving."""
    states: Mapping[str, ServiceState] = field(default_factory=dict)
    rings: Rings = field(default_factory=dict)
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From one setup to the next, with the records of what changed."""

    setup: Setup
    decisions: tuple[Decision, ...] = ()
    touched: frozenset[str] = frozenset()
    """Services that changed in a way their states do not show."""
    is_housekeeping: bool = False
    """Nobody asked for it, such as the end of a drain: the services' own revisions stay, so
    that an ETag someone holds from their last change is still good."""
