"""What an endpoint is told of a client's verified certificate: its names, safe in a header.

Whatever is not visible ASCII, and whatever separates names, is written as a backslash and two
hexadecimal digits for each byte of UTF-8, as RFC 4514 section 2.4 has it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from typing import Any

LONGEST = 4096
"""Bytes of a header's value: endpoints refuse heads that are too long."""

_SHORT = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
"""RFC 4514 section 3; other types go by the names that OpenSSL has for them."""
_KINDS = {"DNS": "DNS", "URI": "URI", "IP Address": "IP", "email": "email"}
_UNSAFE_IN_SUBJECT = re.compile(rb'[\x00-\x1f\x7f-\xff"+,;<>\\]')
_UNSAFE_IN_NAME = re.compile(rb'[\x00-\x20\x7f-\xff",;\\]')

Certificate = Any
"""What SSLObject.getpeercert says."""


def lines(tls: ssl.SSLObject | None) -> bytes:
    """The header lines; empty without a verified certificate."""
    certificate = tls.getpeercert() if tls is not None else None
    if not certificate:
        return b""
    found = b""
    subject = subject_of(certificate)
    if subject and len(subject) <= LONGEST:  # a part of it could be another's name
        found += b"X-Client-Cert-Subject: %b\r\n" % subject
    names = names_of(certificate)
    if names:
        found += b"X-Client-Cert-San: %b\r\n" % names
    return found


def subject_of(certificate: Certificate) -> bytes:
    """The subject as RFC 4514 writes it: the most specific part first."""
    parts = [
        b"+".join(_attribute(kind, value) for kind, value in part)
        for part in reversed(certificate.get("subject", ()))
    ]
    return b",".join(parts)


def _attribute(kind: str, value: str) -> bytes:
    text = _UNSAFE_IN_SUBJECT.sub(_escaped, value.encode())
    if text[:1] in {b" ", b"#"}:
        text = b"\\%02X" % text[0] + text[1:]
    if text[-1:] == b" ":
        text = text[:-1] + b"\\20"
    return b"%b=%b" % (_SHORT.get(kind, kind).encode(), text)


def names_of(certificate: Certificate) -> bytes:
    """The subjectAltNames: `DNS:a.example, URI:spiffe://b/c`; those that are too many are left out."""
    return _fitting(
        b"%b:%b" % (_KINDS[kind].encode(), _UNSAFE_IN_NAME.sub(_escaped, value.encode()))
        for kind, value in certificate.get("subjectAltName", ())
        if kind in _KINDS
    )


def _fitting(names: Iterable[bytes]) -> bytes:
    found = b""
    for name in names:
        longer = b"%b, %b" % (found, name) if found else name
        if len(longer) > LONGEST:
            break
        found = longer
    return found


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"\\%02X" % match[0][0]
