"""Certificates and keys that a configuration names: whether they can be used, whom they are for.

The `cryptography` library is imported when a configuration names a certificate, not before:
it would double the time that most commands take to start.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from proxy import pem
from proxy.control.config.files import CertificateFacts, Files
from proxy.control.config.problem import Finding, Path, Wrong
from proxy.control.config.schema import Config

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

CERTIFICATE = "-----BEGIN CERTIFICATE-----"
TRUSTED = "-----BEGIN TRUSTED CERTIFICATE-----"


class _Named(NamedTuple):
    """A certificate's files as a configuration names them, with the paths of both keys."""

    cert_path: Path
    cert: str
    key_path: Path
    key: str


def inspect(config: Config, files: Files) -> tuple[dict[str, CertificateFacts], list[Finding]]:
    """Facts on each usable certificate by its file as it is written, and what is wrong."""
    facts: dict[str, CertificateFacts] = {}
    findings: list[Finding] = []
    for pair in _pairs(config):
        try:
            chain = _chain(files.text(pair.cert))
            facts[pair.cert] = _facts(chain[0])
        except Wrong as wrong:
            findings.append(_finding(pair.cert_path, wrong))
            continue
        try:
            _key_fits(chain[0], files.text(pair.cert), files.text(pair.key))
        except Wrong as wrong:
            findings.append(_finding(pair.key_path, wrong))
    for path, written in _authorities(config):
        try:
            _check_authorities(files.text(written))
        except Wrong as wrong:
            findings.append(_finding(path, wrong))
    return facts, findings


def _finding(path: Path, wrong: Wrong) -> Finding:
    return Finding(path=path, what=wrong.what, expected=wrong.expected)


def _pairs(config: Config) -> Iterator[_Named]:
    for index, listener in enumerate(config.listeners):
        for place, pair in enumerate(listener.tls.certificates if listener.tls else ()):
            path: Path = ("listeners", index, "tls", "certificates", place)
            yield _Named((*path, "cert"), pair.cert, (*path, "key"), pair.key)
    for name, service in config.services.items():
        for pool, filled in service.pools.items():
            if filled.tls is not None and filled.tls.cert and filled.tls.key:
                path = ("services", name, "pools", pool, "tls")
                yield _Named((*path, "cert"), filled.tls.cert, (*path, "key"), filled.tls.key)


def _authorities(config: Config) -> Iterator[tuple[Path, str]]:
    for index, listener in enumerate(config.listeners):
        if listener.tls is not None and listener.tls.client_ca is not None:
            yield ("listeners", index, "tls", "client_ca"), listener.tls.client_ca
    for name, service in config.services.items():
        for pool, filled in service.pools.items():
            if filled.tls is not None and filled.tls.ca is not None:
                yield ("services", name, "pools", pool, "tls", "ca"), filled.tls.ca


# ---- certificates ----


def _certificates(text: str) -> list[Certificate]:
    from cryptography import x509  # noqa: PLC0415 - see above

    if CERTIFICATE not in text and TRUSTED not in text:
        raise Wrong("holds no certificate", f"PEM: {CERTIFICATE}")
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise Wrong("holds a certificate that cannot be read", "PEM, complete") from None


def _chain(text: str) -> list[Certificate]:
    """The certificate, and behind it those who signed; Wrong when one of them signed nothing.

    Two that signed for the same one may stand behind each other: a root's change looks so.
    """
    chain = _certificates(text)
    for place, signer in enumerate(chain[1:], 1):
        if not any(_is_signed(each, signer) for each in chain[:place]):
            raise Wrong(
                f"holds certificates in a wrong order: number {place + 1} signed none before it",
                "the site's own first, then who signed it, and so on",
            )
    return chain


def _is_signed(certificate: Certificate, signer: Certificate) -> bool:
    from cryptography.exceptions import (  # noqa: PLC0415 - see above
        InvalidSignature,
        UnsupportedAlgorithm,
    )

    try:
        certificate.verify_directly_issued_by(signer)
    except (InvalidSignature, ValueError):
        return False
    except (TypeError, UnsupportedAlgorithm):  # it may be right: OpenSSL has the last word
        return certificate.issuer == signer.subject
    return True


def _facts(certificate: Certificate) -> CertificateFacts:
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - see above

    try:
        names = _names(certificate)
    except ValueError:
        raise Wrong("holds a certificate whose names cannot be read") from None
    return CertificateFacts(
        names=names,
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        fingerprint=certificate.fingerprint(SHA256()).hex(),
    )


def _names(certificate: Certificate) -> tuple[str, ...]:
    from cryptography import x509  # noqa: PLC0415 - see above

    found: list[str] = []
    with suppress(x509.ExtensionNotFound):
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = others.get_values_for_type(x509.DNSName)
        if not found and others.get_values_for_type(x509.IPAddress):
            return ()
    if not found:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        found = [str(each.value) for each in common]
    return tuple(dict.fromkeys(name.lower().rstrip(".") for name in found))


# ---- keys ----


def _key_fits(certificate: Certificate, chain: str, key: str) -> None:
    """Wrong when the key cannot be used with the certificate; nothing of it is ever in a word."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see above

    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except TypeError:
        raise Wrong("has a passphrase", "a key without one, readable by Turnout alone") from None
    except Exception:  # noqa: BLE001 - of many kinds, and their words may quote the key
        raise Wrong("holds no private key that can be read", "PEM, without a passphrase") from None
    if private.public_key() != certificate.public_key():
        raise Wrong("is not the key of the certificate beside it", "the key it was made with")
    _accepted_by_openssl(lambda context: pem.load_pair(context, chain, key))


def _check_authorities(text: str) -> None:
    _certificates(text)
    _accepted_by_openssl(lambda context: pem.load_authorities(context, text))


def _accepted_by_openssl(load: Callable[[ssl.SSLContext], None]) -> None:
    """What the workers will do: keys may be too short for it, signatures too weak."""
    try:
        load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    except (ssl.SSLError, ValueError) as error:
        raise Wrong(f"cannot be used: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or "OpenSSL refuses it"
    return reason.replace("_", " ").lower()
