"""Certificates from memory into a TLS context."""

from __future__ import annotations

import os
import ssl
import stat
import tempfile
from pathlib import Path

import pytest
import trustme

from proxy import pem

PAIR = trustme.CA().issue_cert("shop.example")
CHAIN = PAIR.cert_chain_pems[0].bytes().decode()
KEY = PAIR.private_key_pem.bytes().decode()


def context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def test_a_pair_is_loaded_and_no_descriptor_stays() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    pem.load_pair(context(), CHAIN, KEY)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(("chain", "key"), [(CHAIN, "nothing"), ("nothing", KEY)])
def test_what_is_none_is_refused(chain: str, key: str) -> None:
    with pytest.raises(ssl.SSLError):
        pem.load_pair(context(), chain, key)


def test_where_memory_has_no_files_private_ones_are_used_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Watched(ssl.SSLContext):
        def load_cert_chain(self, certfile: str, keyfile: str, password: object) -> None:  # type: ignore[override]
            seen.extend(stat.S_IMODE(Path(each).stat().st_mode) for each in (certfile, keyfile))
            super().load_cert_chain(certfile, keyfile)
            assert callable(password)

    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pem.load_pair(Watched(ssl.PROTOCOL_TLS_SERVER), CHAIN, KEY)
    assert seen == [0o600, 0o600]
    assert not list(tmp_path.iterdir())
