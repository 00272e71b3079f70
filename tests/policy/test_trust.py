"""Trust: who is believed about the client, and who the client then is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.trust import _MEMO_LIMIT, TrustedPeers

PEERS = TrustedPeers(("10.0.0.0/8", "192.0.2.7", "fd00::/8", "fe80::/10"))


@pytest.mark.parametrize(
    "address",
    ["10.1.2.3", "192.0.2.7", "fd00::1", "fe80::1%eth0", "::ffff:10.1.2.3", "::ffff:a01:203"],
)
def test_an_address_of_a_listed_network_is_trusted(address: str) -> None:
    assert PEERS.trusts(address)
    assert PEERS.trusts(address)  # and from memory


@pytest.mark.parametrize("address", ["11.1.2.3", "192.0.2.8", "fc00::1", "::ffff:11.1.2.3", "x"])
def test_any_other_is_not(address: str) -> None:
    assert not PEERS.trusts(address)


def test_nobody_is_trusted_when_nothing_is_listed() -> None:
    nobody = TrustedPeers(())
    assert not nobody.trusts("127.0.0.1")
    assert not nobody.trusts("")
    assert nobody.client("127.0.0.1", "1.2.3.4") == "127.0.0.1"
    assert nobody.client("", "1.2.3.4") == ""


@pytest.mark.parametrize("networks", [("10.0.0.0/8",), ("unix:",)])
def test_a_unix_peer_is_trusted_as_soon_as_anything_is_listed(networks: tuple[str, ...]) -> None:
    peers = TrustedPeers(networks)
    assert peers.trusts("")
    assert peers.client("", "1.2.3.4") == "1.2.3.4"
    assert peers.client("", "") == ""


def test_a_network_of_mapped_addresses_is_the_network_that_it_stands_for() -> None:
    peers = TrustedPeers(("::ffff:10.0.0.0/104",))
    assert peers.trusts("10.9.9.9")
    assert not peers.trusts("11.9.9.9")


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        ("", "10.0.0.1"),
        ("1.2.3.4", "1.2.3.4"),
        ("6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("6.6.6.6, 1.2.3.4, 10.0.0.9", "1.2.3.4"),
        ("6.6.6.6,1.2.3.4 ,10.0.0.9,192.0.2.7", "1.2.3.4"),
        ("10.0.0.8, 10.0.0.9", "10.0.0.8"),
        ("1.2.3.4, , 10.0.0.9,", "1.2.3.4"),
    ],
)
def test_the_client_is_the_right_most_that_is_not_trusted_else_the_left_most(
    forwarded_for: str, client: str
) -> None:
    assert PEERS.client("10.0.0.1", forwarded_for) == client


@pytest.mark.parametrize(
    ("written", "client"),
    [
        ("1.2.3.4:5678", "1.2.3.4"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:DB8::1]:443", "2001:db8::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("[::ffff:1.2.3.4]:80", "1.2.3.4"),
        ("fd12::1, 2001:db8::1%eth0", "2001:db8::1"),
    ],
)
def test_ports_brackets_and_scopes_are_tolerated(written: str, client: str) -> None:
    assert PEERS.client("10.0.0.1", written) == client


@pytest.mark.parametrize(
    "nonsense",
    [
        "unknown",
        "_hidden",
        "1.2.3.4:http",
        "1.2.3.4:5:6",
        "[2001:db8::1",
        "[2001:db8::1]x",
        "1.2.3.256",
        "01.2.3.4",
        "1" * 5000,
    ],
)
def test_nonsense_ends_the_walk_at_the_last_good_address(nonsense: str) -> None:
    assert PEERS.client("10.0.0.1", f"6.6.6.6, {nonsense}, 10.0.0.9") == "10.0.0.9"
    assert PEERS.client("10.0.0.1", f"6.6.6.6, {nonsense}") == "10.0.0.1"
    assert not PEERS.trusts(nonsense)


def test_a_peer_that_is_not_trusted_is_the_client_whatever_it_claims() -> None:
    assert PEERS.client("8.8.8.8", "1.2.3.4") == "8.8.8.8"


def test_addresses_made_up_by_strangers_do_not_pile_up() -> None:
    peers = TrustedPeers(("10.0.0.0/8",))
    for number in range(_MEMO_LIMIT + 100):
        peers.trusts(f"2001:db8::{number:x}")
        peers.trusts(f"no address {number}")
    assert len(peers._memo) <= _MEMO_LIMIT


@given(text=st.text(max_size=60), peer=st.text(max_size=20))
def test_no_text_makes_it_raise(text: str, peer: str) -> None:
    PEERS.trusts(text)
    PEERS.client(peer, text)
    PEERS.client("10.0.0.1", text)
