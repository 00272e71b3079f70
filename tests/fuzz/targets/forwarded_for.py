"""X-Forwarded-For: whatever a client puts there, it cannot choose the address we take it for."""

from __future__ import annotations

from collections.abc import Hashable
from ipaddress import ip_address

from proxy.policy.trust import TrustedPeers

A_WHILE = 90_000
TOKENS = (
    *(b",", b", ", b"10.1.1.1", b"203.0.113.9", b"::1", b"[::1]:80", b"unknown", b"_hidden", b":"),
    *(b"::ffff:10.0.0.1", b"fe80::1%eth0", b"[", b"]", b"%", b"for=", b"1.2.3.4:5", b" ", b'"'),
)
_PEERS = TrustedPeers(("10.0.0.0/8", "192.168.0.0/16", "::1/128"))
_CLIENT = "203.0.113.9"


def seeds() -> list[bytes]:
    return [*TOKENS, b"1.2.3.4, 10.0.0.1, [::1]:80", b"6.6.6.6, unknown, 10.0.0.1"]


def run(data: bytes) -> Hashable:
    text = data.decode("latin-1")
    assert _PEERS.client(_CLIENT, text) == _CLIENT, "a peer that is not trusted is believed"
    forged = f"{text}, {_CLIENT}"
    for chain in (forged, f"{forged}, 10.2.3.4", f"{forged},10.2.3.4:80 , [::1]"):
        assert _PEERS.client("10.0.0.1", chain) == _CLIENT, f"who came as {chain!r}?"
    client = _PEERS.client("10.0.0.1", text)
    address = ip_address(client)
    assert str(address) == client
    is_trusted = _PEERS.trusts(client)
    assert len(_PEERS._memo) <= 4096
    return is_trusted, address.version, client == "10.0.0.1", text.count(",") > 1
