"""How this worker speaks TLS to the endpoints of a pool, and which fault a failure of it is."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from proxy import client_tls
from proxy.dataplane import faults
from proxy.dataplane.tls_connection import TlsConnection
from proxy.errors import Fault
from proxy.model import PoolTls

if TYPE_CHECKING:
    from proxy.dataplane.live import EndpointLive
    from proxy.dataplane.upstream import Upstream


class UpstreamTls:
    """A pool's context; another spec makes another one of these."""

    __slots__ = ("_context", "_problem", "spec")

    def __init__(self, spec: PoolTls) -> None:
        self.spec = spec
        self._context: ssl.SSLContext | None = None
        self._problem = ""
        try:
            self._context = client_tls.context(spec)
        except (ssl.SSLError, OSError, ValueError) as error:
            # The control plane has checked it, so this library is another one. Every connection
            # says why it fails; the other pools go on.
            self._problem = str(error)

    def over(self, connection: Upstream, endpoint: EndpointLive) -> TlsConnection:
        """What speaks TLS for this connection; ssl.SSLError where that cannot even begin."""
        if self._context is None:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, self._problem)
        name = client_tls.name_for(self.spec, endpoint.host)
        if name is None and self.spec.verify:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "no server_name says whose certificate to expect")

        def keep(session: ssl.SSLSession) -> None:
            if session.has_ticket and endpoint.pool.tls is self:
                endpoint.session = session

        try:
            return TlsConnection(connection, self._context, name, endpoint.session, keep)
        except ValueError as error:  # a name that cannot be one, or that IDNA does not know
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, str(error)) from error


def adopted(spec: PoolTls | None, before: UpstreamTls | None) -> UpstreamTls | None:
    """How a pool's endpoints are spoken to now; the same object while nothing has changed."""
    if spec is None:
        return None
    return before if before is not None and before.spec == spec else UpstreamTls(spec)


def fault_of(error: ssl.SSLError) -> Fault:
    """The fault that a failed handshake is."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return faults.CERTIFICATE_REFUSED
    return faults.TLS_ALERT if client_tls.is_alert(error) else faults.TLS_FAILED


def fault_of_loss(exc: Exception | None, *, was_kept: bool) -> tuple[Fault, str]:
    """The fault that the loss of a connection is before its answer, and the detail for operators.

    An endpoint of TLS 1.3 looks at our certificate when the handshake is over for us.
    """
    if not isinstance(exc, ssl.SSLError):
        return faults.KEPT_CLOSED_EARLY if was_kept else faults.CLOSED_EARLY, ""
    fault = faults.TLS_ALERT_LATE if client_tls.is_alert(exc) else faults.TLS_FAILED_LATE
    return fault, client_tls.in_words(exc)
