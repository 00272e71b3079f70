"""What may be written in the configuration file, key by key; the values come out ready for use.

Durations become float seconds, sizes bytes, weights hundredths of a percent. The
descriptions are for operators: docs/configuration.md and config/schema.json are
generated from them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SecretStr,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    WrapSerializer,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from proxy.control.config import addresses, values
from proxy.control.config.scalars import (
    FROM_ENVIRONMENT,
    ON_OFF,
    Address,
    Authority,
    Bind,
    Duration,
    HeaderValue,
    HookUrl,
    Host,
    Key,
    Kind,
    Name,
    Network,
    OptionalSecret,
    Percent,
    PositiveDuration,
    PositiveSize,
    RedirectStatus,
    Release,
    RequestPath,
    RoutePath,
    Secret,
    Share,
    ShareOrOff,
    SigningSecret,
    Size,
    Statuses,
    StickyKind,
    Switch,
    Text,
    Token,
    choice,
    integer,
    or_off,
)
from proxy.control.rollout.plan import Advance, OnFail, OnRestart, OnStarved
from proxy.model import WHOLE, Balance, LogFormat, OnUnavailable, OnZero, StickyBy

MOST_POOLS = 2

CheckKind = Literal["http", "https", "tcp"]
GuardMode = Literal["enforce", "observe", "off"]
HookMoment = Literal["started", "step", "promoted", "rolled_back"]
Count = Annotated[int, *integer(0, 10_000_000, "a number")]


class Section(BaseModel):
    """A mapping of the file: no unknown keys, and nobody changes it afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Defaults as one writes them; a section's defaults are said once, in the section."""
        schema = handler(core)
        defaults = cls.model_construct().model_dump(mode="json", by_alias=True, warnings=False)
        for key, spec in handler.resolve_ref_schema(schema).get("properties", {}).items():
            if "default" in spec:
                spec["default"] = defaults[key]
            if "$ref" in spec or spec.get("default") is None:
                spec.pop("default", None)
        return schema


class ListenerTimeouts(Section):
    header: PositiveDuration = Field(
        default=10.0,
        description="How long a client may take to send a whole request head; on a new connection "
        "also how long it may say nothing.",
    )
    idle: Duration = Field(
        default=75.0,
        description="How long a client connection may idle between two requests, and how long it "
        "may take nothing of an answer.",
    )


class CertificateConfig(Section):
    """A certificate and its key, both PEM. They are read again when one of them changes."""

    cert: Text = Field(
        description="The certificate's file, with the intermediate ones behind it. Looked for "
        "beside the configuration first, then in the working directory."
    )
    key: Text = Field(description="The private key's file, without a passphrase.")


class HstsConfig(Section):
    """`Strict-Transport-Security`: browsers that have seen it come by https only."""

    max_age: PositiveDuration = Field(
        default=31_536_000.0, description="How long browsers remember it."
    )
    include_subdomains: Switch = Field(default=False, description="For all hosts below, too.")
    preload: Switch = Field(
        default=False,
        description="Says that the host may be built into browsers. Hard to take back.",
    )


class ListenerTls(Section):
    """Clients of this listener speak TLS. The name they ask for picks the certificate."""

    certificates: tuple[CertificateConfig, ...] = Field(
        description="At least one; the first is for clients that ask for no name, or another.",
        json_schema_extra={"minItems": 1},
    )
    min_version: Annotated[Literal["1.2", "1.3"], choice("1.2", "1.3")] = Field(
        default="1.2", description="The oldest version of TLS that is spoken, in quotes."
    )
    client_ca: Text | None = Field(
        default=None,
        description="A file with the certificates of those who sign the clients' certificates. "
        "The endpoint is told the verified name in `X-Client-Cert-Subject` and "
        "`X-Client-Cert-San`.",
    )
    client_auth: Annotated[Literal["required", "optional"], choice("required", "optional")] = Field(
        default="required",
        description="Whether clients must have a certificate where there is a `client_ca`. "
        "One that does not verify is refused in either case.",
    )
    hsts: HstsConfig | None = Field(
        default=None, description="Send `Strict-Transport-Security`; `{}` for a year."
    )


class RedirectConfig(Section):
    """Every request is answered with a redirection to the same place by https."""

    to: Annotated[Literal["https"], choice("https")] = Field(description="`https`.")
    port: Annotated[int, *integer(1, 65_535, "a number")] = Field(
        default=443, description="The port of the https listener as clients see it."
    )
    status: RedirectStatus = Field(
        default=308,
        description="301, 302, 307 or 308; 308 keeps method and body, and is remembered.",
    )


class ListenerLimits(Section):
    max_header: PositiveSize = Field(
        default=32 * 1024,
        description="The largest request head. Longer ones are answered with 431, or 414.",
    )
    max_headers: Annotated[int, *integer(1, 10_000, "a number")] = Field(
        default=100, description="How many header fields a request may have."
    )
    max_connections: Count = Field(
        default=0,
        description="Client connections at once, over all workers. "
        "0 means as many as descriptors allow.",
    )
    max_connections_per_client: Count = Field(
        default=0,
        description="Connections at once from one address (IPv6: from one /64), over all "
        "workers. Trusted proxies are not counted. 0 means no limit.",
    )


class ListenerConfig(Section):
    """An address that clients connect to."""

    bind: Bind = Field(
        description="Where to listen: `host:port`, `[v6]:port` or `unix:/path`.",
    )
    tls: ListenerTls | None = Field(
        default=None, description="Certificates, for clients that speak TLS. Without it: none."
    )
    proxy_protocol: Switch = Field(
        default=False,
        description="Connections from `trusted_proxies` begin with a PROXY protocol header "
        "(version 1 or 2), which says who the client is. Others speak HTTP at once.",
    )
    redirect: RedirectConfig | None = Field(
        default=None, description="Serve nothing here, but send clients to https."
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(),
        description="Networks whose `X-Forwarded-*`, `Forwarded` and `X-Request-ID` are believed. "
        "From everybody else these and their like are set anew or dropped. `unix:` stands for "
        "peers on a unix socket, who are believed wherever the list is not empty.",
    )
    timeouts: ListenerTimeouts = Field(
        default=ListenerTimeouts(), description="Patience with clients."
    )
    limits: ListenerLimits = Field(
        default=ListenerLimits(), description="Bounds on what clients may send or open."
    )


class AdminConfig(Section):
    """Where the admin API, the metrics and the command line's other end listen."""

    bind: Bind = Field(
        default="127.0.0.1:9900",
        description="Where to listen. Unless this is a loopback address or a Unix socket, "
        "`token` is required.",
    )
    token: OptionalSecret = Field(
        default=None, description="The bearer token that may see and change everything."
    )
    read_token: OptionalSecret = Field(
        default=None, description="A second bearer token, which may only look. Needs `token`."
    )


class AccessLogConfig(Section):
    """One line per request."""

    path: Text = Field(default="stdout", description="`stdout`, `off`, or the path of a file.")
    format: Annotated[LogFormat, choice("json", "combined")] = Field(
        default="json",
        description="`json`, or `combined`, the format of Apache and nginx.",
    )


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


class StepConfig(Section):
    """One step of a rollout."""

    weight: Percent = Field(description="The candidate's share of the traffic, above 0.")
    bake: Duration = Field(
        default=0.0, description="Judged time at this weight: with traffic, and nothing held."
    )
    pause: Switch = Field(default=False, description="Wait for a person when the step is baked.")


class HookConfig(Section):
    """Somebody to be told of a rollout's moves, by a POST of the decision."""

    on: tuple[Annotated[HookMoment, choice(*get_args(HookMoment))], ...] = Field(
        description="Which moves: `started`, `step`, `promoted`, `rolled_back`.",
        json_schema_extra={"minItems": 1},
    )
    url: HookUrl = Field(description="Where to: `http://...` or `https://...`.")
    timeout: PositiveDuration = Field(
        default=5.0, description="How long one call may take; it is tried three times."
    )
    blocking: Switch = Field(
        default=False,
        description="The rollout goes on only after an answer of class 2xx (on `started` and "
        "`step`); else it pauses with the answer's words.",
    )


class RolloutConfig(Section):
    """How a candidate gets its traffic."""

    steps: tuple[StepConfig, ...] = Field(
        default=(
            StepConfig.model_validate({"weight": 1, "bake": "2m"}),
            StepConfig.model_validate({"weight": 10, "bake": "5m"}),
            StepConfig.model_validate({"weight": 50, "bake": "5m"}),
            StepConfig.model_validate({"weight": 100, "bake": "15m"}),
        ),
        description="Weights that rise to 100, and for how long each is judged.",
        json_schema_extra={"minItems": 1},
    )
    min_requests: Annotated[int, *integer(0, 100_000_000, "a number")] = Field(
        default=100, description="Requests on the candidate before a step may pass."
    )
    advance: Annotated[Advance, choice("bake", "evidence")] = Field(
        default="bake",
        description="When a step passes: when its `bake` is over, or already on `evidence` "
        "that the candidate is no worse.",
    )
    starve_limit: PositiveDuration = Field(
        default=1800.0, description="A step that has not had `min_requests` by then is starved."
    )
    on_starved: Annotated[OnStarved, choice("wait", "promote", "roll_back")] = Field(
        default="wait", description="What becomes of a starved step; `wait` asks a person."
    )
    holdback: Share = Field(
        default=100,
        description="Part of the clients that stays with the old pool while the last step "
        "bakes, to compare with.",
    )
    keep_old: Duration = Field(
        default=600.0,
        description="How long after 100 % the guard goes on watching, with the old pool one "
        "swap away.",
    )
    on_fail: Annotated[OnFail, choice("roll_back", "pause")] = Field(
        default="roll_back", description="What a FAIL of the judge does."
    )
    on_restart: Annotated[OnRestart, choice("resume", "pause")] = Field(
        default="resume", description="What a restart of the proxy does to a step that bakes."
    )
    hooks: tuple[HookConfig, ...] = Field(default=(), description="Who is told of its moves.")


class GuardConfig(Section):
    """How the candidate is judged while it carries traffic."""

    mode: Annotated[GuardMode, choice("enforce", "observe", "off")] = Field(
        default="enforce",
        description="`enforce` turns back, `observe` only records that it would have, `off` "
        "does not judge.",
    )
    false_alarm: Share = Field(
        default=100,
        description="The chance of turning a healthy release back, over one whole rollout.",
    )
    tolerance: Share = Field(
        default=2_000,
        description="How much larger than the active pool's the candidate's share "
        "of errors may be, relative to it.",
    )
    tolerance_abs: Share = Field(
        default=5, description="And by how much on top of that, of all requests."
    )
    latency: Annotated[
        bool, Kind("`on` or `off`"), BeforeValidator(values.on_or_off), WithJsonSchema(ON_OFF)
    ] = Field(default=True, description="Whether latency is compared.")
    latency_tolerance: Share = Field(
        default=2_000, description="How much slower the candidate may be."
    )
    latency_floor: Duration = Field(
        default=0.005, description="And slower than that by this much at least."
    )
    hard_rate: Share = Field(
        default=3_000,
        description="The share of errors at which it turns back at once, if the active pool is "
        "clearly better.",
    )
    min_requests: Annotated[int, *integer(1, 1_000_000, "a number")] = Field(
        default=40, description="Requests on the candidate that `hard_rate` and PASS need."
    )
    warmup: Duration = Field(
        default=30.0, description="Time with traffic before the candidate's latency is judged."
    )
    count_4xx: Switch = Field(
        default=True, description="Whether answers of class 4xx are compared."
    )
    ask: Switch = Field(
        default=True,
        description="Before turning back from 100 %, give the old pool a fifth of the traffic "
        "for up to five seconds, to see whether it fares better.",
    )
    lockout: Duration = Field(
        default=0.0,
        description="How long a release that was turned back may not start again. "
        "0s: until `turnout unlock`, or another release.",
    )


class HeaderRules(Section):
    """What is set and removed in every head but those of interim answers.

    What carries the message, and what Turnout says itself, cannot be named.
    """

    set: dict[str, HeaderValue] = Field(
        default={},
        description="Headers by name, in the place of those that are there. Values are shown "
        "as `***`.",
    )
    remove: tuple[Token, ...] = Field(
        default=(), description="Names of headers to leave out, of trailers as well."
    )


class HeadersConfig(Section):
    pass_pool: Switch = Field(
        default=True,
        description="Send `X-Turnout-Pool` and `X-Turnout-Release` to the endpoint.",
    )
    expose_pool: Switch = Field(default=False, description="Send them to the client too.")
    request: HeaderRules = Field(
        default=HeaderRules(),
        description="Changes to what the endpoint gets. `Host` may be set; `X-Forwarded-Host` keeps "
        "the client's. Underscores in clients' names count as hyphens here.",
    )
    response: HeaderRules = Field(
        default=HeaderRules(),
        description="Changes to what the client gets of its answers. What is set is in Turnout's own "
        "answers too, but for headers that describe a content, such as `Cache-Control`.",
    )


class ErrorsConfig(Section):
    """Pages of the service's own for answers that Turnout gives in its place."""

    page: Text = Field(
        description="A directory with `502.html`, `503.html`, `504.html` or others by status, "
        "`50x.html` or `5xx.html` for several, and `error.html` for the rest; or one file for all. "
        "`{status}`, `{reason}`, `{sentence}` and `{request_id}` are filled in. Read again when "
        "they change. Clients that prefer JSON or plain text get that.",
    )


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
