"""What an endpoint is told of a client's certificate, for names that mean no good."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.client_certificate import LONGEST, lines, names_of, subject_of


class Session:
    """A TLS session whose client has shown this certificate."""

    def __init__(self, certificate: dict[str, Any] | None) -> None:
        self._certificate = certificate

    def getpeercert(self) -> dict[str, Any] | None:
        return self._certificate


def told(certificate: dict[str, Any] | None) -> bytes:
    session: Any = Session(certificate)
    return lines(session)


def subject(**parts: str) -> dict[str, Any]:
    return {"subject": tuple(((kind, value),) for kind, value in parts.items())}


def test_the_subject_begins_with_its_most_specific_part() -> None:
    certificate = {
        "subject": (
            (("countryName", "DE"),),
            (("organizationName", "Example"),),
            (("commonName", "worker"), ("userId", "7")),
            (("serialNumber", "42"),),
        )
    }
    assert subject_of(certificate) == b"serialNumber=42,CN=worker+UID=7,O=Example,C=DE"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a,CN=root", rb"a\2CCN=root"),
        ("a+b=c", rb"a\2Bb=c"),
        ('"q" <x>;\\', rb"\22q\22 \3Cx\3E\3B\5C"),
        (" both ", rb"\20both\20"),
        ("#1", rb"\231"),
        ("a\r\nX-Admin: 1", rb"a\0D\0AX-Admin: 1"),
        ("Zoë", rb"Zo\C3\AB"),
        ("\0", rb"\00"),
        ("", b""),
    ],
)
def test_what_could_be_mistaken_is_escaped(value: str, written: bytes) -> None:
    assert subject_of(subject(commonName=value)) == b"CN=" + written


def test_names_come_with_their_kinds_and_no_name_can_pass_for_two() -> None:
    certificate = {
        "subjectAltName": (
            ("DNS", "a.example"),
            ("URI", "spiffe://b/c, DNS:root.example"),
            ("IP Address", "10.0.0.1"),
            ("email", "d@e.example"),
            ("DirName", ((("commonName", "x"),),)),
        )
    }
    assert names_of(certificate) == (
        rb"DNS:a.example, URI:spiffe://b/c\2C\20DNS:root.example, IP:10.0.0.1, email:d@e.example"
    )


def test_what_is_too_long_is_left_out_and_never_cut() -> None:
    assert told(subject(commonName="x" * LONGEST)) == b""
    certificate = {"subjectAltName": tuple(("DNS", f"{n:03}.example") for n in range(1000))}
    names = names_of(certificate)
    assert LONGEST - 20 < len(names) <= LONGEST
    assert all(re.fullmatch(rb"DNS:\d{3}\.example", name) for name in names.split(b", "))


def test_without_a_certificate_nothing_is_said() -> None:
    assert lines(None) == told(None) == told({}) == b""


@given(st.text(max_size=50), st.text(max_size=50))
def test_whatever_a_certificate_says_is_one_visible_line(common: str, name: str) -> None:
    said = told({**subject(commonName=common), "subjectAltName": (("URI", name),)})
    assert re.fullmatch(
        rb"X-Client-Cert-Subject: [!-~ ]*\r\nX-Client-Cert-San: URI:[!-~]*\r\n", said
    )
