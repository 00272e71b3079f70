"""How a service's traffic is split, bound, checked, limited and drained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from proxy.control.config.scalars import (
    Authority,
    Count,
    Duration,
    HeaderValue,
    PositiveDuration,
    RequestPath,
    Secret,
    Share,
    SigningSecret,
    Size,
    Statuses,
    StickyKind,
    Switch,
    Token,
    choice,
    integer,
)
from proxy.control.config.sections.section import Section
from proxy.model import WHOLE, OnUnavailable, OnZero, StickyBy

CheckKind = Literal["http", "https", "tcp"]


class PreviewConfig(Section):
    """Requests that name their pool themselves, whatever the weights say."""

    header: Token = Field(
        default="X-Turnout-Preview", description="The header whose value is `<secret>:<pool>`."
    )
    cookie: Token = Field(default="turnout_preview", description="A cookie that may say the same.")
    secret: Secret = Field(
        default=SecretStr(""), description="Who knows it may preview. Empty turns previews off."
    )


class StickyConfig(Section):
    """Whether a client stays with the pool it was first given."""

    kind: StickyKind = Field(
        default="none",
        alias="by",
        description="What a client is recognised by: a signed `cookie`, a request header "
        "(`header:NAME`), its address (`client_ip`), or nothing (`none`).",
    )
    cookie: Token = Field(
        default="turnout",
        description="The cookie's name. Services that share a host need different ones.",
    )
    max_idle: PositiveDuration = Field(
        default=3600.0, description="A cookie not seen for this long is void."
    )
    max_age: PositiveDuration = Field(
        default=86_400.0, description="A cookie is void after this long, however often it is seen."
    )
    on_zero: Annotated[OnZero, choice("move", "finish")] = Field(
        default="move",
        description="What a bound client does when its pool's weight becomes 0: `move` to the "
        "other pool with its next request, or `finish` its session there until the drain's "
        "deadline (only by cookie).",
    )
    on_unavailable: Annotated[OnUnavailable, choice("fallback", "fail")] = Field(
        default="fallback",
        description="What a bound client gets while its pool has no available endpoint: "
        "an answer of the other pool (`fallback`), or 503 (`fail`).",
    )
    endpoint: Switch = Field(
        default=False, description="Stick to one endpoint of the pool too, not only to the pool."
    )
    secret: SigningSecret = Field(
        default=SecretStr(""),
        description="Signs the cookies. Empty means one that is made once and kept in the state.",
    )

    @property
    def by(self) -> StickyBy:
        return "header" if self.header else self.kind  # type: ignore[return-value]

    @property
    def header(self) -> str | None:
        """The name in `by: header:NAME`."""
        return self.kind.partition(":")[2] or None


class HealthConfig(Section):
    """Active checks of every endpoint. An endpoint that is new gets nothing before its first pass."""

    kind: Annotated[CheckKind, choice("http", "https", "tcp")] = Field(
        default="http",
        alias="type",
        description="`http` and `https` send a GET; `tcp` only opens a connection.",
    )
    path: RequestPath = Field(default="/healthz", description="What is asked for.")
    interval: PositiveDuration = Field(
        default=2.0,
        description="The longest time from one check of an endpoint to the next; "
        "a little less by chance, so that not all are checked in the same moment.",
    )
    timeout: PositiveDuration = Field(
        default=2.0, description="How long an answer may take before the check has failed."
    )
    rise: Annotated[int, *integer(1, 1000, "a number")] = Field(
        default=2, description="Passes in a row that bring an endpoint up again."
    )
    fall: Annotated[int, *integer(1, 1000, "a number")] = Field(
        default=3, description="Failures in a row that take an endpoint down."
    )
    statuses: Statuses = Field(
        default=((200, 399),),
        description="Answers that pass, such as `200-399` or `200-299,401`. "
        "Redirections are not followed.",
    )
    host: Authority | None = Field(
        default=None,
        description="The `Host` header, and for `https` the name in the certificate, unless the "
        "pool has `tls`. Without it: the endpoint's own address.",
    )
    headers: dict[str, HeaderValue] = Field(
        default={}, description="Headers to send along; their values are shown as `***`."
    )
    verify: Switch = Field(
        default=True,
        description="For `https`: whether the certificate must be valid. A pool with `tls` has its own.",
    )


class EjectionConfig(Section):
    """When an endpoint is left out for a while because of what comes back from it."""

    consecutive_failures: Annotated[int, *integer(0, 1_000_000, "a number")] = Field(
        default=5,
        description="Ejected after so many failed requests without a success between, over all "
        "workers. Failures to connect, timeouts, broken and invalid answers count, and statuses "
        "from 500 but 501 and 505. 0 turns this rule off.",
    )
    failure_share: Share = Field(
        default=WHOLE // 2,
        description="Ejected when so many of its requests within `window` failed, at least "
        "twice as many as of the pool's others. `0%` turns this rule off.",
    )
    min_requests: Annotated[int, *integer(1, 1_000_000, "a number")] = Field(
        default=20, description="With fewer requests in the window `failure_share` says nothing."
    )
    window: PositiveDuration = Field(
        default=10.0, description="The time that `failure_share` looks back."
    )
    base_time: PositiveDuration = Field(
        default=10.0,
        description="How long the first ejection lasts; one soon after it twice as long, and so "
        "on. Every `base_time` in service makes the next one shorter again.",
    )
    max_time: PositiveDuration = Field(default=300.0, description="No ejection lasts longer.")
    max_percent: Annotated[int, *integer(0, 100, "a number")] = Field(
        default=50,
        description="At most so many percent of a pool's endpoints are ejected at once, rounded "
        "down; one of two or more always may be, and the last available one never.",
    )


class ServiceTimeouts(Section):
    connect: PositiveDuration = Field(
        default=5.0, description="How long connecting to an endpoint may take."
    )
    response: PositiveDuration = Field(
        default=60.0,
        description="How long the first byte of the answer may take, after the request was sent.",
    )
    read_stall: PositiveDuration = Field(
        default=30.0, description="The longest silence of an endpoint within an answer's body."
    )
    client_body: PositiveDuration = Field(
        default=30.0, description="The longest silence of a client within a request's body."
    )
    upstream_idle: Duration = Field(
        default=60.0, description="How long an unused connection to an endpoint is kept."
    )
    upstream_max_age: PositiveDuration = Field(
        default=3600.0,
        description="How old a connection to an endpoint may become, a tenth more or less; an "
        "older one gets no further request.",
    )
    tunnel_idle: PositiveDuration = Field(
        default=600.0, description="The longest silence of both sides of a WebSocket or tunnel."
    )


class RetryConfig(Section):
    """A request whose attempt failed before anything of an answer came is tried once more."""

    attempts: Annotated[int, *integer(0, 10, "a number")] = Field(
        default=1,
        description="How often a request is tried again, each time at another endpoint. Only "
        "methods that may be sent twice (`GET`, `HEAD`, `PUT`, `DELETE` and the like, never "
        "`POST`), and bodies up to 64 KiB.",
    )
    budget: Share = Field(
        default=1000,
        description="Retries of any ten seconds, as a share of the requests of these seconds, "
        "over all workers.",
    )
    floor: Annotated[int, *integer(0, 1_000_000, "a number")] = Field(
        default=3,
        description="Retries of ten seconds that are allowed however few requests there are.",
    )
    rescue: Switch = Field(
        default=True,
        description="Let the other pool have the retry: at once where a release on trial failed, "
        "and where no other endpoint is left in the pool in charge.",
    )


class ServiceLimits(Section):
    max_body: Size = Field(
        default=0,
        description="The largest request body; larger ones are answered with 413. "
        "0 means no limit.",
    )
    per_endpoint_connections: Count = Field(
        default=1024,
        description="Open connections to one endpoint at once, over all workers. A request that "
        "finds no free one waits for it. 0 means no limit.",
    )
    per_endpoint_pending: Count = Field(
        default=256,
        description="Requests that may wait for a connection to one endpoint, over all workers. "
        "With more it is full: another endpoint is taken, or the answer is 503. "
        "0 means no limit.",
    )
    pending_timeout: PositiveDuration = Field(
        default=5.0,
        description="How long a request may wait for a connection; then it is answered with 503.",
    )
    rate: Count = Field(
        default=0,
        description="Requests of the service a second, over all workers. "
        "More are answered with 429. 0 means no limit.",
    )
    burst: Count = Field(
        default=0,
        description="How many requests may come at once after a silence, where there is a `rate`. "
        "0 means as many as a second brings.",
    )
    concurrency: Count = Field(
        default=0,
        description="Requests of the service in flight at once, over all workers, streams and "
        "tunnels among them. More are answered with 503. 0 means no limit.",
    )
    adaptive: Annotated[Literal["off", "on"], choice("off", "on")] = Field(
        default="off",
        description="With `on`, the requests in flight in each pool are limited to what it can "
        "take without queueing, found from its latency. More are answered with 503.",
    )


class DrainConfig(Section):
    """How long what is in flight may go on when a pool or an endpoint is left."""

    requests: Duration = Field(default=30.0, description="Patience with ordinary requests.")
    streams: Duration = Field(
        default=300.0, description="Patience with event streams, WebSockets and other tunnels."
    )
    spread: Duration = Field(
        default=10.0,
        description="At the deadline event streams and tunnels are ended one by one over this "
        "time, so that their clients do not all come back at once.",
    )
