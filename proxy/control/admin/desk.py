"""What the admin API asks of the controller: the one door, seen from the outside."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, Protocol

View = dict[str, Any]
"""Plain values, ready for JSON."""

Step = tuple[int, float, bool]
"""Of a rollout: weight in hundredths of a percent, seconds of bake, whether it waits for a person."""

RolloutVerb = Literal["pause", "resume", "promote", "abort", "rejudge"]


class Desk(Protocol):
    """The controller's public side; its refusals are those of proxy.control.refusal.

    Weights are percent with two decimals at most; durations are float seconds.
    A change returns after every worker has applied it, and completes even if its
    caller goes away.
    """

    def status(self) -> View: ...

    def services(self) -> list[View]: ...

    def service(self, name: str) -> View: ...

    def etag(self, name: str) -> str: ...

    async def set_weights(
        self,
        name: str,
        weights: Mapping[str, Decimal],
        *,
        who: str,
        reason: str = "",
        ttl_s: float | None = None,
        if_match: str | None = None,
    ) -> View: ...

    async def switch(
        self,
        name: str,
        to: str,
        *,
        force: bool = False,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View: ...

    async def rollback(
        self,
        name: str,
        *,
        reason: str = "",
        force: bool = False,
        lock: bool = False,
        who: str,
        if_match: str | None = None,
    ) -> View: ...

    async def deploy(
        self,
        name: str,
        *,
        endpoints: list[tuple[str, int]],
        release: str | None,
        pool: str | None,
        steps: list[Step] | None,
        now: bool,
        ready_timeout_s: float,
        min_ready: int | None,
        force: bool,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View: ...

    async def start_rollout(
        self,
        name: str,
        to: str,
        *,
        steps: list[Step] | None,
        ready_timeout_s: float,
        force: bool,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View: ...

    async def move_rollout(
        self,
        name: str,
        verb: RolloutVerb,
        *,
        force: bool = False,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View: ...

    async def unlock(
        self, name: str, *, who: str, reason: str = "", if_match: str | None = None
    ) -> View: ...

    async def set_pool(
        self,
        name: str,
        pool: str,
        *,
        endpoints: list[tuple[str, int]],
        release: str | None,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View: ...

    async def drain(
        self,
        name: str,
        pool: str | None,
        endpoint: str | None,
        *,
        undo: bool = False,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View: ...

    async def hold(
        self,
        name: str,
        *,
        timeout_s: float,
        most: int,
        ttl_s: float | None = None,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View: ...

    async def release(
        self,
        name: str,
        *,
        over_s: float,
        who: str,
        reason: str = "",
        if_match: str | None = None,
    ) -> View: ...

    async def drain_status(self, name: str, wait_s: float) -> View | None: ...

    async def reload(self, *, who: str) -> View: ...

    def check_text(self, text: str) -> list[str]: ...

    def config_view(self) -> View: ...

    def decisions(self, service: str | None, since: int, limit: int) -> list[View]: ...

    def ready(self) -> tuple[bool, list[str]]: ...
