"""What the tests of the configuration share: a small valid file, and the problems of any text."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from proxy.control.config.load import load_text
from proxy.control.config.problem import ConfigInvalid
from proxy.control.config.schema import Config

MINIMAL = """\
listeners:
  - bind: 127.0.0.1:8080
services:
  shop:
    routes: [{path: /}]
    pools:
      blue: {endpoints: ["127.0.0.1:9001"]}
      green: {endpoints: ["127.0.0.1:9101"]}
    active: blue
"""

Problems = Callable[..., list[str]]
Load = Callable[..., Config]


@pytest.fixture
def minimal() -> str:
    return MINIMAL


@pytest.fixture
def load() -> Load:
    """The configuration of a text that must be valid; `service` is added to the minimal file."""

    def _load(
        text: str = "", *, service: str = "", environ: Mapping[str, str] | None = None
    ) -> Config:
        return load_text(text or MINIMAL + service, "t.yaml", environ or {}).config

    return _load


@pytest.fixture
def problems() -> Problems:
    """The problems of a text as sentences, or of the minimal file with `service` or `top` added."""

    def _problems(
        text: str | None = None,
        *,
        service: str = "",
        top: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> list[str]:
        try:
            load_text(MINIMAL + service + top if text is None else text, "t.yaml", environ or {})
        except ConfigInvalid as invalid:
            return [str(problem) for problem in invalid.problems]
        return []

    return _problems


SelfSigned = Callable[..., tuple[str, str]]


@pytest.fixture(scope="session")
def self_signed() -> SelfSigned:
    """A certificate that has no names but the common one, and its key, both PEM."""

    def _self_signed(
        name: str,
        *,
        days: float = 30,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
    ) -> tuple[str, str]:
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - dt.timedelta(days=90))
            .not_valid_after(end)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        form, hidden = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return (
            certificate.public_bytes(pem).decode(),
            key.private_bytes(pem, form, hidden).decode(),
        )

    return _self_signed
