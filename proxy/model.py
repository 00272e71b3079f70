"""The frozen nouns: what the control plane decides and the data plane obeys.

A `Snapshot` is built whole by the control plane, sent to every worker as plain
data and swapped in by one assignment. Nothing here knows of a socket or a clock.
Times are monotonic seconds of the machine (CLOCK_MONOTONIC is one clock for all
of its processes); durations are float seconds ending in `_s`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

WHOLE = 10_000
"""The range of buckets, and the sum of the weights: hundredths of a percent."""

StickyBy = Literal["none", "cookie", "header", "client_ip"]
OnZero = Literal["move", "finish"]
OnUnavailable = Literal["fallback", "fail"]
Balance = Literal["least_requests", "round_robin", "hash"]
LogFormat = Literal["json", "combined"]


CLOSE_GRACE_S = 2.0
"""A WebSocket that was told to close gets so long for its closing handshake at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Nothing new since `since_s`; what began before is ended at its class's deadline.

    `requests_by_s` is for requests, `streams_by_s` for event streams and tunnels. These
    are told to close at random moments of the `spread_s` that follow, and cut at its end
    or after CLOSE_GRACE_S, whatever is later.
    """

    since_s: float
    requests_by_s: float
    streams_by_s: float
    spread_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate with its chain, and its key, both as PEM."""

    chain: str
    key: str = field(repr=False)
    names: tuple[str, ...] = ()
    """In lower case, those that a client may ask for: `shop.example`, `*.example`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTls:
    """How TLS is spoken to the endpoints of a pool."""

    verify: bool = True
    ca: str = ""
    """PEM; empty = what the system trusts."""
    server_name: str = ""
    """Empty = the host in the endpoint's address."""
    certificate: Certificate | None = None
    """Shown to endpoints that ask for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address of a pool. A removed endpoint stays listed, draining, until it is empty."""

    address: str
    """`host:port`, `[v6]:port` or `unix:/path`; its identity inside the pool."""
    weight: int = 1
    slot: int = 0
    """Index of its first counter in the shared memory (see proxy.stats)."""
    drain: Drain | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    name: str
    release: str | None = None
    endpoints: tuple[Endpoint, ...] = ()
    weight: int = 0
    """Share of the service's new traffic in hundredths of a percent, 0..WHOLE."""
    epoch: int = 0
    """Sticky cookies that name this pool with another epoch are void."""
    slot: int = 0
    drain: Drain | None = None
    tls: PoolTls | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    host: str | None = None
    """Lower case, without port: exact, `*.example.com`, or None for any."""
    path: str = "/"
    strip_prefix: bool = False
    """The endpoint gets the target without `path`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderRules:
    """What is done to every head: first removed, then set."""

    set: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Names and values."""
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An HTML page for answers of our own."""

    status: int
    """502; 50 or 5 = for those that begin so; 0 = for every status without a page of its own."""
    html: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    header: str
    cookie: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sticky:
    by: StickyBy = "none"
    name: str = ""
    """The cookie's or the header's name; empty for the other kinds."""
    max_idle_s: float = 3600.0
    max_age_s: float = 86400.0
    on_zero: OnZero = "move"
    on_unavailable: OnUnavailable = "fallback"
    endpoint: bool = False
    keys: tuple[str, ...] = field(default=(), repr=False)
    """Hex keys: the first one signs, every one verifies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    connect_s: float = 5.0
    response_s: float = 60.0
    read_stall_s: float = 30.0
    client_body_s: float = 30.0
    upstream_idle_s: float = 60.0
    upstream_max_age_s: float = 3600.0
    tunnel_idle_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """New requests wait since `since_s`, each for `timeout_s` at most.

    Once released, at `released_s`, those that waited are let go over `over_s`.
    """

    since_s: float
    timeout_s: float = 30.0
    most: int = 1000
    """How many may wait, over all workers."""
    most_bytes: int = 16 * 1024 * 1024
    """How much of their bodies a worker keeps."""
    released_s: float | None = None
    over_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """When a request whose attempt failed is tried once more."""

    attempts: int = 1
    """How many times at most; 0 = never."""
    budget: int = 1000
    """Retries of ten seconds, in hundredths of a percent of the requests of these seconds."""
    floor: int = 3
    """Retries of ten seconds that are allowed whatever the number of requests."""
    rescue: bool = True
    """Whether the other pool may have the retry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds over all workers together; 0 = no limit."""

    connections: int = 0
    """Open connections to an endpoint."""
    pending: int = 0
    """Requests that wait for a connection to an endpoint."""
    pending_s: float = 5.0
    """How long they wait."""
    rate: int = 0
    """Requests a second."""
    burst: int = 0
    """Requests at once after a silence; 0 = what a second brings."""
    concurrency: int = 0
    """Exchanges in flight."""
    adaptive: bool = False
    """Each pool's exchanges in flight are limited by what its latency says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    name: str
    routes: tuple[Route, ...]
    pools: tuple[Pool, ...]
    """Sorted by name; their weights sum to WHOLE (a service on its way out may have no routes)."""
    active: str
    slot: int = 0
    offset: int = 0
    """Where the first candidate's interval begins in the range of buckets, 0..WHOLE-1."""
    sticky: Sticky = Sticky()
    preview: Preview | None = None
    balance: Balance = "least_requests"
    eject_after: int = 0
    """So many failures in a row in one worker are reported as a trip; 0 = none ever."""
    slow_start_s: float = 0.0
    panic: int | None = WHOLE // 2
    """When nothing is available and more than this share of a pool is down, all of it is used."""
    timeouts: Timeouts = Timeouts()
    retry: Retries = Retries()
    max_body: int = 0
    """Largest request body in bytes; 0 = no limit."""
    warm_connections: int = 1
    """Connections a worker opens ahead to each endpoint of a pool that is about to get traffic."""
    limits: Limits = Limits()
    pass_pool: bool = True
    expose_pool: bool = False
    health_path: str = ""
    """Path of its health checks, which is answered during a hold; empty = it has none."""
    hold: Hold | None = None
    request_headers: HeaderRules = HeaderRules()
    response_headers: HeaderRules = HeaderRules()
    pages: tuple[Page, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerTls:
    certificates: tuple[Certificate, ...]
    """The first is for clients that ask for no name, or for another one."""
    min_version: Literal["1.2", "1.3"] = "1.2"
    client_ca: str = ""
    """PEM; empty = clients are not asked for a certificate."""
    client_auth: Literal["required", "optional"] = "required"
    ticket_secret: str = field(default="", repr=False)
    """Hex; keys of session tickets are derived from it. Empty = every worker has its own."""
    hsts: str = ""
    """Value of Strict-Transport-Security; empty = it is not sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Where a listener sends everybody: the same host and target, by https."""

    port: int = 443
    status: int = 308


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    bind: str
    """`host:port`, `[v6]:port` or `unix:/path`; its identity."""
    trusted_proxies: tuple[str, ...] = ()
    header_s: float = 10.0
    idle_s: float = 75.0
    max_header: int = 32 * 1024
    max_headers: int = 100
    max_connections: int = 0
    """Over all workers; 0 = as many as descriptors allow."""
    max_per_client: int = 0
    """Connections from one address, over all workers; 0 = no limit."""
    tls: ListenerTls | None = None
    proxy_protocol: bool = False
    redirect: Redirect | None = None
    slot: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessLog:
    path: str = "stdout"
    """`stdout`, `off` or a file's path."""
    format: LogFormat = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a worker needs to know; `revision` only ever grows."""

    revision: int
    listeners: tuple[Listener, ...] = ()
    services: tuple[Service, ...] = ()
    access_log: AccessLog = AccessLog()
