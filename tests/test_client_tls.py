"""TLS as its client: one context for the same words, and failures that people understand."""

from __future__ import annotations

import ssl
from dataclasses import replace

import pytest

from proxy import client_tls
from proxy.model import PoolTls
from tests.authority import Authority


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def test_the_same_words_share_a_context_whatever_the_name(authority: Authority) -> None:
    tls = PoolTls(ca=authority.pem)
    context = client_tls.context(tls)
    assert client_tls.context(replace(tls, server_name="app.test")) is context
    assert client_tls.context(replace(tls, verify=False)) is not context


def test_a_context_verifies_and_speaks_no_old_version(authority: Authority) -> None:
    context = client_tls.context(PoolTls(ca=authority.pem))
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) == 1, "the system's are not trusted beside it"


def test_without_an_authority_the_systems_are_asked() -> None:
    context = client_tls.context(PoolTls())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.cert_store_stats()["x509_ca"] == len(context.get_ca_certs())


def test_verification_can_be_switched_off_as_a_whole() -> None:
    context = client_tls.context(PoolTls(verify=False, ca="ignored"))
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname


@pytest.mark.parametrize("text", ["", " ", "nothing", "-----BEGIN CERTIFICATE-----\nx"])
def test_a_key_that_is_none_is_an_error_without_its_text(authority: Authority, text: str) -> None:
    issued = authority.issue("a.test").certificate
    with pytest.raises(ssl.SSLError) as caught:
        client_tls.context(PoolTls(verify=False, certificate=replace(issued, key=text)))
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize(
    ("server_name", "host", "name"),
    [
        ("", "127.0.0.1", "127.0.0.1"),
        ("", "app.test.", "app.test"),
        ("app.test", "127.0.0.1", "app.test"),
        ("", "", None),
        ("", ".", None),
    ],
)
def test_the_name_to_ask_for(server_name: str, host: str, name: str | None) -> None:
    assert client_tls.name_for(PoolTls(server_name=server_name), host) == name


def _error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL] something")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "words", "is_alert"),
    [
        (_error("TLSV1_ALERT_UNKNOWN_CA"), "TLS: tlsv1 alert unknown ca", True),
        (_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "", True),
        (_error("TLSV1_UNRECOGNIZED_NAME"), "TLS: tlsv1 unrecognized name", True),
        (_error("WRONG_VERSION_NUMBER"), "TLS: wrong version number (does it speak TLS?)", False),
        (_error("UNSUPPORTED_PROTOCOL"), "TLS: unsupported protocol", False),
        (ssl.SSLEOFError(8, "closed during the handshake"), "TLS: closed during the", False),
    ],
)
def test_an_error_is_told_in_words(error: ssl.SSLError, words: str, *, is_alert: bool) -> None:
    assert client_tls.in_words(error).startswith(words)
    assert client_tls.is_alert(error) is is_alert
