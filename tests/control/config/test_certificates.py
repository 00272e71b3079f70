"""Certificates and keys that a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from proxy.control.config.load import Loaded, load_file
from proxy.control.config.problem import ConfigInvalid

TEXT = """
listeners:
  - bind: "127.0.0.1:8443"
    tls:
      certificates:
        - {cert: shop.crt, key: shop.key}
      client_ca: ca.pem
services:
  shop:
    routes: [{host: shop.example.com}]
    pools:
      blue: {endpoints: ["127.0.0.1:9001"], tls: {ca: ca.pem, cert: shop.crt, key: shop.key}}
    active: blue
"""
AT_CERT, AT_KEY, AT_CA = "6:18: {}.cert: ", "6:33: {}.key: ", "7:18: listeners[0].tls.client_ca: "
PAIR = "listeners[0].tls.certificates[0]"


def _chain(pair: trustme.LeafCert) -> str:
    return "".join(each.bytes().decode() for each in pair.cert_chain_pems)


def _key(pair: trustme.LeafCert) -> str:
    return pair.private_key_pem.bytes().decode()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def folder(tmp_path: Path, authority: trustme.CA) -> Path:
    pair = authority.issue_cert(
        "Shop.example.com", "*.shop.example.com", common_name="other.example"
    )
    (tmp_path / "shop.crt").write_text(_chain(pair))
    (tmp_path / "shop.key").write_text(_key(pair))
    (tmp_path / "ca.pem").write_text(authority.cert_pem.bytes().decode())
    (tmp_path / "turnout.yaml").write_text(TEXT)
    return tmp_path


def load(folder: Path) -> Loaded:
    return load_file(str(folder / "turnout.yaml"), {})


def problems(folder: Path) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        load(folder)
    start = f"{folder}/turnout.yaml:"
    return [str(each).removeprefix(start) for each in caught.value.problems]


def at_listener(folder: Path) -> str:
    """The problem at the listener; the pool has the same one with the same files."""
    first, second = problems(folder)
    assert second.startswith("12:"), second
    return first


def test_a_certificate_tells_its_names_and_its_end(folder: Path) -> None:
    facts = load(folder).files.certificates["shop.crt"]
    assert facts.names == ("shop.example.com", "*.shop.example.com")
    assert facts.not_before < facts.not_after
    assert len(facts.fingerprint) == 64


def test_one_without_other_names_is_for_its_common_name(
    folder: Path, self_signed: Callable[..., tuple[str, str]]
) -> None:
    chain, key = self_signed("Old.example")
    (folder / "shop.crt").write_text(chain)
    (folder / "shop.key").write_text(key)
    assert load(folder).files.certificates["shop.crt"].names == ("old.example",)


def test_one_for_an_address_alone_is_for_no_name(folder: Path, authority: trustme.CA) -> None:
    pair = authority.issue_cert("127.0.0.1", common_name="box")
    (folder / "shop.crt").write_text(_chain(pair))
    (folder / "shop.key").write_text(_key(pair))
    assert load(folder).files.certificates["shop.crt"].names == ()


def test_an_expired_certificate_is_no_problem_of_the_file(
    folder: Path, self_signed: Callable[..., tuple[str, str]]
) -> None:
    chain, key = self_signed("old.example", days=-1)
    (folder / "shop.crt").write_text(chain)
    (folder / "shop.key").write_text(key)
    facts = load(folder).files.certificates["shop.crt"]
    assert facts.not_after < 1.8e9


def test_certificate_and_key_may_be_in_one_file(folder: Path) -> None:
    both = (folder / "shop.key").read_text() + (folder / "shop.crt").read_text()
    (folder / "shop.crt").write_text(both)
    (folder / "shop.key").write_text(both)
    assert load(folder).files.certificates


def test_another_certificates_key_is_refused(folder: Path, authority: trustme.CA) -> None:
    (folder / "shop.key").write_text(_key(authority.issue_cert("other.example")))
    assert at_listener(folder) == AT_KEY.format(PAIR) + (
        "is not the key of the certificate beside it (expected the key it was made with)"
    )


def test_a_key_with_a_passphrase_is_refused_and_not_asked_for_it(folder: Path) -> None:
    key = serialization.load_pem_private_key((folder / "shop.key").read_bytes(), None)
    hidden = serialization.BestAvailableEncryption(b"secret")
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "shop.key").write_bytes(key.private_bytes(pem, form, hidden))
    assert at_listener(folder) == AT_KEY.format(PAIR) + (
        "has a passphrase (expected a key without one, readable by Turnout alone)"
    )


@pytest.mark.parametrize("damage", ["", "no key at all", "-----BEGIN PRIVATE KEY-----\nabc\n"])
def test_what_is_no_key_is_refused_and_never_quoted(folder: Path, damage: str) -> None:
    (folder / "shop.key").write_text(damage)
    assert at_listener(folder) == AT_KEY.format(PAIR) + (
        "holds no private key that can be read (expected PEM, without a passphrase)"
    )


def test_what_is_no_certificate_is_refused(folder: Path) -> None:
    (folder / "shop.crt").write_text("hello")
    assert at_listener(folder) == AT_CERT.format(PAIR) + (
        "holds no certificate (expected PEM: -----BEGIN CERTIFICATE-----)"
    )


def test_half_a_certificate_is_refused(folder: Path) -> None:
    whole = (folder / "shop.crt").read_text()
    (folder / "shop.crt").write_text(whole[: len(whole) // 2] + "\n-----END CERTIFICATE-----\n")
    assert at_listener(folder) == AT_CERT.format(PAIR) + (
        "holds a certificate that cannot be read (expected PEM, complete)"
    )


def test_a_key_that_openssl_thinks_too_short_is_refused_before_a_worker_meets_it(
    folder: Path, self_signed: Callable[..., tuple[str, str]]
) -> None:
    chain, key = self_signed("weak.example", key=rsa.generate_private_key(65537, 1024))
    (folder / "shop.crt").write_text(chain)
    (folder / "shop.key").write_text(key)
    assert at_listener(folder) == AT_KEY.format(PAIR) + "cannot be used: ee key too small"


def test_a_chain_is_in_order(folder: Path, authority: trustme.CA) -> None:
    between = authority.create_child_ca()
    pair = between.issue_cert("shop.example.com")
    (folder / "shop.key").write_text(_key(pair))
    (folder / "shop.crt").write_text(_chain(pair))  # with the one between
    assert load(folder).files.certificates
    leaf = pair.cert_chain_pems[0].bytes().decode()
    root = authority.cert_pem.bytes().decode()
    (folder / "shop.crt").write_text(leaf + root + between.cert_pem.bytes().decode())
    assert at_listener(folder) == AT_CERT.format(PAIR) + (
        "holds certificates in a wrong order: number 2 signed none before it "
        "(expected the site's own first, then who signed it, and so on)"
    )


def test_comments_between_certificates_may_be_in_any_language(folder: Path) -> None:
    for name in ("ca.pem", "shop.crt"):
        whole = (folder / name).read_text()
        (folder / name).write_text(f"Zertifikate für Größe\n{whole}\narrivederci è più\n")
    found = load(folder)
    assert found.files.certificates["shop.crt"].names[0] == "shop.example.com"


def test_authorities_must_be_certificates(folder: Path) -> None:
    (folder / "ca.pem").write_text("nobody")
    assert at_listener(folder) == AT_CA + (
        "holds no certificate (expected PEM: -----BEGIN CERTIFICATE-----)"
    )


def test_the_same_names_may_be_in_several_certificates(folder: Path) -> None:
    twice = "        - {cert: shop.crt, key: shop.key}\n"
    (folder / "turnout.yaml").write_text(TEXT.replace(twice, twice + twice))
    assert load(folder).files.certificates


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (
            "      client_ca: ca.pem\n",
            "      client_auth: optional\n",
            (
                "7:20: listeners[0].tls.client_auth: asks clients for certificates, and there is no "
                "client_ca to know them by (expected client_ca too)"
            ),
        ),
        (
            ", key: shop.key}}",
            "}}",
            "12:69: services.shop.pools.blue.tls.cert: is of no use without key (expected both)",
        ),
        (
            "      client_ca: ca.pem\n",
            "      min_version: 1.2\n",
            (
                "7:20: listeners[0].tls.min_version: is the number 1.2 "
                '(expected 1.2 or 1.3; did you mean "1.2", in quotes)'
            ),
        ),
        (
            "\n        - {cert: shop.crt, key: shop.key}",
            " []",
            "5:21: listeners[0].tls.certificates: is empty (expected at least one)",
        ),
    ],
)
def test_keys_that_make_no_sense_are_refused(folder: Path, old: str, new: str, found: str) -> None:
    assert old in TEXT
    (folder / "turnout.yaml").write_text(TEXT.replace(old, new))
    assert problems(folder) == [found]


def test_no_key_is_shown_by_what_holds_it(folder: Path) -> None:
    secret = (folder / "shop.key").read_text().splitlines()[1]
    assert secret not in repr(load(folder))
