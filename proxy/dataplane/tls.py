"""How a listener speaks TLS: one context for each certificate, picked by the name asked for."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from proxy import pem
from proxy.dataplane import tickets
from proxy.model import Certificate, ListenerTls

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
ALPN = ["http/1.1"]


def server_context(spec: ListenerTls) -> ssl.SSLContext:
    """The context that every handshake of the listener begins with; ssl.SSLError if it cannot be.

    It belongs to the first certificate; once the client has said a name, another one may go on.
    Settings of the connection itself (versions, whether clients are asked) stay the first one's.
    """
    groups = _alike(spec.certificates)
    contexts = [_context(spec, group) for group in groups]
    table: dict[str, ssl.SSLContext] = {}
    for group, context in zip(groups, contexts, strict=True):
        for name in group[0].names:
            table.setdefault(name, context)
    first = contexts[0]
    # Tickets are the first one's, whichever goes on.
    tickets.share(first, spec.ticket_secret, f"{spec.client_auth} {spec.client_ca}")
    if len(contexts) > 1:
        first.sni_callback = _picker(table)
    return first


def _alike(certificates: Iterable[Certificate]) -> list[list[Certificate]]:
    """Certificates for the very same names are shown by one context: one for each kind of key."""
    groups: dict[object, list[Certificate]] = {}
    for each in certificates:
        groups.setdefault(each.names or id(each), []).append(each)
    return list(groups.values())


def _context(spec: ListenerTls, certificates: list[Certificate]) -> ssl.SSLContext:
    # Python's defaults are sane: no compression, no renegotiation by clients, forward secrecy
    # and authenticated encryption first, the server's order of ciphers.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[spec.min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(ALPN)
    for each in reversed(certificates):  # of several with one kind of key the last one counts
        pem.load_pair(context, each.chain, each.key)
    if spec.client_ca:
        pem.load_authorities(context, spec.client_ca)
        # Whoever is named as signer is trusted as such, though somebody else signed for him.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        required = spec.client_auth == "required"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def _picker(table: Mapping[str, ssl.SSLContext]) -> Any:
    def pick(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        found = find(table, name)
        if found is not None:
            connection.context = found

    return pick


def find(table: Mapping[str, ssl.SSLContext], name: str | None) -> ssl.SSLContext | None:
    """The context for this very name, else that of the wildcard above it."""
    if not name:
        return None
    name = name.lower().rstrip(".")
    return table.get(name) or table.get("*." + name.partition(".")[2])
