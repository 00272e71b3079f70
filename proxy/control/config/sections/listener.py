"""Where clients and operators come in, and the log of who did."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from proxy.control.config.scalars import (
    Bind,
    Count,
    Duration,
    Network,
    OptionalSecret,
    PositiveDuration,
    PositiveSize,
    RedirectStatus,
    Switch,
    Text,
    choice,
    integer,
)
from proxy.control.config.sections.section import Section
from proxy.model import LogFormat


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
        default=None,
        description="Send `Strict-Transport-Security`; `{}` for a year. Browsers obey the first "
        "one they read: where an endpoint sends its own, remove that by `headers.response`.",
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
        "0 means as many as three quarters of the descriptors allow.",
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
