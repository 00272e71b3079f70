"""TLS as its client: the context for a pool's endpoints, from PEM in memory, and failures in words."""

from __future__ import annotations

import ssl
from dataclasses import replace
from functools import lru_cache

from proxy import pem
from proxy.model import PoolTls

MOST_CONTEXTS = 256
"""Kept for those who ask again, such as the checks of every endpoint."""

_ALERTS = frozenset(
    {
        "TLSV1_BAD_CERTIFICATE_HASH_VALUE",
        "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE",
        "TLSV1_CERTIFICATE_UNOBTAINABLE",
        "TLSV1_UNRECOGNIZED_NAME",
        "TLSV1_UNSUPPORTED_EXTENSION",
    }
)
"""OpenSSL's words for alerts of the other side that do not say so."""
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})
"""What it makes of bytes that are no TLS, from version to version."""


def context(tls: PoolTls) -> ssl.SSLContext:
    """What connections to the pool begin with; ssl.SSLError or ValueError where the PEM is none.

    The same object for the same words, whatever the name to ask for.
    """
    return _context(replace(tls, server_name=""))


@lru_cache(maxsize=MOST_CONTEXTS)
def _context(tls: PoolTls) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(["http/1.1"])
    if not tls.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif tls.ca:
        # Only what the operator named is trusted, also where that is no root.
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        pem.load_authorities(made, tls.ca)
    else:
        made.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if tls.certificate is not None:
        pem.load_pair(made, tls.certificate.chain, tls.certificate.key)
    return made


def name_for(tls: PoolTls, host: str) -> str | None:
    """The name to ask for and to find in the certificate: `ssl` sends no IP address, but looks for it."""
    return (tls.server_name or host).rstrip(".") or None


def is_alert(error: ssl.SSLError) -> bool:
    """Whether it is the other side that complained."""
    reason = _reason(error)
    return "_ALERT_" in reason or reason in _ALERTS


def in_words(error: ssl.SSLError) -> str:
    """`certificate: hostname mismatch, ...`, `TLS: alert unknown ca`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message or str(error)
        first, rest = said[:1], said[1:]
        said = first.lower() + rest if rest[:1].islower() else said  # "IP address" stays as it is
        return f"certificate: {said}".rstrip(".")
    reason = _reason(error)
    if not reason:
        return f"TLS: {error.args[-1]}"
    asks = " (does it speak TLS?)" if reason in _NOT_TLS else ""
    return f"TLS: {reason.lower().replace('_', ' ')}{asks}"


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's word; an error that was not raised by it has none."""
    return getattr(error, "reason", None) or ""
