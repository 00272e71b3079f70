r"""Header names: which ones the proxy reads, replaces or must not pass on.

A parsed head keeps its fields as one flat list `[name, b": ", value, b"\r\n", ...]`:
it is written by a single join, and most heads are only ever written.
"""

from __future__ import annotations

from itertools import product
from typing import Final

COLON: Final = b": "
CRLF: Final = b"\r\n"
HEAD_END: Final = b"\r\n\r\n"
STRIDE: Final = 4
"""Items of one field in a flat list."""

Fields = list[bytes]

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 section 7.6.1, and what history added to it."""

CLIENT_CERTIFICATE: Final = (b"x-client-cert-subject", b"x-client-cert-san")
"""What a client's verified certificate says (dataplane/client_certificate.py)."""

FORWARDING: Final = (
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-real-ip",
    b"x-request-id",
    *CLIENT_CERTIFICATE,
)
"""Believed from trusted peers only."""

CLAIMS: Final = tuple(
    b"""x-forwarded x-forwarded-by x-forwarded-client-cert x-forwarded-method x-forwarded-path
    x-forwarded-prefix x-forwarded-protocol x-forwarded-scheme x-forwarded-server
    x-forwarded-ssl x-forwarded-uri x-forwarded-url forwarded-for
    x-original-forwarded-for x-original-host x-original-uri x-original-url x-rewrite-url
    x-url-scheme front-end-https client-ip x-client-ip x-cluster-client-ip x-remote-addr
    x-remote-ip x-proxyuser-ip true-client-ip cf-connecting-ip cf-connecting-ipv6 fastly-client-ip
    fly-client-ip wl-proxy-client-ip x-azure-clientip x-appengine-user-ip
    x-envoy-external-address""".split()
)
"""What else applications take for a proxy's word on who asked for what, by which way. From
trusted peers it is passed on as it is, from others it is dropped."""

FAMILY: Final = b"x-forwarded-"
"""So begins what a proxy says of a request: whatever else follows counts as a claim, too, such as
the user that a login proxy names."""

PROTECTED: Final = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"cookie",
        b"set-cookie",
        b"authorization",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-real-ip",
        b"x-request-id",
        b"x-client-cert-subject",
        b"x-client-cert-san",
        b"traceparent",
        b"tracestate",
        b"via",
        b"x-turnout-pool",
        b"x-turnout-release",
    }
).union(CLAIMS)
"""What `Connection` can never remove: naming these is how hop-by-hop abuse works."""

OURS: Final = (b"x-turnout-pool", b"x-turnout-release")
"""Only the proxy says these to an endpoint."""


def underscored(name: bytes) -> set[bytes]:
    """Every spelling of `name` with underscores for dashes: gateways read them as the same."""
    parts = name.split(b"-")
    spellings = set()
    for joints in product((b"-", b"_"), repeat=len(parts) - 1):
        spelling = parts[0]
        for joint, part in zip(joints, parts[1:], strict=True):
            spelling += joint + part
        spellings.add(spelling)
    spellings.discard(name)
    return spellings


_FRAMING: Final = (b"content-length", b"transfer-encoding")

LOOK_ALIKES: Final = frozenset(
    spelling for name in (*FORWARDING, *CLAIMS, *OURS, *_FRAMING) for spelling in underscored(name)
) | {b"proxy"}
"""Dropped from requests: `X_Forwarded_For` becomes X-Forwarded-For behind WSGI and CGI, and
`Proxy` becomes HTTP_PROXY there, which HTTP libraries take for their configuration."""


def is_of_family(lower_name: bytes) -> bool:
    """Whether a name is of the family, in any spelling that gateways read as the same."""
    return lower_name.replace(b"_", b"-").startswith(FAMILY)


def is_look_alike(lower_name: bytes) -> bool:
    return lower_name in LOOK_ALIKES or (b"_" in lower_name and is_of_family(lower_name))


def is_claim(lower_name: bytes) -> bool:
    """Whether a header is passed on from trusted peers as it is, and dropped from others."""
    return lower_name in CLAIMS or (lower_name.startswith(FAMILY) and lower_name not in FORWARDING)


TRACE: Final = b"traceparent"
TRACE_STATE: Final = b"tracestate"

REQUEST_READ: Final = (
    HOP_BY_HOP
    | LOOK_ALIKES
    | frozenset(FORWARDING)
    | frozenset(CLAIMS)
    | frozenset(OURS)
    | {b"host", b"content-length", b"cookie", b"expect", TRACE, TRACE_STATE, b"http2-settings"}
)
"""Names the parser of requests sets aside instead of passing on as they are."""

RESPONSE_READ: Final = HOP_BY_HOP | {b"content-length", b"content-type"}

TRAILERS_REFUSED: Final = (
    HOP_BY_HOP
    | PROTECTED
    | LOOK_ALIKES
    | frozenset(CLAIMS)
    | frozenset(
        b"""content-encoding content-type content-range http2-settings
        cache-control expect max-forwards pragma range if-match if-none-match if-modified-since
        if-unmodified-since if-range""".split()
    )
)
"""Fields that a trailer section must not carry (RFC 9110 section 6.5.1)."""


def value_of(fields: Fields, lower_name: bytes) -> bytes | None:
    """Value of the first field of that lower-case name."""
    for index in range(0, len(fields), STRIDE):
        if fields[index].lower() == lower_name:
            return fields[index + 2]
    return None


def list_of(fields: Fields, lower_name: bytes) -> bytes | None:
    """Value of all fields of that lower-case name, joined to one list."""
    values = [
        fields[index + 2]
        for index in range(0, len(fields), STRIDE)
        if fields[index].lower() == lower_name
    ]
    return b", ".join(values) if values else None


def without(fields: Fields, lower_names: frozenset[bytes] | set[bytes]) -> Fields:
    """The fields but those of these lower-case names."""
    kept: Fields = []
    for index in range(0, len(fields), STRIDE):
        if fields[index].lower() not in lower_names:
            kept += fields[index : index + STRIDE]
    return kept


def tokens(value: bytes) -> set[bytes]:
    """The lower-case members of a comma-separated list."""
    return {token for part in value.lower().split(b",") if (token := part.strip())}


_REFUSED_UPGRADES: Final = (b"h2", b"http/", b"tls/")


def may_upgrade(wanted: bytes) -> bool:
    """Whether a tunnel may carry what `Upgrade: wanted` asks for."""
    names = tokens(wanted)
    return bool(names) and not any(name.startswith(_REFUSED_UPGRADES) for name in names)


def agrees(switched: bytes, wanted: bytes) -> bool:
    """Whether what an endpoint switches to was asked for, whatever the versions of it."""
    asked = {name.partition(b"/")[0] for name in tokens(wanted)}
    return {name.partition(b"/")[0] for name in tokens(switched)} <= asked


def named_by_connection(value: bytes) -> set[bytes]:
    """Names that `Connection: value` asks to remove, less the protected ones."""
    return {name for name in tokens(value) - PROTECTED if not is_of_family(name)}


def take_cookie(header: bytes, prefix: bytes) -> tuple[bytes | None, bytes]:
    """Value of a cookie (None without it) and the Cookie header without it.

    `prefix` is the cookie's name with the equals sign. Of several cookies of that name the
    first one's value counts, and all of them are taken out.
    """
    value = None
    start = header.find(prefix)
    while start >= 0:
        if start and header[:start].rstrip(b" \t")[-1:] not in b";":  # within another's value
            start = header.find(prefix, start + 1)
            continue
        end = header.find(b";", start)
        if end < 0:
            found = header[start + len(prefix) :]
            header = header[:start].rstrip(b"; \t")
            start = -1
        else:
            found = header[start + len(prefix) : end]
            header = header[:start] + header[end + 1 :].lstrip()
            start = header.find(prefix, start)
        if value is None:
            value = found.strip()
    return value, header
