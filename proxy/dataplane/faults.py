"""The failures an exchange can end with, each told once (tokens: RFC 9209 section 2.3)."""

from __future__ import annotations

from dataclasses import replace

from proxy.errors import Fault, Retry, Side

NO_ROUTE = Fault(
    status=404,
    error="destination_not_found",
    sentence="No service here answers for this host and path.",
    side=Side.CLIENT,
)
NO_HOST = Fault(
    status=400,
    error="http_request_error",
    sentence="The request names no host, so there is nowhere to send it.",
    side=Side.CLIENT,
)
PLAIN_HTTP = Fault(
    status=400,
    error="http_request_error",
    sentence="This port speaks https, and the request was sent in plain http.",
    side=Side.CLIENT,
)
NO_POOL = Fault(
    status=503,
    error="destination_unavailable",
    sentence="This service is not available at the moment.",
    side=Side.PROXY,
)
TOO_MANY_CONNECTIONS = Fault(
    status=503,
    error="connection_limit_reached",
    sentence="There are as many connections as this proxy accepts.",
    side=Side.PROXY,
)
TOO_MANY_OF_CLIENT = Fault(
    status=429,
    error="http_request_denied",
    sentence="There are as many connections from your address as this proxy accepts.",
    side=Side.PROXY,
)
TOO_MANY_REQUESTS = Fault(
    status=429,
    error="http_request_denied",
    sentence="There are more requests a second than this service accepts.",
    side=Side.PROXY,
)
TOO_MANY_AT_ONCE = Fault(
    status=503,
    error="connection_limit_reached",
    sentence="There are more requests at once than this service accepts.",
    side=Side.PROXY,
)
OVERLOADED = Fault(
    status=503,
    error="connection_limit_reached",
    sentence="The service has as many requests as it can take without a queue.",
    side=Side.PROXY,
)
FULL = Fault(
    status=503,
    error="connection_limit_reached",
    sentence="All connections to the service are in use, and enough requests wait for one.",
    side=Side.PROXY,
)
PENDING_TOO_LONG = Fault(
    status=503,
    error="connection_limit_reached",
    sentence="No connection to the service became free in time.",
    side=Side.PROXY,
)
BODY_TOO_LARGE = Fault(
    status=413,
    error="http_request_denied",
    sentence="The request body is larger than this service accepts.",
    side=Side.CLIENT,
)
HEAD_TOO_SLOW = Fault(
    status=408,
    error="http_request_error",
    sentence="The request's head took too long to arrive.",
    side=Side.CLIENT,
)
BODY_TOO_SLOW = Fault(
    status=408,
    error="http_request_error",
    sentence="The request's body took too long to arrive.",
    side=Side.CLIENT,
)
CONNECT_REFUSED = Fault(
    status=502,
    error="connection_refused",
    sentence="The service could not be reached.",
    side=Side.ENDPOINT,
    kind="connect",
    retry=Retry.ALWAYS,
)
CONNECT_TIMEOUT = Fault(
    status=504,
    error="connection_timeout",
    sentence="The service could not be reached in time.",
    side=Side.ENDPOINT,
    kind="connect",
    retry=Retry.ALWAYS,
)
NO_DESCRIPTOR = Fault(
    status=503,
    error="connection_limit_reached",
    sentence="There are more connections here than the system allows.",
    side=Side.PROXY,
)
NAME_UNKNOWN = Fault(
    status=502,
    error="dns_error",
    sentence="The service could not be reached.",
    side=Side.ENDPOINT,
    kind="connect",
    retry=Retry.ALWAYS,
)
CERTIFICATE_REFUSED = Fault(
    status=502,
    error="tls_certificate_error",
    sentence="The service could not be reached safely.",
    side=Side.ENDPOINT,
    kind="connect",
    retry=Retry.ALWAYS,
)
TLS_FAILED = Fault(
    status=502,
    error="tls_protocol_error",
    sentence="The service could not be reached safely.",
    side=Side.ENDPOINT,
    kind="connect",
    retry=Retry.ALWAYS,
)
TLS_ALERT = Fault(
    status=502,
    error="tls_alert_received",
    sentence="The service could not be reached safely.",
    side=Side.ENDPOINT,
    kind="connect",
    retry=Retry.ALWAYS,
)
TLS_FAILED_LATE = replace(TLS_FAILED, retry=Retry.IF_IDEMPOTENT)
TLS_ALERT_LATE = replace(TLS_ALERT, retry=Retry.IF_IDEMPOTENT)
"""Behind the handshake, when the request was sent already."""
CLOSED_EARLY = Fault(
    status=502,
    error="connection_terminated",
    sentence="The service closed the connection before it answered.",
    side=Side.ENDPOINT,
    kind="reset",
    retry=Retry.IF_IDEMPOTENT,
)
KEPT_CLOSED_EARLY = replace(CLOSED_EARLY)
"""The same on a kept connection. Its endpoint may be well, and only have closed at that moment."""
ANSWER_TOO_SLOW = Fault(
    status=504,
    error="http_response_timeout",
    sentence="The service took too long to answer.",
    side=Side.ENDPOINT,
    kind="timeout",
    retry=Retry.IF_IDEMPOTENT,
)
FELL_SILENT = Fault(
    status=504,
    error="http_response_timeout",
    sentence="The service went down before it answered.",
    side=Side.ENDPOINT,
    kind="timeout",
    retry=Retry.IF_IDEMPOTENT,
)
ANSWER_STALLED = Fault(
    status=504,
    error="connection_read_timeout",
    sentence="The service stopped in the middle of its answer.",
    side=Side.ENDPOINT,
    kind="timeout",
)
ANSWER_CUT = Fault(
    status=502,
    error="http_response_incomplete",
    sentence="The service's answer broke off.",
    side=Side.ENDPOINT,
    kind="truncated",
)
ANSWER_INVALID = Fault(
    status=502,
    error="http_protocol_error",
    sentence="The service's answer was not valid HTTP.",
    side=Side.ENDPOINT,
    kind="protocol",
    retry=Retry.IF_IDEMPOTENT,
)
UPGRADE_UNASKED = Fault(
    status=502,
    error="http_upgrade_failed",
    sentence="The service switched to a protocol that nobody asked it for.",
    side=Side.ENDPOINT,
    kind="protocol",
    retry=Retry.IF_IDEMPOTENT,
)
DRAINED = Fault(
    status=503,
    error="connection_terminated",
    sentence="The service was replaced before it could finish its answer.",
    side=Side.PROXY,
)
HELD_TOO_LONG = Fault(
    status=503,
    error="destination_unavailable",
    sentence="This service is on hold, and the request has waited as long as it may.",
    side=Side.PROXY,
)
HELD_FULL = Fault(
    status=503,
    error="destination_unavailable",
    sentence="This service is on hold, and as many requests wait as may.",
    side=Side.PROXY,
)


def malformed(status: int, sentence: str) -> Fault:
    """A request that is refused for its own bytes."""
    return Fault(
        status=status,
        error="http_request_error",
        sentence=sentence[:1].upper() + sentence[1:] + ".",
        side=Side.CLIENT,
    )
