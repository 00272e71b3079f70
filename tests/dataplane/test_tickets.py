"""Session tickets: who may resume whose sessions."""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import Any

import pytest
import trustme

from proxy.dataplane import client_certificate, tickets, tls
from proxy.model import Certificate, ListenerTls
from tests.dataplane.tls_client import trusting

AUTHORITY = trustme.CA()
PAIR = AUTHORITY.issue_cert("shop.example")
SECRET, OTHER = "11" * 32, "22" * 32


def server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    PAIR.configure_cert(context)
    return context


def visit(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[bool, ssl.SSLSession | None]:
    """One connection in memory: whether it was resumed, and what the next one may resume."""
    theirs, _ = both_ends(server, client, session)
    return bool(theirs.session_reused), theirs.session


def both_ends(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """The client's and the server's end of a connection in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname="shop.example", session=session)
    waiting: list[Any] = [theirs, ours]
    while waiting:
        for each in list(waiting):
            try:
                each.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(each)
    ours.write(b"x")  # TLS 1.3 sends its tickets before
    assert theirs.read() == b"x"
    return theirs, ours


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def client(request: pytest.FixtureRequest) -> ssl.SSLContext:
    context = trusting(AUTHORITY)
    context.maximum_version = ssl.TLSVersion[request.param]
    return context


@pytest.mark.parametrize(
    ("first", "second", "is_resumed"),
    [
        ((SECRET, "a"), (SECRET, "a"), True),
        ((SECRET, "a"), (OTHER, "a"), False),
        ((SECRET, "a"), (SECRET, "b"), False),
    ],
)
def test_a_session_is_resumed_where_secret_and_policy_are_the_same(
    client: ssl.SSLContext, first: tuple[str, str], second: tuple[str, str], is_resumed: object
) -> None:
    one, other = server(), server()
    assert tickets.share(one, *first)
    assert tickets.share(other, *second)
    reused, session = visit(one, client, None)
    assert not reused
    assert visit(other, client, session)[0] is is_resumed
    assert visit(one, client, session)[0], "it can be resumed at all"


def test_without_a_secret_every_context_is_for_itself(client: ssl.SSLContext) -> None:
    one, other = server(), server()
    assert not tickets.share(one, "", "")
    _, session = visit(one, client, None)
    assert not visit(other, client, session)[0]
    assert visit(one, client, session)[0]


def test_a_resumed_session_still_knows_the_clients_certificate(client: ssl.SSLContext) -> None:
    AUTHORITY.issue_cert("worker.example").configure_cert(client)
    certificate = Certificate(
        chain=PAIR.cert_chain_pems[0].bytes().decode(),
        key=PAIR.private_key_pem.bytes().decode(),
        names=("shop.example",),
    )
    spec = ListenerTls(
        certificates=(certificate,),
        client_ca=AUTHORITY.cert_pem.bytes().decode(),
        ticket_secret=SECRET,
    )
    first, _ = both_ends(tls.server_context(spec), client, None)
    second, ours = both_ends(tls.server_context(spec), client, first.session)
    assert second.session_reused
    assert b"X-Client-Cert-San: DNS:worker.example\r\n" in client_certificate.lines(ours)
    lax = replace(spec, client_auth="optional")
    third, _ = both_ends(tls.server_context(lax), client, first.session)
    assert not third.session_reused, "it was verified by other rules"


def test_the_number_of_tickets_stays_as_it_was() -> None:
    context = server()
    before = context.num_tickets
    tickets.share(context, SECRET, "")
    assert context.num_tickets == before


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        ("sys", "version_info", (3, 99, 0)),
        ("platform", "python_implementation", lambda: "PyPy"),
        ("sysconfig", "get_config_var", lambda _: 1),
    ],
)
def test_an_unknown_python_is_not_looked_into(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, value: Any
) -> None:
    tickets._library.cache_clear()
    monkeypatch.setattr(getattr(tickets, module), name, value)
    try:
        assert not tickets.share(server(), SECRET, "")
    finally:
        tickets._library.cache_clear()


def test_a_context_that_is_not_where_it_should_be_is_left_alone() -> None:
    class Elsewhere:
        @staticmethod
        def SSL_CTX_get_options(_: int) -> int:  # noqa: N802 - OpenSSL's name
            return 0

    assert tickets._pointer(Elsewhere, server()) is None
