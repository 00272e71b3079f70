"""A certificate authority of the tests' own, and what it issues."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

from proxy.model import Certificate


class Authority:
    def __init__(self) -> None:
        self.own = trustme.CA()

    @property
    def pem(self) -> str:
        return self.own.cert_pem.bytes().decode()

    def issue(self, *names: str) -> Issued:
        return Issued(self.own.issue_cert(*names))


class Issued:
    """A certificate with its key."""

    def __init__(self, leaf: trustme.LeafCert) -> None:
        self._leaf = leaf
        chain = "".join(blob.bytes().decode() for blob in leaf.cert_chain_pems)
        self.certificate = Certificate(chain=chain, key=leaf.private_key_pem.bytes().decode())

    def server(self, clients: Authority | None = None) -> ssl.SSLContext:
        """The context of a server that shows it, and that asks its clients for one of `clients`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._leaf.configure_cert(context)
        context.set_alpn_protocols(["h2", "http/1.1"])
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            clients.own.configure_trust(context)
        return context

    def write(self, folder: Path, name: str) -> tuple[str, str]:
        """Write both to files, the one in place of the old; their paths."""
        paths = []
        for suffix, text in (("crt", self.certificate.chain), ("key", self.certificate.key)):
            path = folder / f"{name}.{suffix}"
            fresh = path.with_suffix(".new")
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(path)
            paths.append(str(path))
        return paths[0], paths[1]
