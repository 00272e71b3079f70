"""What may be written in the configuration file, key by key; the values come out ready for use.

Durations become float seconds, sizes bytes, weights hundredths of a percent. The
descriptions are for operators: docs/configuration.md and config/schema.json are
generated from them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    WrapSerializer,
)

from proxy.control.config import values
from proxy.control.config.scalars import (
    FROM_ENVIRONMENT,
    Duration,
    Key,
    Kind,
    Name,
    Percent,
    ShareOrOff,
    Text,
    choice,
    integer,
    or_off,
)
from proxy.control.config.sections.door import ErrorsConfig, HeadersConfig
from proxy.control.config.sections.listener import AccessLogConfig, AdminConfig, ListenerConfig
from proxy.control.config.sections.pool import PoolConfig, RouteConfig
from proxy.control.config.sections.rollout import GuardConfig, RolloutConfig
from proxy.control.config.sections.section import Section
from proxy.control.config.sections.traffic import (
    DrainConfig,
    EjectionConfig,
    HealthConfig,
    PreviewConfig,
    RetryConfig,
    ServiceLimits,
    ServiceTimeouts,
    StickyConfig,
)
from proxy.model import WHOLE, Balance

MOST_POOLS = 2


def _or_off(section: Section | None, write: SerializerFunctionWrapHandler) -> Any:
    return "off" if section is None else write(section)


class ServiceDefaults(Section):
    """What every service has unless it says otherwise; mappings are merged key by key."""

    preview: PreviewConfig | None = Field(
        default=None, description="Lets those who know a secret choose their pool."
    )
    sticky: StickyConfig = Field(
        default=StickyConfig(), description="Whether clients stay with their pool."
    )
    balance: Annotated[Balance, choice("least_requests", "round_robin", "hash")] = Field(
        default="least_requests",
        description="How a pool's endpoints share its requests: `least_requests` (the less busy "
        "of two drawn by weight), `round_robin` (in turn, by weight), or `hash` (the same "
        "client to the same endpoint, as far as possible).",
    )
    health: Annotated[
        HealthConfig | None,
        Kind("a mapping, or `off`"),
        BeforeValidator(values.off_is_none),
        WrapSerializer(_or_off, when_used="json"),
    ] = Field(
        default=None,
        description="Active checks of the endpoints; `{}` for the defaults. Without it, or `off`: "
        "none, and an endpoint counts as up while it can be connected to.",
        json_schema_extra=or_off,
    )
    ejection: Annotated[
        EjectionConfig | None,
        Kind("a mapping, or `off`"),
        BeforeValidator(values.unless_off),
        WrapSerializer(_or_off, when_used="json"),
    ] = Field(
        default=EjectionConfig(),
        description="Leaves failing endpoints out for a while; `off` for never.",
        json_schema_extra=or_off,
    )
    slow_start: Duration = Field(
        default=0.0,
        description="How long the share of an endpoint that is new or up again grows to its "
        "whole weight. `0s` gives it all at once; after an ejection it takes 5s at least.",
    )
    panic: ShareOrOff = Field(
        default=WHOLE // 2,
        description="When no endpoint of a pool is available and no other pool can help, but more "
        "than this share of it is down, ejected or unreachable, all of them are tried. With "
        "`off` the answer is 503.",
    )
    timeouts: ServiceTimeouts = Field(
        default=ServiceTimeouts(), description="Patience with endpoints and bodies."
    )
    retry: Annotated[
        RetryConfig | None,
        Kind("a mapping, or `off`"),
        BeforeValidator(values.unless_off),
        WrapSerializer(_or_off, when_used="json"),
    ] = Field(
        default=RetryConfig(),
        description="Tries a request that failed once more elsewhere; `off` for never.",
        json_schema_extra=or_off,
    )
    limits: ServiceLimits = Field(default=ServiceLimits(), description="Bounds on requests.")
    warm_connections: Annotated[int, *integer(0, 8, "a number")] = Field(
        default=1,
        description="Connections that each worker opens ahead to every endpoint of a pool that is "
        "about to get more traffic. 0 opens none: for servers that serve one connection at a time.",
    )
    drain: DrainConfig = Field(
        default=DrainConfig(), description="Deadlines for what is in flight in a pool that is left."
    )
    headers: HeadersConfig = Field(
        default=HeadersConfig(), description="Who is told of pool and release."
    )
    errors: ErrorsConfig | None = Field(
        default=None, description="Pages for 502, 503, 504 and other answers of our own."
    )
    guard: GuardConfig = Field(
        default=GuardConfig(), description="When traffic is turned back by itself."
    )
    rollout: RolloutConfig = Field(
        default=RolloutConfig(), description="The steps by which a candidate gets its traffic."
    )


class ServiceConfig(ServiceDefaults):
    """What is deployed: its routes, its one or two pools, and how traffic is split."""

    routes: tuple[RouteConfig, ...] = Field(
        description="Which requests belong to the service. The most specific host wins, "
        "then the longest path.",
        json_schema_extra={"minItems": 1},
    )
    pools: dict[Key, PoolConfig] = Field(
        description="One or two pools by name, usually `blue` and `green`.",
        json_schema_extra={
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": MOST_POOLS,
        },
    )
    active: Name = Field(description="The pool in charge.")
    weights: dict[str, Percent] | None = Field(
        default=None,
        description="Each pool's share of new traffic in percent, with two decimals at most; "
        "together 100. Without it the active pool has all.",
    )

    def declared_weights(self) -> dict[str, int]:
        """Hundredths of a percent for every pool: the file's, or all of it to the active one."""
        declared = self.weights or {self.active: WHOLE}
        return {pool: declared.get(pool, 0) for pool in self.pools}


class Config(Section):
    """The whole file, `defaults` already merged into the services."""

    listeners: tuple[ListenerConfig, ...] = Field(
        description="Addresses that clients connect to; at least one.",
        json_schema_extra={"minItems": 1},
    )
    admin: AdminConfig = Field(
        default=AdminConfig(), description="The admin API, with health and metrics."
    )
    workers: Annotated[
        int | Literal["auto"],
        Kind("a number, or `auto`"),
        BeforeValidator(values.workers),
        WithJsonSchema(
            {
                "anyOf": [
                    {"const": "auto"},
                    {"type": "integer", "minimum": 1, "maximum": values.MOST_WORKERS},
                    FROM_ENVIRONMENT,
                ]
            }
        ),
    ] = Field(
        default="auto",
        description="Processes that carry traffic. `auto` means one per usable core.",
    )
    state: Text = Field(
        default="var/turnout",
        description="The directory where run-time changes and keys are kept. "
        "A restart is needed to change it.",
    )
    shutdown_timeout: Duration = Field(
        default=30.0, description="How long requests in flight may go on when the proxy stops."
    )
    access_log: AccessLogConfig = Field(
        default=AccessLogConfig(), description="One line per request."
    )
    defaults: ServiceDefaults = Field(
        default=ServiceDefaults(),
        description="Keys for every service: any but `routes`, `pools`, `active` and `weights`. "
        "A service's own keys win, mapping by mapping.",
    )
    services: dict[Key, ServiceConfig] = Field(
        description="What is deployed behind the proxy, by name. May be empty: `{}`.",
        json_schema_extra={"additionalProperties": False},
    )

    def view(self) -> dict[str, Any]:
        """The effective configuration as plain values as one writes them, secrets as `***`."""
        return self.model_dump(mode="json", by_alias=True, exclude={"defaults"})


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of the file."""
    body = Config.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Turnout configuration",
        **_without_titles(body),
        "description": "The configuration file of Turnout, a traffic-splitting reverse proxy.",
    }


def _without_titles(schema: Any) -> Any:
    """Pydantic titles every property with its own name, which helps nobody."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_titles(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }
