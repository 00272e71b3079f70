"""Which requests belong to a service, and the endpoints that answer them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from proxy.control.config import addresses
from proxy.control.config.scalars import (
    Address,
    Authority,
    Host,
    Release,
    RoutePath,
    Switch,
    Text,
    integer,
)
from proxy.control.config.sections.section import Section


class RouteConfig(Section):
    """Requests for this host and path belong to the service."""

    host: Host | None = Field(
        default=None,
        description="An exact host, or `*.example.com` for the hosts below it. "
        "Without it the route takes any host.",
    )
    path: RoutePath = Field(
        default="/",
        description="A path prefix on segment borders: `/api` takes `/api` and `/api/users`, "
        "but not `/apiary`.",
    )
    strip_prefix: Switch = Field(
        default=False,
        description="Leave the route's path out of what the endpoint gets: with `/api`, a request "
        "for `/api/users` is `/users` there. What was left out is in `X-Forwarded-Prefix`. "
        "Locations and cookie paths in answers stay as they are.",
    )


class EndpointConfig(Section):
    """One address of a pool; the address alone may stand for the mapping."""

    address: Address = Field(description="`host:port`, `[v6]:port` or `unix:/path`.")
    weight: Annotated[int, *integer(1, 1000, "a number")] = Field(
        default=1, description="Its share of the pool's requests, beside the other endpoints'."
    )


def _endpoint(value: Any) -> Any:
    """What is wrong with a plain address is wrong with the list's item, not with a key in it."""
    if isinstance(value, dict):
        return value
    return EndpointConfig.model_construct(address=addresses.address(value))


_endpoint_schema = {
    "anyOf": [
        {"type": "string", "pattern": rf"^({addresses.ADDRESS})$|\$\{{"},
        EndpointConfig.model_json_schema(),
    ]
}


class PoolTls(Section):
    """The pool's endpoints speak TLS; active checks by `http` do as well then."""

    verify: Switch = Field(
        default=True, description="Whether an endpoint's certificate must be valid and its own."
    )
    ca: Text | None = Field(
        default=None,
        description="A file with the certificates that are trusted; without it the system's.",
    )
    server_name: Authority | None = Field(
        default=None,
        description="The name to ask for and to find in the certificate. Without it: the host "
        "in the endpoint's address.",
    )
    cert: Text | None = Field(
        default=None, description="A certificate's file to show to endpoints that ask for one."
    )
    key: Text | None = Field(default=None, description="Its private key's file.")


class PoolConfig(Section):
    """Endpoints that run one release."""

    endpoints: tuple[
        Annotated[EndpointConfig, BeforeValidator(_endpoint), WithJsonSchema(_endpoint_schema)], ...
    ] = Field(
        default=(),
        description="Addresses, each alone or with its weight. "
        "Empty means an idle pool that waits for its first deploy.",
    )
    release: Release = Field(
        default=None,
        description="The name of the release that runs here, for headers, logs and decisions.",
    )
    tls: PoolTls | None = Field(
        default=None, description="Speak TLS to the endpoints; `{}` for the defaults."
    )
